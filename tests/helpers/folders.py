"""Small folders of images and masks, as users have them."""

from pathlib import Path

import numpy as np
from PIL import Image


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (48, 40)) -> Path:
    """Write a colored image of (width, height) with many colors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def classes(seed: int = 0, count: int = 3, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    """Make a mask (height, width) with vertical stripes of all classes."""
    stripes = (np.arange(size[0]) // 8 + seed) % count
    return np.broadcast_to(stripes, size[::-1]).astype(np.uint8)


def mask(path: Path, values: np.ndarray) -> Path:
    """Write an array as an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path
