"""Check of all images before a run: headers of all files, and the pixels of a sample."""

import logging
import os.path as osp
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import print_log

from ..utils import join_first
from .image_headers import ImageHeader, read_headers, write_cache
from .image_pixels import PixelReport, read_pixels

_SAMPLE = 16  # images of a source that are decoded
_MASK_ENDINGS = ('_mask', '_masks', '_label', '_labels', '_gt', '_seg', '-mask', '-label')
_MAX_DOUBLES = 0.5  # share of images that have a second file of the same name
_SKIP = 'StartupCheckHook(images=False) skips this check.'


def check_images(
    sources: Sequence[tuple[str, BaseDataset]], *, limit: int = 100_000, cache: Path | None = None
) -> dict[str, ImageHeader]:
    """Check the files of all images. Each process reads its share.

    All headers are read (of larger data sets, a sample), and some images are decoded. The log shows formats,
    bands, bits and sizes of each data set. Data sets whose pipeline has another loader than MMCV's
    ``LoadImageFromFile`` are not checked.

    Args:
        sources (Sequence[tuple[str, BaseDataset]]): Config key, for messages, and data set.
        limit (int): Headers to read of one data set, at most. Of more images, evenly spaced ones are read.
        cache (Path, optional): JSON file that keeps the headers for the next start.

    Returns:
        dict[str, ImageHeader]: The headers that were read, by path.

    Raises:
        ValueError: An image cannot be read or is truncated, is a mask, or loses bits or bands when it is
            loaded; or images of one data set differ in bands or bits after loading. All processes raise the
            same error.
    """
    start = time.monotonic()
    checked = [(key, leaf, loader, _paths(leaf, limit)) for key, leaf in sources if (loader := _loader(leaf))]
    headers, count = _read_all([path for *_, paths in checked for path in paths], cache)
    for key, leaf, loader, paths in checked:
        rows = [headers[path] for path in paths]
        problems = [f'{row.path} {row.problem}' for row in rows if row.problem]
        rows = [row for row in rows if not row.problem]
        sample = [rows[int(i)] for i in np.linspace(0, max(len(rows) - 1, 0), min(_SAMPLE, len(rows)))]
        pixels = _read_sample([row for row in rows if row.suspicious] + sample)
        problems += [f'{path} {report.problem}' for path, report in pixels.items() if report.problem]
        _refuse(key, problems, 'cannot be used', 'Replace or remove them.')
        _check_for_masks(key, leaf, rows)
        _check_loss(key, rows, loader, pixels)
        _describe(key, leaf, rows, pixels, drops_opacity=loader.color_type != 'unchanged')
    seconds = time.monotonic() - start
    skipped = sorted({key for key, leaf in sources if not _loader(leaf)})
    print_log(
        f'Images: read {count} headers, took {len(headers) - count} from the cache, in {seconds:.1f} s.'
        + (f' {", ".join(skipped)}: another loader than LoadImageFromFile, not checked.' if skipped else ''),
        logger='current',
    )
    return headers


def _loader(dataset: BaseDataset) -> LoadImageFromFile | None:
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    loaders = [step for step in steps if type(step) is LoadImageFromFile]
    has_files = len(dataset) and 'img_path' in dataset.get_data_info(0)
    return loaders[0] if loaders and has_files else None


def _paths(dataset: BaseDataset, limit: int) -> list[str]:
    indices = range(len(dataset))
    if len(indices) > limit:
        indices = np.linspace(0, len(dataset) - 1, limit).astype(int).tolist()
        print_log(
            f'Images: {limit} of {len(dataset)} headers are read (max_images={limit}).', logger='current'
        )
    return [dataset.get_data_info(index)['img_path'] for index in indices]


def _read_all(paths: list[str], cache: Path | None) -> tuple[dict[str, ImageHeader], int]:
    paths = sorted(set(paths))
    rank, world_size = get_dist_info()
    shares = all_gather_object(read_headers(paths[rank::world_size], cache))
    headers = {header.path: header for share, _ in shares for header in share}
    count = sum(read for _, read in shares)
    if cache is not None and count and rank == 0:
        write_cache(cache, headers.values())
    return headers, count


def _read_sample(rows: list[ImageHeader]) -> dict[str, PixelReport]:
    rank, world_size = get_dist_info()
    unique = sorted({row.path: row for row in rows}.values())
    shares = all_gather_object({row.path: read_pixels(row) for row in unique[rank::world_size]})
    return {path: report for share in shares for path, report in share.items()}


def _refuse(key: str, problems: list[str], what: str, remedy: str) -> None:
    if problems:
        raise ValueError(f'{key}: {len(problems)} image(s) {what}: {join_first(problems)}. {remedy} {_SKIP}')


def _check_for_masks(key: str, dataset: BaseDataset, rows: list[ImageHeader]) -> None:
    """Refuse masks that lie among the images of a folder."""
    infos = (dataset.get_data_info(index) for index in range(min(len(dataset), 100)))
    own = [info['img_path'] for info in infos if info.get('seg_map_path') == info['img_path']]
    remedy = (
        "Set img_suffix to the end of the names of images (for example '.jpg'; then only these are images), "
        'or name the images, and their masks, in a list with ann_file.'
    )
    _refuse(key, [f'{path} is also its own mask' for path in own], 'are paired with themselves', remedy)
    groups: dict[str, list[ImageHeader]] = defaultdict(list)
    for row in {row.path: row for row in rows}.values():  # a list can name an image several times
        groups[_common_name(row.path)].append(row)
    doubles = [group for group in groups.values() if len(group) > 1]
    masks = [
        f'{row.path}, beside {osp.basename(max(group, key=lambda one: one.bands).path)}'
        for group in doubles
        for row in group
        if row.bands == 1 and max(one.bands for one in group) > 1
    ]
    _refuse(key, masks, 'look like masks', remedy)
    if len(doubles) > _MAX_DOUBLES * len(groups):
        names = [' and '.join(osp.basename(row.path) for row in group) for group in doubles]
        _refuse(key, names, 'exist twice; one of each may be a mask', remedy)


def _common_name(path: str) -> str:
    stem = osp.splitext(path)[0]
    for ending in _MASK_ENDINGS:
        stem = stem.removesuffix(ending)
    return stem


def _check_loss(
    key: str, rows: list[ImageHeader], loader: LoadImageFromFile, pixels: dict[str, PixelReport]
) -> None:
    """Refuse a loader that drops bits or bands, and images that differ after loading."""
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
        _refuse(
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
    _refuse(
        key,
        [f'{row.path} has {row.bands} bands' for row in many],
        f'have more bands than the {kept} that color_type={color!r} keeps',
        "Set color_type='unchanged' in LoadImageFromFile to train on all bands (in_channels of the backbone, "
        'and mean and std of the data_preprocessor, then have that many), or convert the files.',
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
        expected = (row.height, row.width, row.bands if loader.imdecode_backend == 'tifffile' else
        _kept_bands(row)) found = (*img.shape, 1)[:3]
        if found != expected:
            problems.append(f'{row.path} is loaded as {found}, expected {expected} (height, width, bands)')
    _refuse(
        key,
        problems,
        f'are not loaded completely with imdecode_backend={loader.imdecode_backend!r}',
        "For TIFF files, set imdecode_backend='tifffile' in LoadImageFromFile (pip install tifffile), with "
        "the bands "
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


def _describe(
    key: str,
    dataset: BaseDataset,
    rows: list[ImageHeader],
    pixels: dict[str, PixelReport],
    drops_opacity: bool,
) -> None:
    """Log the kinds and sizes of images, and warn of those that are probably not meant."""
    kinds = Counter(f'{row.format} {row.mode or f"{row.bands} bands"} {row.bits} bits' for row in rows)
    sizes = sorted((row.width * row.height, row.width, row.height) for row in rows)
    ends = dict.fromkeys(f'{width} x {height}' for _, width, height in (sizes[0], sizes[-1]))
    found = ', '.join(f'{count} {kind}' for kind, count in kinds.most_common(5))
    print_log(f'{key}: {len(rows)} images ({found}), {" to ".join(ends)} pixels.', 'current')
    sample = [pixels[row.path] for row in rows if row.path in pixels]
    classes = len(dataset.metainfo.get('classes') or ())
    transparent = sum(report.transparent for report in sample)
    gray = sum(row.bands - row.alpha == 1 and row.mode != 'P' for row in rows)
    warnings = {
        f'{transparent} of {len(sample)} sampled images have opacity, which is dropped.': transparent
        and drops_opacity,
        f'all {len(sample)} sampled images have only the values 0..{classes - 1} and 255, like masks. Do the '
        'paths of images and masks have the right order?': all(
            report.values_below(classes) for report in sample
        ),
        f'{gray} of {len(rows)} images are gray, the others have colors.': 0 < gray < len(rows),
    }
    for warning, applies in warnings.items():
        if applies:
            print_log(f'{key}: {warning}', 'current', logging.WARNING)
