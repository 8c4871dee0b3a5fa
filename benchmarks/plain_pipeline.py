"""The image pipeline of UniMatch and AllSpark in the released order, written with PIL.

It follows the papers (arXiv:2208.09910, arXiv:2403.01818) and the released steps; torchvision's
``ColorJitter`` is written out. It is the reference for time and pixel values. Random numbers are drawn before
the work, so both sides can use the same numbers.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@dataclass
class Geometry:
    """The random draws for one image.

    Attributes:
        width (int): New width in pixels.
        height (int): New height in pixels.
        left (int): Left edge of the crop in the padded image.
        top (int): Top edge of the crop in the padded image.
        flip (bool): Whether the crop is flipped horizontally.
    """

    width: int
    height: int
    left: int
    top: int
    flip: bool


def draw_geometry(rng: random.Random, width: int, height: int, crop: int) -> Geometry:
    """Draw the longer side from half to twice its length, then the corner, then the flip.

    Args:
        rng (random.Random): Source of the random numbers.
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.
        crop (int): Side of the crop in pixels.

    Returns:
        Geometry: The draws.
    """
    long_side = max(width, height)
    new_long = rng.randint(int(0.5 * long_side), int(2.0 * long_side))
    if height > width:
        new_width, new_height = int(width * new_long / height + 0.5), new_long
    else:
        new_width, new_height = new_long, int(height * new_long / width + 0.5)
    left = rng.randint(0, max(new_width, crop) - crop)
    top = rng.randint(0, max(new_height, crop) - crop)
    return Geometry(new_width, new_height, left, top, rng.random() < 0.5)


def draw_color(rng: random.Random) -> list[tuple[str, float]]:
    """Draw the operations of the strong augmentation and their amounts, in the order of application."""
    operations = []
    if rng.random() < 0.8:
        operations = [(name, rng.uniform(0.5, 1.5)) for name in ('brightness', 'contrast', 'saturation')]
        operations.append(('hue', rng.uniform(-0.25, 0.25)))
        rng.shuffle(operations)
    if rng.random() < 0.2:
        operations.append(('grayscale', 1.0))
    if rng.random() < 0.5:
        operations.append(('blur', rng.uniform(0.1, 2.0)))
    return operations


def shape(
    image: Image.Image, mask: Image.Image, draws: Geometry, crop: int
) -> tuple[Image.Image, Image.Image]:
    """Resize an image and its mask, pad them with 0 and 255, then crop and flip them."""
    image = image.resize((draws.width, draws.height), Image.Resampling.BILINEAR)
    mask = mask.resize((draws.width, draws.height), Image.Resampling.NEAREST)
    right, below = max(crop - draws.width, 0), max(crop - draws.height, 0)
    image = ImageOps.expand(image, border=(0, 0, right, below), fill=0)
    mask = ImageOps.expand(mask, border=(0, 0, right, below), fill=255)
    box = (draws.left, draws.top, draws.left + crop, draws.top + crop)
    image, mask = image.crop(box), mask.crop(box)
    if draws.flip:
        image, mask = (part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in (image, mask))
    return image, mask


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Rotate the hue by the fraction ``turn`` of the color circle, in 8-bit HSV of PIL."""
    hue, saturation, value = image.convert('HSV').split()
    levels = np.array(hue, dtype=np.uint8)
    levels += np.uint8(int(turn * 255) % 256)
    return Image.merge('HSV', (Image.fromarray(levels), saturation, value)).convert('RGB')


COLOR = {
    'brightness': lambda image, amount: ImageEnhance.Brightness(image).enhance(amount),
    'contrast': lambda image, amount: ImageEnhance.Contrast(image).enhance(amount),
    'saturation': lambda image, amount: ImageEnhance.Color(image).enhance(amount),
    'hue': turn_hue,
    'grayscale': lambda image, amount: Image.merge('RGB', [image.convert('L')] * 3),
    'blur': lambda image, amount: image.filter(ImageFilter.GaussianBlur(amount)),
}


def normalize(image: Image.Image) -> torch.Tensor:
    """Normalize an image by the mean and the standard deviation of ImageNet: ``(3, H, W)`` float32."""
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    return tensor.clone().sub_(MEAN).div_(STD)


def plain_sample(
    image_path: str, mask_path: str | None, crop: int, rng: random.Random, color: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Load and augment one image.

    Args:
        image_path (str): The image.
        mask_path (str, optional): The mask, 8 bits per pixel. The released code opens and resizes it for
            unlabeled images too. None: zeros.
        crop (int): Side of the crop in pixels.
        rng (random.Random): Source of all random numbers.
        color (bool): Whether to apply the strong augmentation, as for the labeled images of AllSpark.

    Returns:
        tuple[Tensor, Tensor]: The image ``(3, crop, crop)`` float32 and the mask ``(crop, crop)`` int64 with
        255 on the padding.
    """
    image: Image.Image = Image.open(image_path).convert('RGB')
    if mask_path is None:
        mask = Image.new('L', image.size)
    else:
        mask = Image.fromarray(np.array(Image.open(mask_path)))
    image, mask = shape(image, mask, draw_geometry(rng, *image.size, crop), crop)
    for name, amount in draw_color(rng) if color else []:
        image = COLOR[name](image, amount)
    return normalize(image), torch.from_numpy(np.array(mask)).long()
