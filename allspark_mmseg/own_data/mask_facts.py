"""What mask files contain: mode, size, values or colors, and how often each occurs."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..datasets.image_headers import READ_ERRORS, describe_damage

_MAX_COLORS = 4096
_KEPT_COLORS = 256  # of a mask with more colors than _MAX_COLORS


def read_mask_facts(path: Path) -> dict[str, Any]:
    """Read a mask.

    Args:
        path (Path): The file.

    Returns:
        dict: ``error`` alone, or ``mode`` of Pillow, ``size`` ``[width, height]``, and ``values``
        ``[[value, pixels], ...]`` for one channel or ``colors`` ``[[red, green, blue, pixels], ...]``. A
        palette image also has ``palette``, RGB of its values. ``lossy`` says whether the format changes
        values.
    """
    try:
        with Image.open(path) as image:
            facts: dict[str, Any] = {
                'mode': image.mode,
                'size': list(image.size),
                'lossy': image.format in ('JPEG', 'WEBP'),
            }
            image.load()
            if image.mode in ('1', 'L', 'P'):
                facts['values'] = _histogram(image)
            elif image.mode.startswith(('I', 'F')):
                facts['values'] = _unique(np.asarray(image))
            else:
                facts |= _colors(image)
            if image.mode == 'P':
                facts['palette'] = _palette(image)
            return facts
    except READ_ERRORS as error:
        return {'error': describe_damage(path.read_bytes()[:32], error)}


def _histogram(image: Image.Image) -> list[list[int]]:
    counts = image.histogram()[:256]
    if image.mode == '1':
        return [[value, count] for value, count in ((0, counts[0]), (1, counts[255])) if count]
    return [[value, count] for value, count in enumerate(counts) if count]


def _unique(values: np.ndarray) -> list[list[int]]:
    found, counts = np.unique(values.astype(np.int64), return_counts=True)
    return np.stack([found, counts], axis=1).tolist()


def _colors(image: Image.Image) -> dict[str, Any]:
    """Count the colors; a gray image of several channels has values."""
    if image.mode in ('LA', 'PA'):
        return {'values': _histogram(image.getchannel(0))}
    rgb = image.convert('RGB')
    counted = rgb.getcolors(_MAX_COLORS)
    if counted is None:
        pixels = np.asarray(rgb).reshape(-1, 3)
        colors, counts = np.unique(pixels, axis=0, return_counts=True)
        order = np.argsort(-counts)[:_KEPT_COLORS]
        counted = [(int(counts[i]), tuple(colors[i].tolist())) for i in order]
    if all(len(set(color)) == 1 for _, color in counted):  # type: ignore[arg-type]
        return {'values': _histogram(rgb.getchannel(0))}
    return {'colors': [[*color, count] for count, color in counted]}  # type: ignore[misc]


def _palette(image: Image.Image) -> list[list[int]]:
    values = image.getpalette('RGB') or []
    return [values[start : start + 3] for start in range(0, len(values), 3)]
