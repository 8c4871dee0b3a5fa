"""Whether the loader of a pipeline keeps all bits and bands of the images."""

from collections import Counter

import numpy as np
from mmcv.transforms import LoadImageFromFile

from ..utils import join_first
from .image_headers import ImageHeader
from .image_pixels import PixelReport

_SKIP = 'StartupCheckHook(images=False) skips this check.'


def refuse(key: str, problems: list[str], what: str, remedy: str) -> None:
    """Raise an error if there are problems.

    Args:
        key (str): Config key of the data set.
        problems (list[str]): The problem of each image, beginning with its path.
        what (str): What is wrong with the images, after ``N image(s)``.
        remedy (str): What to do, one or more sentences.

    Raises:
        ValueError: There are problems. The message has the first of them.
    """
    if problems:
        raise ValueError(f'{key}: {len(problems)} image(s) {what}: {join_first(problems)}. {remedy} {_SKIP}')


def check_loading(
    key: str, rows: list[ImageHeader], loader: LoadImageFromFile, pixels: dict[str, PixelReport]
) -> None:
    """Refuse a loader that drops bits or bands, and images that differ after loading.

    Args:
        key (str): Config key of the data set, for messages.
        rows (list[ImageHeader]): The headers of its images.
        loader (LoadImageFromFile): The loader of its pipeline.
        pixels (dict[str, PixelReport]): What the pixels of some of the images are like, by path.

    Raises:
        ValueError: Images are not loaded completely, or differ in bands or bits.
    """
    color = loader.color_type
    if color == 'unchanged' or loader.imdecode_backend == 'tifffile':
        kinds = Counter((_kept_bands(row), row.bits) for row in rows)
        # one bit and eight bits both become one byte
        if len({(bands, max(bits, 8)) for bands, bits in kinds}) > 1:
            found = ', '.join(
                f'{count} of {bands} bands and {bits} bits' for (bands, bits), count in kinds.items()
            )
            raise ValueError(
                f"{key}: color_type='unchanged' keeps the bands of the files, which differ: {found}. "
                "Expected one kind, for example with color_type='color' (three bands of 8 bits). Convert the "
                f'others, or change color_type of LoadImageFromFile. {_SKIP}'
            )
        _check_loaded(key, rows, loader)
        return
    deep = [row for row in rows if row.bits > 8]
    if deep:
        low, high = _value_range([pixels[row.path] for row in deep if row.path in pixels])
        refuse(
            key,
            [f'{row.path} has {row.bits} bits per band' for row in deep],
            f'have more than 8 bits per band, of which color_type={color!r} keeps only the highest 8',
            f"Load them with dict(type='LoadImageFromFile', color_type='unchanged') and then dict(type="
            f"'allspark_mmseg.ScaleIntensity', low={low}, high={high}), in the pipelines of all streams; add "
            'bands=3 for gray images and a network for color images.',
        )
    kept = 1 if color.startswith('grayscale') else 3
    many = [
        row for row in rows if row.bands - row.alpha > kept and row.mode != 'CMYK' and row.format == 'TIFF'
    ]
    refuse(
        key,
        [f'{row.path} has {row.bands} bands' for row in many],
        f'have more bands than the {kept} that color_type={color!r} keeps',
        "Set color_type='unchanged' in LoadImageFromFile to train on all bands, in_channels of the backbone, "
        "and data_preprocessor=dict(type='allspark_mmseg.MultiViewSegDataPreProcessor', mean=[...], "
        'std=[...]) with a '
        'number for each band; or convert the files.',
    )


def _check_loaded(key: str, rows: list[ImageHeader], loader: LoadImageFromFile) -> None:
    """Load an image of each kind: OpenCV reads one band, or nothing, of some TIFF files."""
    problems = []
    for row in {(row.format, row.mode, row.bands, row.bits): row for row in rows}.values():
        try:
            img = loader({'img_path': row.path})['img']
        except (AssertionError, ImportError, OSError, ValueError) as error:
            problems.append(f'{row.path} ({error})')
            continue
        kept = row.bands if loader.imdecode_backend == 'tifffile' else _kept_bands(row)
        found, expected = (*img.shape, 1)[:3], (row.height, row.width, kept)
        if found != expected:
            problems.append(f'{row.path} is loaded as {found}, expected {expected} (height, width, bands)')
    refuse(
        key,
        problems,
        f'are not loaded completely with imdecode_backend={loader.imdecode_backend!r}',
        "For TIFF files, set imdecode_backend='tifffile' in LoadImageFromFile (pip install tifffile), with "
        'the bands '
        'as the last axis; or write a transform that loads them.',
    )


def _kept_bands(row: ImageHeader) -> int:
    """Return the bands of an array that OpenCV loads unchanged."""
    return {'P': 3, 'PA': 4, 'LA': 4, 'CMYK': 3}.get(row.mode, row.bands)


def _value_range(reports: list[PixelReport]) -> tuple[int, int]:
    """Return a range that holds all values of a sample: 0 to a power of two minus 1 if they are positive."""
    low = min((report.low for report in reports), default=0)
    high = max((report.high for report in reports), default=65535)
    return (0 if low >= 0 else int(np.floor(low))), max(2 ** int(np.ceil(np.log2(max(high, 1) + 1))) - 1, 1)
