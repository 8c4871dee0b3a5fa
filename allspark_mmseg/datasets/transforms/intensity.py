"""Scaling of the values of images with more than 8 bits."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from ...registry import TRANSFORMS
from ...utils import require


@TRANSFORMS.register_module()
class ScaleIntensity(BaseTransform):
    r"""Map a fixed range of values to [0, 255], in float32: the rule for images with more than 8 bits.

    .. math::

        y = 255 \cdot \min\left(\max\left(\frac{x - low}{high - low}, 0\right), 1\right)

    Every image has the same rule, so equal values stay equal in all images. Nothing is rounded. NaN, which
    some formats use for pixels without data, becomes 0. The usual mean and standard deviation of 8-bit
    images fit the result. For 12 bits in a 16-bit PNG::

        dict(type='LoadImageFromFile', color_type='unchanged'),
        dict(type='allspark_mmseg.ScaleIntensity', low=0, high=4095, bands=3),

    Required and modified keys: ``img`` (H, W) or (H, W, C), any integer or float type. It becomes float32.

    Args:
        low (float or Sequence[float]): Value that becomes 0; one number, or one for each band.
        high (float or Sequence[float]): Value that becomes 255, above ``low``.
        bands (int, optional): Repeat an image of one band this many times, for a network with weights of
            color images. None: keep the bands.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self, low: float | Sequence[float], high: float | Sequence[float], bands: int | None = None
    ) -> None:
        self.low, self.high = np.asarray(low, np.float32), np.asarray(high, np.float32)
        valid = bool(np.all(self.high > self.low)) and bool(np.isfinite(self.high - self.low).all())
        require('ScaleIntensity', 'high', high, valid, f'more than low ({low}), in every band')
        require('ScaleIntensity', 'bands', bands, bands is None or bands >= 1, '1 or more')
        self.bands = bands

    def transform(self, results: dict) -> dict:
        """Scale the image.

        Args:
            results (dict): Result dict of the pipeline.

        Returns:
            dict: The result dict with the new image.

        Raises:
            ValueError: ``low`` or ``high`` has another number of bands than the image, or an image of several
                bands is to be repeated.
        """
        img = results['img']
        count = 1 if img.ndim == 2 else img.shape[2]
        given = max(self.low.size, self.high.size)
        if given not in (1, count) or (self.bands is not None and count not in (1, self.bands)):
            raise ValueError(
                f'ScaleIntensity: the image {results.get("img_path", "")} has {count} bands, but low and '
                f'high have {given}, and bands is {self.bands}. Give one number, or one for each band; only '
                'an image of one band can be repeated.'
            )
        scaled = np.nan_to_num((img.astype(np.float32) - self.low) / (self.high - self.low), nan=0.0)
        scaled = scaled.clip(0, 1) * np.float32(255)
        if self.bands is not None and count == 1:
            scaled = np.repeat(scaled.reshape(*img.shape[:2], 1), self.bands, axis=2)
        results['img'] = np.ascontiguousarray(scaled)
        return results

    def __repr__(self) -> str:
        low, high = self.low.tolist(), self.high.tolist()
        return f'{type(self).__name__}(low={low}, high={high}, bands={self.bands})'
