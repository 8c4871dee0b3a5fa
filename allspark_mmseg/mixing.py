"""Mixing of images and their labels. CutMix pastes rectangles, and ClassMix pastes classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .pseudo_label import IGNORE_INDEX, PseudoLabel
from .utils import require

_TRIALS = 1024  # at the published area and aspect, the probability that no trial fits is below 1e-20


class CutMix:
    """Draws the boxes of CutMix (Yun et al., arXiv 1905.04899) for a batch, without device synchronization.

    The distribution is that of UniMatch's release (arXiv 2208.09910). The area is drawn once, uniformly. The
    aspect (height / width) and the corner are drawn uniformly until the box fits into the image, so most
    boxes are taller than wide.

    Args:
        prob (float): Probability that an image gets a box.
        area (tuple[float, float]): Range of the area, as a share of the image's.
        aspect (tuple[float, float]): Range of height / width.

    Raises:
        ValueError: A range is empty or not possible.
    """

    def __init__(
        self,
        prob: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        aspect: tuple[float, float] = (0.3, 1 / 0.3),
    ) -> None:
        require('CutMix', 'prob', prob, 0 <= prob <= 1, 'a probability in [0, 1]')
        require('CutMix', 'area', area, 0 <= area[0] <= area[1] <= 1, 'an ascending pair within [0, 1]')
        require('CutMix', 'aspect', aspect, 1e-6 <= aspect[0] <= aspect[1], 'an ascending pair above 0')
        self.prob = prob
        self.area = area
        self.aspect = aspect

    def draw(self, count: int, size: Sequence[int], device: torch.device | str = 'cpu') -> Tensor:
        """Draw boxes from the device's global generator.

        Args:
            count (int): Number of images N.
            size (Sequence[int]): (H, W).
            device (torch.device or str): Device of the boxes.

        Returns:
            Tensor: (N, H, W) bool, True inside the box; False everywhere for images without a box.
        """
        height, width = size
        area = _uniform((count, 1), self.area, device) * (height * width)
        aspect = _uniform((count, _TRIALS), self.aspect, device)
        box = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()]).floor()  # (2, N, trials)
        # the limits stay Python numbers, because copying tensors to the device would synchronize
        uniform = torch.rand(2, count, _TRIALS, device=device)
        corner = torch.stack([uniform[0] * height, uniform[1] * width]).floor()
        fits = (corner[0] + box[0] <= height) & (corner[1] + box[1] <= width)
        first = fits.int().argmax(dim=1)[None, :, None].expand(2, -1, -1)
        start, extent = (part.gather(2, first).squeeze(2) for part in (corner, box))  # (2, N)
        has_box = fits.any(dim=1) & (torch.rand(count, device=device) < self.prob)
        return _boxes(start, extent * has_box, size)


class HalfAreaBoxes:
    """Draws boxes of half the image's area, as S4Former and CSS do for CutMix and CutOut.

    The width is uniform in floor(W / 2) + 1 ... W - 1. The height is H W / (2 width), rounded half to even.
    The corner is uniform over all positions where the box fits. Either all images of a batch have a box, or
    none has.

    Args:
        prob (float): Probability that the batch gets boxes.

    Raises:
        ValueError: ``prob`` is not in [0, 1].
    """

    def __init__(self, prob: float = 1.0) -> None:
        require('HalfAreaBoxes', 'prob', prob, 0 <= prob <= 1, 'a probability in [0, 1]')
        self.prob = prob

    def draw(self, count: int, size: Sequence[int], device: torch.device | str = 'cpu') -> Tensor:
        """Draw boxes from the device's global generator.

        Args:
            count (int): Number of images N.
            size (Sequence[int]): (H, W), W at least 3.
            device (torch.device or str): Device of the boxes.

        Returns:
            Tensor: (N, H, W) bool, True inside the box.
        """
        height, width = size
        columns = torch.randint(width // 2 + 1, width, (count,), device=device)
        extent = torch.stack([(height * width / (2 * columns)).round().long(), columns])  # (2, N)
        room = torch.stack([height - extent[0], width - extent[1]]) + 1
        # float64: in float32 the product could round up to the end of the room
        start = (torch.rand(2, count, device=device, dtype=torch.float64) * room).long()
        return _boxes(start, extent * (torch.rand((), device=device) < self.prob), size)


class ClassMix:
    """Draws the masks of ClassMix (Olsson et al., WACV 2021, arXiv 2007.07936).

    An image keeps floor(n / 2) of the n values in its label, drawn at random; 255 is one of the values. The
    pixels of the other values are replaced.

    Args:
        num_classes (int): Number of classes K.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def draw(self, labels: Tensor) -> Tensor:
        """Draw masks from the device's global generator.

        Args:
            labels (Tensor): (N, H, W) int64, in 0..K-1, or 255.

        Returns:
            Tensor: (N, H, W) bool, True for pixels to replace.
        """
        size = labels.shape[1:]
        labels = labels.masked_fill(labels == IGNORE_INDEX, self.num_classes).flatten(1)
        present = labels.new_zeros(len(labels), self.num_classes + 1, dtype=torch.bool)
        present.scatter_(1, labels, True)
        uniform = torch.rand(present.shape, device=labels.device).masked_fill(~present, 2.0)
        rank = uniform.argsort(dim=1).argsort(dim=1)  # the present values come first, in random order
        replaced = rank >= present.sum(dim=1, keepdim=True) // 2
        return replaced.gather(1, labels).unflatten(1, size)


def _boxes(start: Tensor, extent: Tensor, size: Sequence[int]) -> Tensor:
    """Make boxes (N, H, W) bool from corners and extents, both (2, N)."""
    stop = start + extent
    rows, columns = (
        (position >= start[axis, :, None]) & (position < stop[axis, :, None])
        for axis, position in enumerate(torch.arange(side, device=start.device) for side in size)
    )
    return rows[:, :, None] & columns[:, None, :]


def _uniform(shape: tuple[int, ...], limits: tuple[float, float], device: torch.device | str) -> Tensor:
    low, high = limits
    return torch.rand(shape, device=device) * (high - low) + low


def paste(base: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Replace the masked pixels of one batch of maps by the pixels of another batch.

    Args:
        base (Tensor): (N, H, W) or (N, C, H, W), any dtype.
        other (Tensor): Same shape and dtype as ``base``.
        mask (Tensor): (N, H, W) bool, for example from ``CutMix.draw``.

    Returns:
        Tensor: Same shape and dtype as ``base``.
    """
    return torch.where(mask if base.ndim == 3 else mask[:, None], other, base)


def paste_labels(base: PseudoLabel, other: PseudoLabel, mask: Tensor) -> PseudoLabel:
    """Replace the masked pixels of pseudo-labels, in all attributes at once.

    Args:
        base (PseudoLabel): Pseudo-labels of N images.
        other (PseudoLabel): Pseudo-labels of N images.
        mask (Tensor): (N, H, W) bool.

    Returns:
        PseudoLabel: Pseudo-labels of the N mixed images.
    """
    return base.map(lambda left, right: paste(left, right, mask), other)


@dataclass(frozen=True)
class MixSource:
    """What CutMix pastes: other images in the same views, and their pseudo-labels.

    Attributes:
        views (Sequence[Tensor]): (N, 3, H, W) for each view.
        pseudo (PseudoLabel): Pseudo-labels of the N images.
    """

    views: Sequence[Tensor]
    pseudo: PseudoLabel


def cutmix_views(
    views: Sequence[Tensor], pseudo: PseudoLabel, boxes: Sequence[Tensor], source: MixSource | None = None
) -> tuple[list[Tensor], list[PseudoLabel]]:
    """Apply CutMix to views of the same images, each with boxes of its own.

    Args:
        views (Sequence[Tensor]): (N, 3, H, W) for each view.
        pseudo (PseudoLabel): Pseudo-labels of the N images.
        boxes (Sequence[Tensor]): (N, H, W) bool for each view.
        source (MixSource, optional): What is pasted; by default the same batch in reverse order.

    Returns:
        tuple[list[Tensor], list[PseudoLabel]]: The mixed images (N, 3, H, W) and their pseudo-labels without
        logits, for each view.
    """
    pseudo = pseudo.without_logits()
    if source is None:
        source = MixSource([view.flip(0) for view in views], pseudo.map(lambda part: part.flip(0)))
    images = [paste(*each) for each in zip(views, source.views, boxes, strict=True)]
    pasted = source.pseudo.without_logits()
    return images, [paste_labels(pseudo, pasted, mask) for mask in boxes]
