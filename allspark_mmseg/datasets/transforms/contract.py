"""What the transforms of this package take."""

from collections.abc import Sequence

import numpy as np

PIXEL_TYPES = ('uint8', 'uint16', 'float32')


def require_image(owner: str, results: dict, bands: Sequence[int] | None = None) -> np.ndarray:
    """Return the image of a result dict, after a check that a transform can treat it.

    Args:
        owner (str): Name of the transform, for the message.
        results (dict): Result dict with ``img``, and ``img_path`` for the message.
        bands (Sequence[int], optional): Numbers of bands that the transform takes. None: any number.

    Returns:
        np.ndarray: The image, (H, W, C) or (H, W), of one of ``PIXEL_TYPES``.

    Raises:
        ValueError: The image has another form, another type, or another number of bands.
    """
    img = results['img']
    where = f'{owner}: the image {results.get("img_path", "")}'.rstrip()
    if img.ndim not in (2, 3) or img.dtype.name not in PIXEL_TYPES:
        raise ValueError(
            f'{where} has the shape {img.shape} and the type {img.dtype}, expected (H, W) or (H, W, C) and '
            f'one of {", ".join(PIXEL_TYPES)}. Convert it right after loading, for example with '
            "dict(type='allspark_mmseg.ScaleIntensity', low=..., high=...)."
        )
    count = 1 if img.ndim == 2 else img.shape[2]
    if bands is not None and count not in bands:
        raise ValueError(
            f'{where} has {count} bands, expected {" or ".join(map(str, bands))}, because the transform '
            'mixes the colors blue, green and red. Remove it from the pipeline; ColorJitter without '
            'saturation and hue takes any number of bands.'
        )
    return img
