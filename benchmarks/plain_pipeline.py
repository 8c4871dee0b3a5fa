"""The image pipeline of UniMatch and AllSpark written out plainly with PIL, in the released order.

Written from the description in the papers (arXiv:2208.09910, arXiv:2403.01818) and the released steps, with
torchvision's ``ColorJitter`` spelled out, as the side to measure against and to compare pixels with. Random
numbers are drawn apart from the work, so that both sides can be given the same ones.
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
    """The draws of one image: its new size, the crop's corner in the padded image, and the flip."""

    width: int
    height: int
    left: int
    top: int
    flip: bool


def draw_geometry(rng: random.Random, width: int, height: int, crop: int) -> Geometry:
    """Draw the longer side from half to twice its length, then the corner, then the flip."""
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
    """Draw the operations of the strong augmentation, in the order of application, with their amounts."""
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
    """Resize an image and its mask, pad them by 0 and 255, crop and flip them."""
    image = image.resize((draws.width, draws.height), Image.BILINEAR)
    mask = mask.resize((draws.width, draws.height), Image.NEAREST)
    right, below = max(crop - draws.width, 0), max(crop - draws.height, 0)
    image = ImageOps.expand(image, border=(0, 0, right, below), fill=0)
    mask = ImageOps.expand(mask, border=(0, 0, right, below), fill=255)
    box = (draws.left, draws.top, draws.left + crop, draws.top + crop)
    image, mask = image.crop(box), mask.crop(box)
    if draws.flip:
        image, mask = (part.transpose(Image.FLIP_LEFT_RIGHT) for part in (image, mask))
    return image, mask


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Turn the hue by ``turn`` of the color circle, in PIL's 8-bit HSV."""
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
    """Return (3, H, W) float32: scaled to [0, 1], less the mean of ImageNet, by its deviation."""
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    return tensor.clone().sub_(MEAN).div_(STD)


def plain_sample(
    image_path: str, mask_path: str | None, crop: int, rng: random.Random, color: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Load and augment one image.

    Args:
        image_path: The image.
        mask_path: Its mask, one byte a pixel; the released code opens and resizes it even where the image is
            unlabeled. None: a map of zeros instead.
        crop: Side of the crop.
        rng: Source of all random numbers.
        color: Whether to draw the strong augmentation, as for AllSpark's labeled images.

    Returns:
        tuple: the image (3, crop, crop) float32 and the mask (crop, crop) int64, 255 on padding.
    """
    image = Image.open(image_path).convert('RGB')
    if mask_path is None:
        mask = Image.new('L', image.size)
    else:
        mask = Image.fromarray(np.array(Image.open(mask_path)))
    image, mask = shape(image, mask, draw_geometry(rng, *image.size, crop), crop)
    for name, amount in draw_color(rng) if color else []:
        image = COLOR[name](image, amount)
    return normalize(image), torch.from_numpy(np.array(mask)).long()
