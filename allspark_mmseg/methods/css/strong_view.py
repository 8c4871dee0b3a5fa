"""The strong view of CSS: images and their targets, rescaled, mixed and flipped together."""

import torch
from torch import Tensor

from ...mixing import ClassMix, HalfAreaBoxes, paste
from ...pseudo_label import IGNORE_INDEX
from .geometry import Rescale, flip_horizontally
from .targets import Targets


@torch.no_grad()
def make_strong_view(
    images: Tensor, targets: Targets, scale_range: tuple[float, float], mix: str | None, num_classes: int
) -> tuple[Tensor, Targets]:
    """Rescale, mix and flip images and their targets at random.

    Args:
        images (Tensor): (N, 3, H, W).
        targets (Targets): Targets of the N images.
        scale_range (tuple[float, float]): Range of the rescaling factor.
        mix (str, optional): ``'cutmix'``, ``'cutout'``, ``'classmix'``, or None.
        num_classes (int): Number of classes K.

    Returns:
        tuple[Tensor, Targets]: The augmented images (N, 3, H, W) and their targets.
    """
    count, _, *size = images.shape
    rescale = Rescale.draw(count, size, scale_range, images.device)
    images = rescale.image(images)
    targets = Targets(rescale.label(targets.label), rescale.confidence(targets.confidence))
    if mix == 'classmix':
        images, targets = mix_with_next(images, targets, ClassMix(num_classes).draw(targets.label[:, -1]))
    elif mix is not None:
        mask = HalfAreaBoxes().draw(count, size, images.device)
        images, targets = mix_with_next(images, targets, mask, cutout=mix == 'cutout')
    flip = torch.rand(count, device=images.device) < 0.5
    label, confidence = (flip_horizontally(part, flip) for part in (targets.label, targets.confidence))
    return flip_horizontally(images, flip), Targets(label, confidence)


def mix_with_next(
    images: Tensor, targets: Targets, mask: Tensor, cutout: bool = False
) -> tuple[Tensor, Targets]:
    """Replace pixels of each image by pixels of the next image of the batch, or by zeros.

    Args:
        images (Tensor): (N, 3, H, W).
        targets (Targets): Targets of the N images.
        mask (Tensor): (N, H, W) bool, True for pixels to replace.
        cutout (bool): The replaced pixels become 0, their label 255 and their confidence 0.

    Returns:
        tuple[Tensor, Targets]: The mixed images (N, 3, H, W) and their targets.
    """

    def replace(maps: Tensor, empty: float) -> Tensor:
        return paste(maps, torch.full_like(maps, empty) if cutout else maps.roll(-1, 0), mask)

    mixed = Targets(replace(targets.label, IGNORE_INDEX), replace(targets.confidence, 0))
    return replace(images, 0), mixed
