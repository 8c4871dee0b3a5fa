"""A look at all masks, before a run meets a wrong one in the middle, or none at all and learns nothing."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import print_log
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from ..utils import join_first

_EXAMPLES = 5
_ONE_BYTE = ('1', 'L', 'P')  # Pillow's modes
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that exchange width and height


def check_masks(key: str, datasets: Sequence, classes: Sequence[str], *, all_present: bool = False) -> None:
    """Check format, size and labels of all masks; each process reads its share.

    Args:
        key: where the data sets stand in the config, for messages.
        datasets: MMSegmentation's data sets; items without ``seg_map_path`` are passed over.
        classes: the names of classes 0..K-1.
        all_present: tell, too, of classes that no pixel is labeled with.

    Raises:
        ValueError: on all processes alike, when masks have not one byte a pixel, differ from their images in
            size, or hold labels outside 0..K-1 and the ignored one; with ``all_present`` also when not even
            two classes are labeled.
    """
    rank, world = get_dist_info()
    problems, counts = [], np.zeros(256, np.int64)
    for dataset in datasets:
        turned = _turns_images(dataset)
        infos = (dataset.get_data_info(index) for index in range(rank, len(dataset), world))
        with ThreadPoolExecutor() as pool:
            looks = list(pool.map(_look, (info for info in infos if 'seg_map_path' in info), repeat(turned)))
        for path, problem, found in looks:
            counts += found
            found[: len(classes)] = 0
            found[dataset.ignore_index] = 0
            if found.any() and not problem:
                labels = np.flatnonzero(found).tolist()
                problem = f'has labels {labels[:8]} outside 0..{len(classes) - 1} and {dataset.ignore_index}'
            if problem:
                problems.append(f'{path} {problem}')
    shares = all_gather_object((problems, counts))
    problems = [problem for share, _ in shares for problem in share]
    if problems:
        raise ValueError(
            f'{key}: {len(problems)} mask(s) do not fit: {join_first(problems)}. Expected '
            f'one byte a pixel, the number of its class, one of {len(classes)}, or 255 where it is ignored. '
            'Convert the masks, or set num_classes; StartupCheckHook(masks=False) does not look.'
        )
    if all_present:
        _check_presence(key, sum(counts for _, counts in shares), classes)


def _check_presence(key: str, counts: np.ndarray, classes: Sequence[str]) -> None:
    total = counts.sum()
    missing = [name for name, count in zip(classes, counts, strict=False) if not count]
    if total and len(classes) - len(missing) < min(2, len(classes)):
        raise ValueError(
            f'{key}: all masks together hold no labels of {missing[:_EXAMPLES]}, and 255, which is ignored, '
            f'on {counts[255] / total:.1%} of the pixels; expected labels of two classes at least. Masks of '
            '0 and 255 mean background and ignored: write the class number, 1, instead of 255.'
        )
    if missing:
        print_log(
            f'{key}: no pixel is labeled as {", ".join(missing)}; the network cannot learn them.',
            logger='current',
            level=logging.WARNING,
        )


def _look(info: dict, turned: bool) -> tuple[str, str | None, np.ndarray]:
    """Path of a mask, what is wrong with the file if anything is, and how many pixels have each value."""
    path, image, nothing = info['seg_map_path'], info['img_path'], np.zeros(256, np.int64)
    try:
        mode, size = _header(path, turned=False)
        if mode not in _ONE_BYTE:
            return path, f'has not one byte a pixel, but mode {mode} as Pillow calls it', nothing
        labels = LoadAnnotations()(info)['gt_seg_map']
    except (OSError, SyntaxError) as error:
        return path, f'cannot be read ({error})', nothing
    problem = None
    try:
        _, size_of_image = _header(image, turned)
    except OSError:
        size_of_image = size  # a format that Pillow does not know
    if size != size_of_image:
        problem = f'is {_times(size)} pixels wide and high, its image {image} {_times(size_of_image)}'
        if size == size_of_image[::-1]:
            problem += (
                " (turned as EXIF says? LoadImageFromFile's color_type='color_ignore_orientation' does not)"
            )
    return path, problem, np.bincount(labels.ravel(), minlength=256)


def _header(path: str, turned: bool) -> tuple[str, tuple[int, int]]:
    """Mode and size (width, height) of an image, turned as its EXIF orientation says or as stored."""
    with fileio.get_local_path(path) as local, Image.open(local) as image:
        sideways = turned and image.getexif().get(_ORIENTATION) in _SIDEWAYS
        return image.mode, image.size[::-1] if sideways else image.size


def _times(size: tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]}'


def _turns_images(dataset) -> bool:
    """Whether images are loaded as their EXIF orientation says; masks never are."""
    steps = getattr(dataset.pipeline, 'transforms', [])
    loaders = [step for step in steps if isinstance(step, LoadImageFromFile)]
    return any(loader.color_type in ('color', 'grayscale') for loader in loaders)
