"""Crops that contain rare classes."""

from typing import Any

import numpy as np

from ...pseudo_label import IGNORE_INDEX
from ...registry import TRANSFORMS
from ...utils import require
from .. import pillow_ops
from .geometric import RandomScaleCropFlip


@TRANSFORMS.register_module()
class RareClassCrop(RandomScaleCropFlip):
    """Random resize, pad, crop and flip, with more crops of the rare classes of an image.

    With probability ``rare_prob``, a crop contains a random pixel of a class c. Let n_c be the number of
    pixels of c in the resized mask, 255 excluded. The class, the pixel and the crop are drawn in this order::

        P(c)  ~ (1 / n_c) ** rare_power, among the classes of this mask
        pixel : uniform among the n_c pixels
        crop  : uniform among the crops that contain the pixel

    Otherwise the crop is that of :class:`RandomScaleCropFlip`. The classes of an image are weighted, not the
    images: images without the rare class are as frequent as before.

    Images without ``gt_seg_map``, and images whose map has one value only, are cropped as in
    :class:`RandomScaleCropFlip` and use the same random numbers. This includes the maps of
    :class:`LoadEmptyAnnotations`. So labeled and unlabeled pipelines can share this transform.

    Required, modified and added keys are those of :class:`RandomScaleCropFlip`.

    Args:
        crop_size (tuple[int, int]): Height and width of the crop in pixels.
        rare_prob (float): Probability that the crop contains a pixel of the drawn class, in [0, 1]. With 0,
            the transform equals :class:`RandomScaleCropFlip` and uses the same random numbers.
        rare_power (float): At least 0. With 0, all classes of the image are equally probable.
        kwargs: Further arguments of :class:`RandomScaleCropFlip`.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self, crop_size: tuple[int, int], rare_prob: float = 0.5, rare_power: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(crop_size, **kwargs)
        owner = type(self).__name__
        require(owner, 'rare_prob', rare_prob, 0 <= rare_prob <= 1, 'a probability in [0, 1]')
        require(owner, 'rare_power', rare_power, rare_power >= 0, 'a number of at least 0')
        self.rare_prob = rare_prob
        self.rare_power = rare_power

    def _draw_corner(self, results: dict, height: int, width: int) -> tuple[int, int]:
        """Draw the corner as the class describes. ``height`` and ``width`` are those of the resized image."""
        mask = results['gt_seg_map'] if 'gt_seg_map' in results.get('seg_fields', []) else None
        # with one value, all crops contain the same classes; the maps of unlabeled images have only zeros
        if self.rare_prob == 0 or mask is None or mask.min() == mask.max():
            return super()._draw_corner(results, height, width)
        if np.random.random_sample() >= self.rare_prob:
            return super()._draw_corner(results, height, width)
        rows = pillow_ops.nearest(mask.shape[0], height)
        resized = mask[rows].take(pillow_ops.nearest(mask.shape[1], width), axis=1)
        label = self._draw_class(resized)
        if label is None:
            return super()._draw_corner(results, height, width)
        y, x = divmod(int(np.random.choice(np.flatnonzero(resized == label))), width)
        return self._draw_start(y, height, 0), self._draw_start(x, width, 1)

    def _draw_class(self, mask: np.ndarray) -> int | None:
        """Draw a class of a mask (H, W), or return None if all its pixels are 255."""
        counts = np.bincount(mask.ravel())[:IGNORE_INDEX]
        classes = np.flatnonzero(counts)
        if len(classes) == 0:
            return None
        # relative to the rarest class, whose weight is 1: large powers do not make all weights 0
        weights = (counts[classes].min() / counts[classes]) ** self.rare_power
        return int(np.random.choice(classes, p=weights / weights.sum()))

    def _draw_start(self, position: int, length: int, axis: int) -> int:
        """Draw the start of a crop that contains ``position`` and lies in the padded image, along an axis."""
        size = self.crop_size[axis]
        last = min(position, max(length, size) - size)
        return int(np.random.randint(max(position - size + 1, 0), last + 1))

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, rare_prob={self.rare_prob}, rare_power={self.rare_power})'
