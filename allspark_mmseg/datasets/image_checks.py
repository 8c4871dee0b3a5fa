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

from .file_checks import evenly_spaced
from .image_headers import ImageHeader, any_size, read_headers, write_cache
from .image_pixels import PixelReport, read_pixels
from .loaded_images import check_loading, refuse

_SAMPLE = 16  # images of a source that are decoded
_LARGE_SAMPLE = 10_000  # headers of a data set with more than ``limit`` images that are read
_MASK_ENDINGS = ('_mask', '_masks', '_label', '_labels', '_gt', '_seg', '-mask', '-label')
_MAX_DOUBLES = 0.5  # share of images that have a second file of the same name


def check_images(
    sources: Sequence[tuple[str, BaseDataset]], *, limit: int = 100_000, cache: Path | None = None
) -> dict[str, ImageHeader]:
    """Check the files of all images. Each process reads its share.

    All headers are read (of larger data sets, a sample), and some images are decoded. The log shows formats,
    bands, bits and sizes of each data set. Data sets whose pipeline has another loader than MMCV's
    ``LoadImageFromFile`` are not checked.

    Args:
        sources (Sequence[tuple[str, BaseDataset]]): Config key, for messages, and data set.
        limit (int): Images of a data set of which all headers are read. Of more images, the headers of
            10 000 evenly spaced ones are read, or ``limit`` if that is less.
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
        refuse(key, problems, 'cannot be used', 'Replace or remove them.')
        _check_for_masks(key, leaf, rows)
        check_loading(key, rows, loader, pixels)
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
    count = len(dataset)
    indices = evenly_spaced(count, limit if count <= limit else min(limit, _LARGE_SAMPLE))
    if len(indices) < count:
        print_log(
            f'Images: {len(indices)} of {count} headers are read (max_images={limit}).', logger='current'
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
    with any_size():
        share = {row.path: read_pixels(row) for row in unique[rank::world_size]}
    shares = all_gather_object(share)
    return {path: report for share in shares for path, report in share.items()}


def _check_for_masks(key: str, dataset: BaseDataset, rows: list[ImageHeader]) -> None:
    """Refuse masks that lie among the images of a folder."""
    infos = (dataset.get_data_info(index) for index in range(min(len(dataset), 100)))
    own = [info['img_path'] for info in infos if info.get('seg_map_path') == info['img_path']]
    remedy = (
        "Set img_suffix to the end of the names of images (for example '.jpg'; then only these are images), "
        'or name the images, and their masks, in a list with ann_file.'
    )
    refuse(key, [f'{path} is also its own mask' for path in own], 'are paired with themselves', remedy)
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
    refuse(key, masks, 'look like masks', remedy)
    if len(doubles) > _MAX_DOUBLES * len(groups):
        names = [' and '.join(osp.basename(row.path) for row in group) for group in doubles]
        refuse(key, names, 'exist twice; one of each may be a mask', remedy)


def _common_name(path: str) -> str:
    stem = osp.splitext(path)[0]
    for ending in _MASK_ENDINGS:
        stem = stem.removesuffix(ending)
    return stem


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
