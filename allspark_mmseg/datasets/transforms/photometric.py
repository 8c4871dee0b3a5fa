"""Photometric transforms: color jitter, grayscale and blur, equal to PIL's up to one gray level."""

import random
from collections.abc import Callable

import numpy as np
from mmcv.transforms import BaseTransform

from ...registry import TRANSFORMS
from ...utils import require
from .. import pillow_ops
from .contract import require_image

_OPERATIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    'brightness': pillow_ops.brightness,
    'contrast': pillow_ops.contrast,
    'saturation': pillow_ops.saturation,
    'hue': pillow_ops.hue,
}


@TRANSFORMS.register_module()
class ColorJitter(BaseTransform):
    """Random change of brightness, contrast, saturation and hue, in random order.

    It has the semantics of torchvision's ``ColorJitter`` on PIL images, which UniMatch's released code uses.
    The first three operations draw a factor f ~ U[max(0, 1 - x), 1 + x]. It blends the image with black
    (brightness), with its mean gray (contrast) or with its gray version (saturation). f = 1 changes nothing.
    The hue is shifted by h ~ U[-hue, hue] of the color circle, in steps of 1/256. Results equal PIL's up to
    one gray level.

    Required and modified keys: ``img`` (H, W, 3), BGR, or (H, W, C) or (H, W); uint8, uint16 or float32.
    Integers are clipped to the range of their type. Brightness and contrast treat every band by itself if
    there are not three. Saturation and hue need three bands. They leave one band as it is, as they do with a
    gray image.

    Added key: ``colors``, the list of the operations on this image so far, each with its number: a factor, or
    the shift of the hue. The other color transforms add to it, too.

    Args:
        brightness (float): x of the brightness, at least 0. 0 disables an operation. UniMatch uses 0.5.
        contrast (float): x of the contrast, at least 0. UniMatch uses 0.5.
        saturation (float): x of the saturation, at least 0. UniMatch uses 0.5.
        hue (float): Largest shift of the hue, in [0, 0.5]; 0.5 is the complementary color. UniMatch uses
            0.25.

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
            require('ColorJitter', name, strength, 0 <= strength <= limit, f'a number in [0, {limit}]')

    def _draw_operations(self) -> list[tuple[str, float]]:
        """Draw the operations in order of application, each with its factor or shift."""
        names = [name for name, strength in self.strengths.items() if strength > 0]
        return [(str(name), self._draw_factor(name)) for name in np.random.permutation(names)]

    def _draw_factor(self, name: str) -> float:
        strength = self.strengths[name]
        if name == 'hue':
            return np.random.uniform(-strength, strength)
        return np.random.uniform(max(0.0, 1 - strength), 1 + strength)

    def transform(self, results: dict) -> dict:
        """Change the colors of the image.

        Args:
            results (dict): Result dict of the pipeline.

        Returns:
            dict: The result dict with the new image.

        Raises:
            ValueError: The image has another type, or bands that have no saturation and hue.
        """
        mixes = self.strengths['saturation'] > 0 or self.strengths['hue'] > 0
        img = require_image('ColorJitter', results, (1, 3) if mixes else None)
        operations = self._draw_operations()
        for name, factor in operations:
            img = _OPERATIONS[name](img, factor)
        results['img'] = img
        _record(results, *operations)
        return results

    def __repr__(self) -> str:
        arguments = ', '.join(f'{name}={strength}' for name, strength in self.strengths.items())
        return f'{type(self).__name__}({arguments})'


@TRANSFORMS.register_module()
class RandomGrayscale(BaseTransform):
    """Random conversion to grayscale with PIL's weights, in three equal channels.

    Up to one gray level, it equals MMCV's ``RandomGrayscale`` with ``keep_channels=True`` and
    ``channel_weights=(0.114, 0.587, 0.299)``, which computes in float64 and is 50 times slower.

    Required and modified keys: ``img`` (H, W, 3), BGR; uint8, uint16 or float32. An image of one band, (H,
    W, 1) or (H, W), is gray and does not change.

    Args:
        prob (float): Probability of the conversion. UniMatch uses 0.2.

    Raises:
        ValueError: ``prob`` is not in [0, 1].
    """

    def __init__(self, prob: float) -> None:
        require('RandomGrayscale', 'prob', prob, 0 <= prob <= 1, 'a probability in [0, 1]')
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Convert the image with probability ``prob``.

        Args:
            results (dict): Result dict of the pipeline.

        Returns:
            dict: The result dict with the new image.

        Raises:
            ValueError: The image has another type, or other bands.
        """
        img = require_image('RandomGrayscale', results, (1, 3))
        if random.random() < self.prob:
            results['img'] = pillow_ops.grayscale(img)
            _record(results, ('gray', 1.0))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'


@TRANSFORMS.register_module()
class GaussianBlur(BaseTransform):
    """Blur with a random standard deviation, equal to PIL's ``ImageFilter.GaussianBlur`` (UniMatch).

    PIL approximates the Gaussian by three box filters. The result differs from OpenCV's ``GaussianBlur`` by
    up to 40 gray levels on noise.

    Required and modified keys: ``img`` (H, W, C) or (H, W); uint8, uint16 or float32. Each band is blurred
    by itself.

    Args:
        sigma_range (tuple[float, float]): Bounds (low, high) of the uniform standard deviation
            (PIL's radius), in pixels, with 0 <= low <= high. UniMatch uses (0.1, 2.0).

    Raises:
        ValueError: ``sigma_range`` is invalid.
    """

    def __init__(self, sigma_range: tuple[float, float] = (0.1, 2.0)) -> None:
        valid = len(sigma_range) == 2 and 0 <= sigma_range[0] <= sigma_range[1]
        require(
            'GaussianBlur', 'sigma_range', sigma_range, valid, 'two numbers (low, high) with 0 <= low <= high'
        )
        self.sigma_range = sigma_range

    def _draw_sigma(self) -> float:
        return np.random.uniform(*self.sigma_range)

    def transform(self, results: dict) -> dict:
        """Blur the image.

        Args:
            results (dict): Result dict of the pipeline.

        Returns:
            dict: The result dict with the blurred image.

        Raises:
            ValueError: The image has another type.
        """
        img = require_image('GaussianBlur', results)
        sigma = self._draw_sigma()
        results['img'] = pillow_ops.gaussian_blur(img, sigma)
        _record(results, ('blur', sigma))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(sigma_range={self.sigma_range})'


def _record(results: dict, *operations: tuple[str, float]) -> None:
    """Add operations to ``colors``. The list is new, because other views can hold the old one."""
    results['colors'] = [*results.get('colors', []), *operations]
