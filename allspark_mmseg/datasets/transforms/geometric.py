"""Geometric transforms: random resize, pad, crop and flip."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets.transforms import Resize

from ...registry import TRANSFORMS
from ...utils import require
from .. import pillow_ops
from .contract import require_image


class _BandResize(Resize):
    """MMSegmentation's ``Resize`` to a given size, for any number of bands."""

    def _resize_img(self, results: dict) -> None:
        (width, height), img = results['scale'], results['img']
        if self.backend == 'pillow':
            resized = pillow_ops.resize_pil(img, height, width)
        else:
            resized = cv2.resize(img, (width, height), interpolation=cv2.INTER_LINEAR)
        results['img'] = resized.reshape(height, width, *img.shape[2:])
        results['img_shape'] = (height, width)
        results['scale_factor'] = width / img.shape[1], height / img.shape[0]
        results['keep_ratio'] = False


@TRANSFORMS.register_module()
class RandomResizeLongSide(BaseTransform):
    """Resize the longer side to a random integer length.

    With L the longer and l the shorter side, the new longer side s is uniform on the integers from
    ``int(a * L)`` to ``int(b * L)``, both included. The new shorter side is ``int(l * s / L + 0.5)``, as in
    UniMatch's released code (``dataset/transform.py``). MMCV's ``RandomResize`` with ``keep_ratio`` draws a
    real factor instead. Images are interpolated bilinearly, segmentation maps with the nearest neighbor.

    Required keys: ``img`` (H, W, C) or (H, W), uint8, uint16 or float32; and the maps (H, W) in
    ``seg_fields``. Each band is resized by itself.

    Modified keys: ``img``, the maps, ``img_shape`` (h, w).

    Added keys: ``scale`` (w, h) in pixels, ``scale_factor`` (w, h), ``keep_ratio``, as in MMCV's ``Resize``.

    Args:
        ratio_range (tuple[float, float]): Ratios (a, b) with 0 < a <= b.
        backend (str): ``'pillow'`` averages over the source pixels when it shrinks an image, as in the
            released code. ``'cv2'`` is faster but does not average.

    Raises:
        ValueError: ``ratio_range`` or ``backend`` is invalid.
    """

    def __init__(self, ratio_range: tuple[float, float] = (0.5, 2.0), backend: str = 'pillow') -> None:
        _check_ratio_range('RandomResizeLongSide', ratio_range)
        require('RandomResizeLongSide', 'backend', backend, backend in ('pillow', 'cv2'), "'pillow' or 'cv2'")
        self.ratio_range = ratio_range
        self.backend = backend

    def transform(self, results: dict) -> dict:
        """Resize the image and its maps.

        Args:
            results (dict): Result dict of the pipeline.

        Returns:
            dict: The result dict with the resized image and maps.

        Raises:
            ValueError: The image has another type.
        """
        old_height, old_width = require_image('RandomResizeLongSide', results).shape[:2]
        height, width = _draw_size(old_height, old_width, self.ratio_range)
        results = _BandResize(scale=(width, height), backend=self.backend)(results)
        results['keep_ratio'] = True
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(ratio_range={self.ratio_range}, backend={self.backend!r})'


@TRANSFORMS.register_module()
class RandomScaleCropFlip(BaseTransform):
    """Random resize, pad, crop and flip in one transform: the weak augmentation of UniMatch.

    It draws the same random numbers in the same order as ``four_steps`` in
    :mod:`allspark_mmseg.datasets.transforms`. Its maps are equal, and its images are equal up to one gray
    level. It is faster because it computes only the pixels of the crop for maps, and because its outputs are
    contiguous.

    Required keys: ``img`` (H, W, C) or (H, W), uint8, uint16 or float32; and the maps (H, W) in
    ``seg_fields``. Each band is resized by itself.

    Modified keys: ``img`` and the maps. All get the size ``crop_size``. Padding is on the right and at the
    bottom before the flip: 0 in the image, 255 in the maps.

    Added keys: ``scale``, ``scale_factor``, ``keep_ratio``, ``pad_shape``, ``img_shape``, ``flip`` and
    ``flip_direction``, with the values of ``four_steps``; ``crop_box``, (top, left, height, width) in the
    resized image before the flip.

    Args:
        crop_size (tuple[int, int]): Height and width of the crop in pixels.
        ratio_range (tuple[float, float]): Ratios (a, b) with 0 < a <= b; see :class:`RandomResizeLongSide`.
        flip_prob (float): Probability of the horizontal flip.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        ratio_range: tuple[float, float] = (0.5, 2.0),
        flip_prob: float = 0.5,
    ) -> None:
        owner = type(self).__name__
        valid = len(crop_size) == 2 and min(crop_size) >= 1
        require(owner, 'crop_size', crop_size, valid, '(height, width), both at least 1')
        _check_ratio_range(owner, ratio_range)
        require(owner, 'flip_prob', flip_prob, 0 <= flip_prob <= 1, 'a probability in [0, 1]')
        self.crop_size = tuple(crop_size)
        self.ratio_range = ratio_range
        self.flip_prob = flip_prob

    def transform(self, results: dict) -> dict:
        """Resize, pad, crop and flip the image and its maps.

        Args:
            results (dict): Result dict of the pipeline.

        Returns:
            dict: The result dict with the new image and maps.

        Raises:
            ValueError: The image has another type.
        """
        img = require_image(type(self).__name__, results)
        old_height, old_width = img.shape[:2]
        height, width = _draw_size(old_height, old_width, self.ratio_range)
        padded = max(height, self.crop_size[0]), max(width, self.crop_size[1])
        top, left = self._draw_corner(results, height, width)
        flip = bool(np.random.random_sample() < self.flip_prob)

        window = slice(top, top + self.crop_size[0]), slice(left, left + self.crop_size[1])
        results['img'] = self._pad_and_flip(pillow_ops.resize(img, height, width)[window], 0, flip)
        # a set, because seg_fields of a sample that was loaded twice can name a map twice
        for key in set(results.get('seg_fields', [])):
            rows = pillow_ops.nearest(results[key].shape[0], height)[window[0]]
            columns = pillow_ops.nearest(results[key].shape[1], width)[window[1]]
            results[key] = self._pad_and_flip(results[key][rows].take(columns, axis=1), 255, flip)
        results.update(
            scale=(width, height),
            scale_factor=(width / old_width, height / old_height),
            keep_ratio=True,
            pad_shape=(*padded, *img.shape[2:]),
            img_shape=self.crop_size,
            crop_box=(top, left, *self.crop_size),
            flip=flip,
            flip_direction='horizontal' if flip else None,
        )
        return results

    def _draw_corner(self, results: dict, height: int, width: int) -> tuple[int, int]:
        """Draw (top, left) of the crop in the padded image; ``height`` and ``width`` exclude padding."""
        rows, columns = (
            max(length, size) - size + 1 for length, size in zip((height, width), self.crop_size, strict=True)
        )
        return np.random.randint(rows), np.random.randint(columns)

    def _pad_and_flip(self, crop: np.ndarray, pad_val: int, flip: bool) -> np.ndarray:
        """Pad an array to ``crop_size`` and flip it. The result is contiguous."""
        (height, width), bands = crop.shape[:2], crop.shape[2:]
        if (height, width) != self.crop_size:
            canvas = np.full((*self.crop_size, *bands), pad_val, dtype=crop.dtype)
            canvas[:height, :width] = crop
            crop = canvas
        # a copy of a view with negative strides is 20 times slower than cv2.flip
        return cv2.flip(crop, 1).reshape(crop.shape) if flip else np.ascontiguousarray(crop)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(crop_size={self.crop_size}, ratio_range={self.ratio_range}, '
            f'flip_prob={self.flip_prob})'
        )


@TRANSFORMS.register_module()
class LoadEmptyAnnotations(BaseTransform):
    """Add a map of zeros to an unlabeled image, so that later transforms mark padding in it.

    After the geometric transforms, the map is 255 on padding and 0 on the image. It is the ignore mask of the
    unlabeled loss in UniMatch's released code (``dataset/semi.py``). ``PackSegInputs`` packs it as
    ``gt_sem_seg``. **Its zeros are not labels.** No mask file is read.

    Required keys: ``img`` (H, W, C) or (H, W), of any type.

    Added keys: ``gt_seg_map`` (H, W) uint8, zeros; its name in ``seg_fields``.
    """

    def transform(self, results: dict) -> dict:
        """Add the map.

        Args:
            results (dict): Result dict of the pipeline.

        Returns:
            dict: The result dict with the map.

        Raises:
            ValueError: The result dict has a ``gt_seg_map``.
        """
        if 'gt_seg_map' in results:
            raise ValueError(
                'LoadEmptyAnnotations: gt_seg_map exists, expected an image without mask. Remove '
                'LoadAnnotations from the unlabeled pipeline, or LoadEmptyAnnotations from the labeled one.'
            )
        results['gt_seg_map'] = np.zeros(results['img'].shape[:2], dtype=np.uint8)
        results['seg_fields'] = [*results.get('seg_fields', []), 'gt_seg_map']
        return results


def _check_ratio_range(owner: str, ratio_range: tuple[float, float]) -> None:
    valid = len(ratio_range) == 2 and 0 < ratio_range[0] <= ratio_range[1]
    require(owner, 'ratio_range', ratio_range, valid, 'two numbers (low, high) with 0 < low <= high')


def _draw_size(height: int, width: int, ratio_range: tuple[float, float]) -> tuple[int, int]:
    """Draw (height, width) as :class:`RandomResizeLongSide` describes."""
    long_side = max(height, width)
    low, high = (int(ratio * long_side) for ratio in ratio_range)
    new_long = int(np.random.randint(max(low, 1), high + 1))
    new_short = max(int(min(height, width) * new_long / long_side + 0.5), 1)
    return (new_long, new_short) if height > width else (new_short, new_long)
