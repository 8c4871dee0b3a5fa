"""Check of all segmentation masks before a run."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import print_log
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from ..utils import join_first
from .image_headers import ImageHeader, read_header

_MAX_EXAMPLES = 5
_ONE_BYTE_MODES = ('1', 'L', 'P')  # modes of Pillow


@dataclass
class LabelCounts:
    """Pixels of each label in the masks of a data set.

    Attributes:
        pixels (np.ndarray): (256,) int64, pixels of each label.
        around (np.ndarray): (256,) int64, for each label, the pixels that are not ignored in the masks that
            have the label.
        masks (np.ndarray): (256,) int64, masks that have the label.
    """

    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    around: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    masks: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))

    def add(self, pixels: np.ndarray, ignore_index: int = 255) -> None:
        """Add the pixels of each label, (256,), of one mask."""
        present = pixels > 0
        self.pixels += pixels
        self.around[present] += pixels.sum() - pixels[ignore_index]
        self.masks[present] += 1

    def merge(self, other: 'LabelCounts') -> None:
        """Add the masks of another data set."""
        for name in ('pixels', 'around', 'masks'):
            getattr(self, name).__iadd__(getattr(other, name))


class _MaskReport(NamedTuple):
    path: str
    problem: str | None
    counts: np.ndarray  # (256,) int64, pixels of each label


def check_masks(
    key: str,
    datasets: Sequence[BaseDataset],
    classes: Sequence[str],
    headers: Mapping[str, ImageHeader] | None = None,
) -> LabelCounts:
    """Check format, size and labels of all masks. Each process reads its share.

    The log warns about classes without labeled pixels.

    Args:
        key (str): Config key of the data sets, for messages.
        datasets (Sequence[BaseDataset]): MMSegmentation data sets. Items without ``seg_map_path`` are
            skipped.
        classes (Sequence[str]): Names of the classes 0..K-1.
        headers (Mapping[str, ImageHeader], optional): Headers of images by path, if they were read before.

    Returns:
        LabelCounts: The pixels of each label in all masks.

    Raises:
        ValueError: A mask is not readable, has more than one byte per pixel, has another size than its image,
            or has labels outside 0..K-1 and the ignored label; or fewer than two classes have labeled pixels.
            All processes raise the same error.
    """
    problems: list[str] = []
    share = LabelCounts()
    for dataset in datasets:
        for report in _read_share(dataset, headers or {}):
            share.add(report.counts, dataset.ignore_index)
            problem = report.problem or _check_labels(report.counts, len(classes), dataset.ignore_index)
            if problem:
                problems.append(f'{report.path} {problem}')
    counts, problems = _gather(share, problems)
    if problems:
        raise ValueError(
            f'{key}: {len(problems)} mask(s) are invalid: {join_first(problems)}. Expected one byte per '
            f'pixel: a class from 0 to {len(classes) - 1}, or 255 for ignored pixels. '
            f'{_guess_cause(counts.pixels, len(classes))} StartupCheckHook(masks=False) skips this check.'
        )
    _check_presence(key, counts.pixels, classes)
    return counts


def count_labels(datasets: Sequence[BaseDataset]) -> LabelCounts:
    """Count the pixels of each label in all masks, without a check. Each process reads its share.

    Args:
        datasets (Sequence[BaseDataset]): MMSegmentation data sets. Items without ``seg_map_path`` are
            skipped.

    Returns:
        LabelCounts: The counts of all processes.
    """
    share = LabelCounts()
    for dataset in datasets:
        for report in _read_share(dataset, {}):
            share.add(report.counts, dataset.ignore_index)
    return _gather(share, [])[0]


def _read_share(dataset: BaseDataset, headers: Mapping[str, ImageHeader]) -> list[_MaskReport]:
    rank, world_size = get_dist_info()
    infos = (dataset.get_data_info(index) for index in range(rank, len(dataset), world_size))
    labeled = (info for info in infos if 'seg_map_path' in info)
    check = partial(_check_mask, use_exif=_applies_exif(dataset), headers=headers)
    with ThreadPoolExecutor() as pool:
        return list(pool.map(check, labeled))


def _gather(share: LabelCounts, problems: list[str]) -> tuple[LabelCounts, list[str]]:
    results = all_gather_object((share, problems))
    total = LabelCounts()
    for counts, _ in results:
        total.merge(counts)
    return total, [problem for _, found in results for problem in found]


def _check_labels(counts: np.ndarray, num_classes: int, ignore_index: int) -> str | None:
    labels = [label for label in np.flatnonzero(counts).tolist() if label >= num_classes]
    labels = [label for label in labels if label != ignore_index]
    return f'has labels {labels[:8]} outside 0..{num_classes - 1} and {ignore_index}' if labels else None


def _guess_cause(counts: np.ndarray, num_classes: int) -> str:
    """Return what to do about wrong masks, from the labels of all masks together."""
    labels = np.flatnonzero(counts[:255]).tolist()
    if labels and labels[-1] == num_classes:
        reduce = (
            'set reduce_zero_label=True in the data sets (labeled=dict(reduce_zero_label=True) of the '
            'SemiDataset, and in val_dataloader)'
        )
        if labels[0] > 0:
            return f'The labels are {labels[0]}..{num_classes}, so they seem to begin with 1: {reduce}.'
        return (
            f'The labels are 0..{num_classes}. If 0 means unlabeled, {reduce}; if it is a class, add its '
            f'name to metainfo and set num_classes={num_classes + 1}.'
        )
    if num_classes == 2 and len(labels) == 2 and labels[0] == 0:
        return f'The masks seem to use {labels[1]} for the second class: write 1 instead.'
    if len(labels) > max(2 * num_classes, num_classes + 16):
        return (
            f'The masks have {len(labels)} different values. Soft edges or gray scales need a threshold, and '
            'colors a table of colors, to become class numbers.'
        )
    return 'Convert the masks, or set num_classes.'


def _check_presence(key: str, counts: np.ndarray, classes: Sequence[str]) -> None:
    total = counts.sum()
    missing = [name for name, count in zip(classes, counts, strict=False) if not count]
    if total and len(classes) - len(missing) < min(2, len(classes)):
        raise ValueError(
            f'{key}: all masks together have no pixels of {missing[:_MAX_EXAMPLES]}, and 255 (ignored) on '
            f'{counts[255] / total:.1%} of the pixels. Expected pixels of at least two classes. If the masks '
            'use 255 for a class, as masks of two classes with 0 and 255 do, write its number (for example '
            '1) instead. StartupCheckHook(masks=False) skips this check.'
        )
    if missing:
        learns = key == 'train_dataloader'
        consequence = f'The network cannot {"learn" if learns else "be measured on"} these classes.'
        print_log(
            f'{key}: no pixel is labeled as {", ".join(missing)}. {consequence}',
            logger='current',
            level=logging.WARNING,
        )


def _check_mask(info: dict, use_exif: bool, headers: Mapping[str, ImageHeader]) -> _MaskReport:
    path, image_path, no_counts = info['seg_map_path'], info['img_path'], np.zeros(256, np.int64)
    own = read_header(path)
    if own.problem:
        return _MaskReport(path, own.problem, no_counts)
    # Pillow's mode is empty for TIFF
    if own.bits > 8 or own.bands > 1 or own.mode not in ('', *_ONE_BYTE_MODES):
        mode = f'mode {own.mode} of Pillow' if own.mode else f'{own.bands} bands of {own.bits} bits'
        return _MaskReport(path, f'has {mode}, not one byte per pixel', no_counts)
    try:
        labels = LoadAnnotations()(info)['gt_seg_map']
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        return _MaskReport(path, f'cannot be read ({error})', no_counts)
    image = headers.get(image_path) or read_header(image_path)
    # the check of the images reports the problem, or their loader does not need Pillow
    image_size = own.size(False) if image.problem else image.size(use_exif)
    counts = np.bincount(labels.ravel(), minlength=256)
    return _MaskReport(path, _compare_sizes(own.size(False), image_path, image_size), counts)


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


def _format_size(size: tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]}'


def _applies_exif(dataset: BaseDataset) -> bool:
    """Return whether the pipeline rotates images by their EXIF orientation. It never rotates masks."""
    steps = getattr(dataset.pipeline, 'transforms', [])
    loaders = [step for step in steps if isinstance(step, LoadImageFromFile)]
    return any(loader.color_type in ('color', 'grayscale') for loader in loaders)
