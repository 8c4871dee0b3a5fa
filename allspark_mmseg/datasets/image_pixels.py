"""Pixels of sampled images, for the check before a run."""

from typing import NamedTuple

import cv2
import numpy as np
from mmengine import fileio
from PIL import Image

from .image_headers import ImageHeader


class PixelReport(NamedTuple):
    """What the pixels of an image are like.

    Attributes:
        problem (str): Why the image cannot be decoded, as the end of a sentence; empty if it can.
        low (float), high (float): Smallest and largest value, without NaN.
        gray (bool): The image has one band.
        transparent (bool): Opacity differs between pixels.
        second_high (float): Largest value that is not 255.
    """

    problem: str = ''
    low: float = 0
    high: float = 0
    gray: bool = False
    transparent: bool = False
    second_high: float = 0

    def values_below(self, count: int) -> bool:
        """Return whether a gray image has only values below ``count`` and 255, as masks have."""
        return self.gray and not self.problem and 0 < count <= 64 and self.second_high < count


def read_pixels(header: ImageHeader) -> PixelReport:
    """Decode an image.

    Args:
        header (ImageHeader): Its header.

    Returns:
        PixelReport: What the pixels are like.
    """
    try:
        content = fileio.get(header.path)
        if header.format == 'TIFF' or header.bits > 8:
            # Pillow does not keep several bands of more than 8 bits
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        else:
            # OpenCV fills the missing part of a truncated JPEG with gray
            with fileio.get_local_path(header.path) as local, Image.open(local) as image:
                pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, cv2.error) as error:
        return PixelReport(f'is truncated or damaged ({error})')
    if pixels is None:
        # a compression that OpenCV lacks; the loader of the pipeline may be another
        return PixelReport()
    bands = pixels.reshape(*pixels.shape[:2], -1)
    values = bands[np.isfinite(bands)] if bands.dtype.kind == 'f' else bands
    if not values.size:
        return PixelReport('has no pixel with a value')
    others = values[values != 255]
    alpha = bands[..., -1] if header.alpha else np.zeros(1)
    return PixelReport(
        low=float(values.min()),
        high=float(values.max()),
        gray=bands.shape[2] == 1,
        transparent=bool(alpha.min() != alpha.max()),
        second_high=float(others.max(initial=0)),
    )
