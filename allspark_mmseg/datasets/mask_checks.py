"""Check of all segmentation masks before a run."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import NamedTuple

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import print_log
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from ..utils import join_first

_MAX_EXAMPLES = 5
_ONE_BYTE_MODES = ('1', 'L', 'P')  # modes of Pillow
_ORIENTATION_TAG = 0x0112
_ROTATED_ORIENTATIONS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class _MaskReport(NamedTuple):
    path: str
    problem: str | None
    counts: np.ndarray  # (256,) int64, pixels of each label


def check_masks(
    key: str, datasets: Sequence[BaseDataset], classes: Sequence[str], *, all_present: bool = False
) -> None:
    """Check format, size and labels of all masks. Each process reads its share.

    Args:
        key (str): Config key of the data sets, for messages.
        datasets (Sequence[BaseDataset]): MMSegmentation data sets. Items without ``seg_map_path`` are
            skipped.
        classes (Sequence[str]): Names of the classes 0..K-1.
        all_present (bool): Warn about classes without labeled pixels, and raise if fewer than two classes
            have labeled pixels.

    Raises:
        ValueError: A mask is not readable, has more than one byte per pixel, has another size than its image,
            or has labels outside 0..K-1 and the ignored label; or fewer than two classes have labeled pixels.
            All processes raise the same error.
    """
    rank, world_size = get_dist_info()
    problems: list[str] = []
    counts = np.zeros(256, np.int64)
    for dataset in datasets:
        use_exif = _applies_exif(dataset)
        infos = (dataset.get_data_info(index) for index in range(rank, len(dataset), world_size))
        labeled = (info for info in infos if 'seg_map_path' in info)
        with ThreadPoolExecutor() as pool:
            reports = list(pool.map(_check_mask, labeled, repeat(use_exif)))
        for report in reports:
            counts += report.counts
            problem = report.problem or _check_labels(report.counts, len(classes), dataset.ignore_index)
            if problem:
                problems.append(f'{report.path} {problem}')
    results = all_gather_object((problems, counts))
    problems = [problem for share, _ in results for problem in share]
    if problems:
        raise ValueError(
            f'{key}: {len(problems)} mask(s) are invalid: {join_first(problems)}. Expected one byte per '
            f'pixel: a class from 0 to {len(classes) - 1}, or 255 for ignored pixels. Convert the masks, or '
            'set num_classes. StartupCheckHook(masks=False) skips this check.'
        )
    if all_present:
        _check_presence(key, sum(counts for _, counts in results), classes)


def _check_labels(counts: np.ndarray, num_classes: int, ignore_index: int) -> str | None:
    labels = [label for label in np.flatnonzero(counts).tolist() if label >= num_classes]
    labels = [label for label in labels if label != ignore_index]
    return f'has labels {labels[:8]} outside 0..{num_classes - 1} and {ignore_index}' if labels else None


def _check_presence(key: str, counts: np.ndarray, classes: Sequence[str]) -> None:
    total = counts.sum()
    missing = [name for name, count in zip(classes, counts, strict=False) if not count]
    if total and len(classes) - len(missing) < min(2, len(classes)):
        raise ValueError(
            f'{key}: all masks together have no pixels of {missing[:_MAX_EXAMPLES]}, and 255 (ignored) on '
            f'{counts[255] / total:.1%} of the pixels. Expected pixels of at least two classes. If the masks '
            'use 255 for a class, write its number (for example 1) instead.'
        )
    if missing:
        print_log(
            f'{key}: no pixel is labeled as {", ".join(missing)}. The network cannot learn these classes.',
            logger='current',
            level=logging.WARNING,
        )


def _check_mask(info: dict, use_exif: bool) -> _MaskReport:
    path, image_path, no_counts = info['seg_map_path'], info['img_path'], np.zeros(256, np.int64)
    try:
        mode, size = _read_header(path, use_exif=False)
        if mode not in _ONE_BYTE_MODES:
            return _MaskReport(path, f'has mode {mode} of Pillow, not one byte per pixel', no_counts)
        labels = LoadAnnotations()(info)['gt_seg_map']
    except (OSError, SyntaxError) as error:
        return _MaskReport(path, f'cannot be read ({error})', no_counts)
    try:
        _, image_size = _read_header(image_path, use_exif)
    except OSError:
        image_size = size  # Pillow does not support the format of the image
    counts = np.bincount(labels.ravel(), minlength=256)
    return _MaskReport(path, _compare_sizes(size, image_path, image_size), counts)


def _compare_sizes(size: tuple[int, int], image_path: str, image_size: tuple[int, int]) -> str | None:
    if size == image_size:
        return None
    problem = (
        f'has {_format_size(size)} pixels (width x height), its image {image_path} has '
        f'{_format_size(image_size)}'
    )
    if size == image_size[::-1]:
        problem += (
            ". The image may be rotated by its EXIF orientation; LoadImageFromFile's "
            "color_type='color_ignore_orientation' does not rotate it"
        )
    return problem


def _read_header(path: str, use_exif: bool) -> tuple[str, tuple[int, int]]:
    """Read mode and size (width, height) of an image, after the rotation by its EXIF orientation if asked."""
    with fileio.get_local_path(path) as local, Image.open(local) as image:
        rotated = use_exif and image.getexif().get(_ORIENTATION_TAG) in _ROTATED_ORIENTATIONS
        return image.mode, image.size[::-1] if rotated else image.size


def _format_size(size: tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]}'


def _applies_exif(dataset: BaseDataset) -> bool:
    """Return whether the pipeline rotates images by their EXIF orientation. It never rotates masks."""
    steps = getattr(dataset.pipeline, 'transforms', [])
    loaders = [step for step in steps if isinstance(step, LoadImageFromFile)]
    return any(loader.color_type in ('color', 'grayscale') for loader in loaders)
