"""The augmentation of UniMatch and AllSpark: what MMCV and MMSegmentation lack, and the recipe.

UniMatch (arXiv:2208.09910; released code, ``dataset/semi.py`` and ``dataset/transform.py``) and AllSpark
(arXiv:2403.01818) use the same steps. Most are stock parts of MMCV and MMSegmentation; that each means the
same is tested against the formula in ``tests/test_datasets/test_transforms.py``. The recipe::

    crop = 321
    load = [dict(type='LoadImageFromFile')]
    geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(crop, crop))]
    color = [
        dict(type='RandomApply', prob=0.8, transforms=[
            dict(type='allspark_mmseg.ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25)]),
        dict(type='allspark_mmseg.RandomGrayscale', prob=0.2),
        dict(type='RandomApply', prob=0.5, transforms=[
            dict(type='allspark_mmseg.GaussianBlur', sigma_range=(0.1, 2.0))]),
    ]
    pack = dict(type='PackSegInputs')

    unimatch_labeled = load + [dict(type='LoadAnnotations')] + geometry + [
        dict(type='allspark_mmseg.MultiView', labeled=[pack])]
    unimatch_unlabeled = load + [dict(type='allspark_mmseg.LoadEmptyAnnotations')] + geometry + [
        dict(type='allspark_mmseg.MultiView', weak=[pack], strong_1=color + [pack], strong_2=color + [pack])]

    allspark_labeled = load + [dict(type='LoadAnnotations')] + geometry + [
        dict(type='allspark_mmseg.MultiView', labeled=color + [pack])]
    allspark_unlabeled = load + [dict(type='allspark_mmseg.LoadEmptyAnnotations')] + geometry + [
        dict(type='allspark_mmseg.MultiView', weak=[pack])]

``LoadEmptyAnnotations`` stands where a mask would be loaded and makes padding known to the unlabeled loss.
``RandomScaleCropFlip`` does the same as four stock steps, which are there to put others between them::

    four_steps = [
        dict(type='allspark_mmseg.RandomResizeLongSide', ratio_range=(0.5, 2.0)),
        dict(type='Pad', size=(crop, crop), pad_val=dict(img=0, seg=255)),
        dict(type='RandomCrop', crop_size=(crop, crop), cat_max_ratio=1.0),
        dict(type='RandomFlip', prob=0.5),
    ]

``Pad`` pads on the right and below only, in black before normalization, and leaves a side that is long
enough; ``RandomCrop`` draws its corner with both ends included. The color operations are PIL's within one
gray level, by the libraries that ``pillow_ops.py`` chooses for speed.

Everything random comes from NumPy's and Python's global generators. MMEngine seeds them when a worker starts,
always alike, so a data loader without ``persistent_workers=True`` repeats its draws in every epoch.
"""

import random

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets.transforms import Resize

from ..registry import TRANSFORMS
from . import pillow_ops


@TRANSFORMS.register_module()
class RandomResizeLongSide(BaseTransform):
    """Resize the longer side to a whole number drawn uniformly from a range around its length.

    With L the longer and l the shorter side, the longer becomes a uniform integer s in
    [int(a * L), int(b * L)], both ends included, and the shorter int(l * s / L + 0.5), as in UniMatch's
    released code (``dataset/transform.py``). MMCV's ``RandomResize`` with ``keep_ratio`` draws a real factor
    instead. The image is interpolated bilinearly, maps take the nearest pixel.

    Reads ``img`` (H, W, 3) uint8 and the maps named in ``seg_fields`` (H, W); changes these and
    ``img_shape`` (h, w), and sets ``scale`` (w, h) in pixels, ``scale_factor`` (w, h) and ``keep_ratio`` as
    MMCV's ``Resize``.

    Args:
        ratio_range: (a, b) with 0 < a <= b.
        backend: ``'pillow'``, as in the reference, averages over the source pixels when it shrinks an image;
            ``'cv2'`` is faster, and does not.

    Raises:
        ValueError: ``ratio_range`` or ``backend`` is none of these.
    """

    def __init__(self, ratio_range: tuple[float, float] = (0.5, 2.0), backend: str = 'pillow') -> None:
        _check_ratios('RandomResizeLongSide', ratio_range)
        if backend not in ('pillow', 'cv2'):
            raise ValueError(f"RandomResizeLongSide: backend must be 'pillow' or 'cv2', found {backend!r}.")
        self.ratio_range = ratio_range
        self.backend = backend

    def transform(self, results: dict) -> dict:
        """Resize ``results['img']`` and its maps, as the class describes; returns ``results``."""
        height, width = _draw_size(*results['img'].shape[:2], self.ratio_range)
        results = Resize(scale=(width, height), backend=self.backend)(results)
        results['keep_ratio'] = True
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(ratio_range={self.ratio_range}, backend={self.backend!r})'


@TRANSFORMS.register_module()
class RandomScaleCropFlip(BaseTransform):
    """Resize, pad, crop and flip at random in one step: the weak augmentation of UniMatch, made fast.

    The draws are those of ``four_steps`` in the module's docstring, in their order; so are the maps, and the
    image is within one gray level of theirs. Of a map only the pixels of the crop are looked up, and the
    image leaves contiguous, so that no later step pays for a reversed one.

    Reads ``img`` (H, W, 3) uint8 and the maps named in ``seg_fields`` (H, W); all become ``crop_size``, with
    0 and 255 right of and below what is smaller. Sets ``scale``, ``scale_factor``, ``keep_ratio``,
    ``pad_shape``, ``img_shape``, ``flip`` and ``flip_direction`` as the four do.

    Args:
        crop_size: (height, width) of the crop.
        ratio_range: (a, b) with 0 < a <= b, of ``RandomResizeLongSide``.
        flip_prob: Probability of the horizontal flip.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        ratio_range: tuple[float, float] = (0.5, 2.0),
        flip_prob: float = 0.5,
    ) -> None:
        if len(crop_size) != 2 or min(crop_size) < 1:
            raise ValueError(
                f'RandomScaleCropFlip: crop_size must be (height, width), both at least 1, found {crop_size}.'
            )
        _check_ratios('RandomScaleCropFlip', ratio_range)
        _check_probability('RandomScaleCropFlip: flip_prob', flip_prob)
        self.crop_size = tuple(crop_size)
        self.ratio_range = ratio_range
        self.flip_prob = flip_prob

    def transform(self, results: dict) -> dict:
        """Resize, pad, crop and flip ``results['img']`` and its maps; returns ``results``."""
        img = results['img']
        old_height, old_width = img.shape[:2]
        height, width = _draw_size(old_height, old_width, self.ratio_range)
        padded = max(height, self.crop_size[0]), max(width, self.crop_size[1])
        top = np.random.randint(padded[0] - self.crop_size[0] + 1)
        left = np.random.randint(padded[1] - self.crop_size[1] + 1)
        flip = bool(np.random.random_sample() < self.flip_prob)

        window = slice(top, top + self.crop_size[0]), slice(left, left + self.crop_size[1])
        results['img'] = self._finish(pillow_ops.resize(img, height, width)[window], 0, flip)
        # a sample loaded twice may name its map twice
        for key in set(results.get('seg_fields', [])):
            rows = pillow_ops.nearest(results[key].shape[0], height)[window[0]]
            columns = pillow_ops.nearest(results[key].shape[1], width)[window[1]]
            results[key] = self._finish(results[key][rows].take(columns, axis=1), 255, flip)
        results.update(
            scale=(width, height),
            scale_factor=(width / old_width, height / old_height),
            keep_ratio=True,
            pad_shape=(*padded, *img.shape[2:]),
            img_shape=self.crop_size,
            flip=flip,
            flip_direction='horizontal' if flip else None,
        )
        return results

    def _finish(self, crop: np.ndarray, pad_val: int, flip: bool) -> np.ndarray:
        """Pad what is smaller than the crop, and flip; returns a contiguous array."""
        height, width = crop.shape[:2]
        if (height, width) != self.crop_size:
            canvas = np.full((*self.crop_size, *crop.shape[2:]), pad_val, dtype=crop.dtype)
            canvas[:height, :width] = crop
            crop = canvas
        # NumPy copies a reversed image twenty times as slowly.
        return cv2.flip(crop, 1) if flip else np.ascontiguousarray(crop)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(crop_size={self.crop_size}, ratio_range={self.ratio_range}, '
            f'flip_prob={self.flip_prob})'
        )


@TRANSFORMS.register_module()
class LoadEmptyAnnotations(BaseTransform):
    """Give an unlabeled image a map of zeros, so that the step that pads marks in it what is padding.

    After the geometric steps the map is 255 on padding and 0 on the image: the ignore mask of
    UniMatch's unlabeled loss (released code, ``dataset/semi.py``). ``PackSegInputs`` packs it as
    ``gt_sem_seg``; **its zeros are not labels**, and no mask file is read.

    Reads ``img`` (H, W, 3); sets ``gt_seg_map`` (H, W) uint8, 0, and names it in ``seg_fields``.

    Raises:
        ValueError: In use, there is a ``gt_seg_map`` already.
    """

    def transform(self, results: dict) -> dict:
        """Add the map to ``results``, and return them."""
        if 'gt_seg_map' in results:
            raise ValueError(
                'LoadEmptyAnnotations: expected an image without mask, found gt_seg_map. Leave LoadAnnotations out of '
                'the unlabeled pipeline, or LoadEmptyAnnotations out of the labeled one.'
            )
        results['gt_seg_map'] = np.zeros(results['img'].shape[:2], dtype=np.uint8)
        results['seg_fields'] = [*results.get('seg_fields', []), 'gt_seg_map']
        return results


@TRANSFORMS.register_module()
class ColorJitter(BaseTransform):
    """Change brightness, contrast, saturation and hue at random, in random order.

    The semantics are those of torchvision's ``ColorJitter`` on PIL images, which UniMatch's released code
    uses: factors f ~ U[max(0, 1 - x), 1 + x] that blend the image with black (brightness), with its mean gray
    (contrast) and with its own gray version (saturation), f = 1 changing nothing; and a turn of the hue by
    h ~ U[-hue, hue] of the color circle, in steps of 1/256. Equal to PIL within one gray level.

    Reads and changes ``img`` (H, W, 3), uint8 in [0, 255], BGR.

    Args:
        brightness: x of brightness, at least 0; 0 leaves it out, as for the others. UniMatch: 0.5.
        contrast: x of contrast. UniMatch: 0.5.
        saturation: x of saturation. UniMatch: 0.5.
        hue: Largest turn of the hue, in [0, 0.5], where 0.5 is the complementary color. UniMatch: 0.25.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
    ) -> None:
        self.strengths = {
            'brightness': brightness,
            'contrast': contrast,
            'saturation': saturation,
            'hue': hue,
        }
        for name, strength in self.strengths.items():
            limit = 0.5 if name == 'hue' else float('inf')
            if not 0 <= strength <= limit:
                raise ValueError(f'ColorJitter: {name} must be in [0, {limit}], found {strength}.')

    def _draw(self) -> list[tuple[str, float]]:
        """Return the operations in the order of application, each with its factor or turn."""
        names = [name for name, strength in self.strengths.items() if strength > 0]
        return [(str(name), self._draw_factor(name)) for name in np.random.permutation(names)]

    def _draw_factor(self, name: str) -> float:
        strength = self.strengths[name]
        if name == 'hue':
            return np.random.uniform(-strength, strength)
        return np.random.uniform(max(0.0, 1 - strength), 1 + strength)

    def transform(self, results: dict) -> dict:
        """Change the colors of ``results['img']``, and return ``results``."""
        img = results['img']
        for name, amount in self._draw():
            img = _ADJUST[name](img, amount)
        results['img'] = img
        return results

    def __repr__(self) -> str:
        arguments = ', '.join(f'{name}={strength}' for name, strength in self.strengths.items())
        return f'{type(self).__name__}({arguments})'


@TRANSFORMS.register_module()
class RandomGrayscale(BaseTransform):
    """Make an image gray at random, by PIL's weights, in three equal channels.

    Within one gray level this is MMCV's ``RandomGrayscale`` with ``keep_channels=True`` and
    ``channel_weights=(0.114, 0.587, 0.299)``, which computes in float64 and takes fifty times as long.

    Reads and changes ``img`` (H, W, 3), uint8 in [0, 255], BGR.

    Args:
        prob: Probability of a gray image. UniMatch: 0.2.

    Raises:
        ValueError: ``prob`` is not in [0, 1].
    """

    def __init__(self, prob: float) -> None:
        _check_probability('RandomGrayscale: prob', prob)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Make ``results['img']`` gray or leave it, and return ``results``."""
        if random.random() < self.prob:
            results['img'] = pillow_ops.grayscale(results['img'])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'


@TRANSFORMS.register_module()
class GaussianBlur(BaseTransform):
    """Blur with a random strength, as PIL's ``ImageFilter.GaussianBlur`` (UniMatch).

    Equal to PIL, whose approximation by three box filters differs from OpenCV's ``GaussianBlur`` by up to 40
    gray levels on noise.

    Reads and changes ``img`` (H, W, 3) or (H, W), uint8 in [0, 255].

    Args:
        sigma_range: Bounds of the uniform standard deviation (PIL's radius), in pixels. UniMatch: (0.1, 2.0).

    Raises:
        ValueError: ``sigma_range`` is not two numbers, 0 <= low <= high.
    """

    def __init__(self, sigma_range: tuple[float, float] = (0.1, 2.0)) -> None:
        _check_range('GaussianBlur: sigma_range', sigma_range, minimum=0)
        self.sigma_range = sigma_range

    def _draw_sigma(self) -> float:
        return np.random.uniform(*self.sigma_range)

    def transform(self, results: dict) -> dict:
        """Blur ``results['img']``, and return ``results``."""
        results['img'] = pillow_ops.gaussian_blur(results['img'], self._draw_sigma())
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(sigma_range={self.sigma_range})'


def _check_range(name: str, bounds: tuple[float, float], minimum: float) -> None:
    if len(bounds) != 2 or not minimum <= bounds[0] <= bounds[1]:
        raise ValueError(
            f'{name} must be two numbers (low, high) with {minimum} <= low <= high, found {bounds}.'
        )


def _check_ratios(name: str, ratio_range: tuple[float, float]) -> None:
    _check_range(f'{name}: ratio_range', ratio_range, minimum=0)
    if ratio_range[0] == 0:
        raise ValueError(f'{name}: ratio_range must be above 0, found {ratio_range}.')


def _check_probability(name: str, probability: float) -> None:
    if not 0 <= probability <= 1:
        raise ValueError(f'{name} must be in [0, 1], found {probability}.')


def _draw_size(height: int, width: int, ratio_range: tuple[float, float]) -> tuple[int, int]:
    """Draw (height, width) as :class:`RandomResizeLongSide` describes."""
    long_side = max(height, width)
    low, high = (int(ratio * long_side) for ratio in ratio_range)
    new_long = int(np.random.randint(max(low, 1), high + 1))
    new_short = max(int(min(height, width) * new_long / long_side + 0.5), 1)
    return (new_long, new_short) if height > width else (new_short, new_long)


_ADJUST = {
    'brightness': pillow_ops.brightness,
    'contrast': pillow_ops.contrast,
    'saturation': pillow_ops.saturation,
    'hue': pillow_ops.hue,
}
