"""Parts of one image, with their labels, pasted into another: rectangles (CutMix) or classes (ClassMix)."""

import torch
from torch import Tensor

from .pseudo_label import IGNORE_INDEX, PseudoLabel

_TRIALS = 1024  # a box that no trial fits is rarer than 1e-20 at the published area and aspect


class CutMix:
    """Draws the boxes of CutMix (Yun et al., arXiv 1905.04899); batched, without waiting for the device.

    As UniMatch draws them (arXiv 2208.09910, its released code): the area is drawn once, uniform; aspect and
    corner are drawn, uniform, until the box lies inside the image. Aspect is height / width, so most boxes
    are taller than wide.

    Args:
        prob: probability that an image gets a box at all.
        area: range of the area, in shares of the image.
        aspect: range of height / width.

    Raises:
        ValueError: a range is empty or outside what is possible.
    """

    def __init__(
        self,
        prob: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        aspect: tuple[float, float] = (0.3, 1 / 0.3),
    ):
        for name, low, high, least, most in (
            ('prob', prob, prob, 0.0, 1.0),
            ('area', *area, 0.0, 1.0),
            ('aspect', *aspect, 1e-6, float('inf')),
        ):
            if not least <= low <= high <= most:
                found = prob if name == 'prob' else (low, high)
                raise ValueError(
                    f'CutMix: {name} is {found}, expected within [{least:g}, {most:g}], ascending.'
                )
        self.prob = prob
        self.area = area
        self.aspect = aspect

    def draw(self, count: int, size: tuple[int, int], device: torch.device | str = 'cpu') -> Tensor:
        """Draw boxes, from the device's global generator.

        Args:
            count: number of images N.
            size: (H, W).
            device: where.

        Returns:
            Tensor: (N, H, W) bool, True where the other image is pasted; nowhere in images without a box.
        """
        height, width = size
        area = _uniform((count, 1), *self.area, device) * (height * width)
        aspect = _uniform((count, _TRIALS), *self.aspect, device)
        box = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()]).floor()  # (2, N, trials)
        # the limits are never tensors of their own: to copy them there would wait for the device
        drawn = torch.rand(2, count, _TRIALS, device=device)
        corner = torch.stack([drawn[0] * height, drawn[1] * width]).floor()
        fits = (corner[0] + box[0] <= height) & (corner[1] + box[1] <= width)
        first = fits.int().argmax(dim=1)[None, :, None].expand(2, -1, -1)
        start, extent = (part.gather(2, first).squeeze(2) for part in (corner, box))  # (2, N)
        boxed = fits.any(dim=1) & (torch.rand(count, device=device) < self.prob)
        return _boxes(start, extent * boxed, size)


class HalfAreaBoxes:
    """Draws boxes of half the image's area, wide to tall, as S4Former and CSS do for CutMix and CutOut.

    The width is uniform in floor(W / 2) + 1 ... W - 1, the height round(H W / (2 width)), half to even, the
    corner uniform where the box fits. All images of a batch have a box, or none has.

    Args:
        prob: probability that the batch gets boxes at all.

    Raises:
        ValueError: ``prob`` is not in [0, 1].
    """

    def __init__(self, prob: float = 1.0):
        if not 0 <= prob <= 1:
            raise ValueError(f'HalfAreaBoxes: prob is {prob}, expected a probability in [0, 1].')
        self.prob = prob

    def draw(self, count: int, size: tuple[int, int], device: torch.device | str = 'cpu') -> Tensor:
        """Draw boxes, from the device's global generator.

        Args:
            count: number of images N.
            size: (H, W), W at least 3.
            device: where.

        Returns:
            Tensor: (N, H, W) bool, True in the box.
        """
        height, width = size
        columns = torch.randint(width // 2 + 1, width, (count,), device=device)
        extent = torch.stack([(height * width / (2 * columns)).round().long(), columns])  # (2, N)
        room = torch.stack([height - extent[0], width - extent[1]]) + 1
        # float64: in float32 a draw below 1 could round up to the end of the room
        start = (torch.rand(2, count, device=device, dtype=torch.float64) * room).long()
        return _boxes(start, extent * (torch.rand((), device=device) < self.prob), size)


class ClassMix:
    """Draws masks of classes (Olsson et al., WACV 2021, arXiv 2007.07936).

    Of the n values in an image's labels, 255 among them, floor(n / 2) drawn at random stay; the pixels of
    the others are pasted over.

    Args:
        num_classes: number of classes K.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes

    def draw(self, labels: Tensor) -> Tensor:
        """Draw masks, from the device's global generator.

        Args:
            labels: (N, H, W) int64, 0..K-1 or 255.

        Returns:
            Tensor: (N, H, W) bool, True where the other image is pasted.
        """
        size = labels.shape[1:]
        labels = labels.masked_fill(labels == IGNORE_INDEX, self.num_classes).flatten(1)
        present = labels.new_zeros(len(labels), self.num_classes + 1, dtype=torch.bool)
        present.scatter_(1, labels, True)
        chance = torch.rand(present.shape, device=labels.device).masked_fill(~present, 2.0)
        place = chance.argsort(dim=1).argsort(dim=1)  # among the values present, in random order
        pasted = place >= present.sum(dim=1, keepdim=True) // 2
        return pasted.gather(1, labels).unflatten(1, size)


def _boxes(start: Tensor, extent: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (N, H, W) bool from their corners and extents, both (2, N)."""
    stop = start + extent
    rows, columns = (
        (lambda at: (at >= start[axis, :, None]) & (at < stop[axis, :, None]))(
            torch.arange(size[axis], device=start.device)
        )
        for axis in (0, 1)
    )
    return rows[:, :, None] & columns[:, None, :]


def _uniform(shape: tuple[int, ...], low: float, high: float, device) -> Tensor:
    return torch.rand(shape, device=device) * (high - low) + low


def paste(base: Tensor, other: Tensor, boxes: Tensor) -> Tensor:
    """Paste another batch of maps into the boxes of one.

    Args:
        base: (N, H, W) or (N, C, H, W).
        other: as ``base``.
        boxes: (N, H, W) bool, from ``CutMix.draw``.

    Returns:
        Tensor: as ``base``, ``other`` inside the boxes.
    """
    return torch.where(boxes if base.ndim == 3 else boxes[:, None], other, base)


def paste_labels(base: PseudoLabel, other: PseudoLabel, boxes: Tensor) -> PseudoLabel:
    """Paste pseudo-labels as ``paste`` does their images: label, confidence, validity and logits together.

    Args:
        base: of N images.
        other: of N images.
        boxes: (N, H, W) bool.

    Returns:
        PseudoLabel: of the mixed images.
    """
    return base.map(lambda ours, theirs: paste(ours, theirs, boxes), other)
