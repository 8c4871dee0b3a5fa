"""``make_splits.py new``: splits the images of any data set with masks into labeled and unlabeled ones."""

from __future__ import annotations

import argparse
import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from allspark_mmseg.datasets import ImageListDataset, format_list_line, parse_list_line
from allspark_mmseg.engine.checkpoint import AtomicLocalBackend
from allspark_mmseg.utils import format_paths

DRAWS = 100  # random completions of a new split; the most representative one is kept


def list_images(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Find the images and masks that the command line names.

    Args:
        args (Namespace): ``data_root``, ``images``, ``masks``, ``list``, ``img_suffix`` and
            ``seg_map_suffix``.

    Returns:
        list[tuple[str, str]]: Paths of image and mask, relative to the data root.

    Raises:
        FileNotFoundError, ValueError: See `ImageListDataset`; or an image is listed twice.
    """
    prefix = {'img_path': args.images or '', 'seg_map_path': args.masks}
    dataset = ImageListDataset(
        ann_file=args.list or '',
        data_root=str(args.data_root),
        data_prefix={key: folder for key, folder in prefix.items() if folder is not None},
        img_suffix=args.img_suffix,
        seg_map_suffix=args.seg_map_suffix,
    )
    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    rows = [
        (
            os.path.relpath(item['img_path'], args.data_root),
            os.path.relpath(item['seg_map_path'], args.data_root),
        )
        for item in items
    ]
    counts = Counter(image for image, _ in rows)
    if repeated := [image for image, count in counts.items() if count > 1]:
        raise ValueError(
            f'--list {args.list}: an image must not occur twice, found:\n{format_paths(repeated)}'
        )
    return rows


def list_lines(rows: list[tuple[str, str]]) -> list[str]:
    """Format pairs of image and mask as lines of a list.

    Raises:
        ValueError: A name contains a tab or a line break, or ends with white space. A list cannot hold it.
    """
    lines = [format_list_line(image, mask) for image, mask in rows]
    wrong = [row for row, line in zip(rows, lines, strict=True) if not _reads_back(line, row)]
    if wrong:
        raise ValueError(
            f'{len(wrong)} names contain a tab or a line break, or end with white space; a list cannot hold '
            f'them. Rename the files:\n{format_paths(wrong)}'
        )
    return lines


def _reads_back(line: str, row: tuple[str, str]) -> bool:
    try:
        return len(line.splitlines()) == 1 and parse_list_line(line) == row
    except ValueError:
        return False


def class_pixels(path: Path) -> np.ndarray:
    """Count the pixels of each value in a mask.

    Args:
        path (Path): The mask, 8 bits per pixel.

    Returns:
        np.ndarray: (256,) int32.

    Raises:
        ValueError: The mask cannot be read, or does not have 8 bits per pixel.
    """
    try:
        with Image.open(path) as mask:
            mode, pixels = mask.mode, mask.histogram()
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path}: expected a mask, found a file that cannot be read: {error}') from error
    if mode not in ('L', 'P'):
        raise ValueError(
            f'{path}: expected a mask of 8 bits per pixel (Pillow mode L or P), found mode {mode}. Convert '
            'the masks to class indices.'
        )
    return np.array(pixels, np.int32)


def count_classes(
    masks: list[Path], num_classes: int | None, ignore: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Count the pixels of each class in each mask, on all cores.

    Args:
        masks (list[Path]): N masks.
        num_classes (int, optional): Number of classes C. None: the classes that occur.
        ignore (list[int]): Values that are not classes.

    Returns:
        tuple[np.ndarray, np.ndarray]: The class indices (C,) and their pixels (N, C) int32.

    Raises:
        ValueError: A mask cannot be read, or contains a value that is neither a class nor ignored.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases Python's global lock while it decodes
        pixels = np.stack(list(pool.map(class_pixels, masks)))
    pixels[:, ignore] = 0
    present = np.flatnonzero(pixels.any(axis=0))
    if not len(present):
        raise ValueError(f'all values in the masks are ignored; correct --ignore-index {ignore}')
    if num_classes is None:
        return present, pixels[:, present]
    if present[-1] >= num_classes:
        mask = masks[int(pixels[:, present[-1]].argmax())]
        raise ValueError(
            f'{mask}: expected values 0 to {num_classes - 1} or {ignore}, found {present[-1]}. Correct '
            '--num-classes or --ignore-index.'
        )
    return np.arange(num_classes), pixels[:, :num_classes]


def choose(present: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose images to label. Every class occurs, about as often as in all images.

    The classes are covered first, the rarest class first. Among the images with this class, the function
    takes one with the most uncovered classes. It draws the other images at random ``DRAWS`` times. It keeps
    the draw in which the share of images with each class is closest to the share in all images.

    Args:
        present (np.ndarray): (N, C) bool, whether an image contains a class.
        count (int): Number of images to choose, at most N.
        seed (int): Seed of the draws.

    Returns:
        np.ndarray: Indices of the images, (count,) int64, ascending.
    """
    rng = np.random.default_rng(seed)
    images_of_class = present.sum(axis=0)
    uncovered = images_of_class > 0
    chosen: list[int] = []
    while uncovered.any() and len(chosen) < count:
        rarest = np.where(uncovered, images_of_class, len(present) + 1).argmin()
        gain = present[:, uncovered].sum(axis=1) * present[:, rarest]
        chosen.append(rng.choice(np.flatnonzero(gain == gain.max())))
        uncovered &= ~present[chosen[-1]]
    others = np.setdiff1d(np.arange(len(present)), chosen)
    expected = np.maximum(images_of_class, 1) * count / len(present)

    def distance(drawn: np.ndarray) -> float:
        found = present[chosen].sum(axis=0) + present[drawn].sum(axis=0)
        return np.abs(found / expected - 1).sum()

    draws = [rng.choice(others, count - len(chosen), replace=False) for _ in range(DRAWS)]
    return np.sort(np.concatenate([chosen, min(draws, key=distance)]).astype(int))


def class_table(classes: np.ndarray, pixels: np.ndarray, labeled: np.ndarray) -> str:
    """Format the numbers of pixels and images of each class in the labeled and in the unlabeled part.

    Args:
        classes (np.ndarray): Class indices (C,).
        pixels (np.ndarray): Pixels of each class in each image (N, C).
        labeled (np.ndarray): (N,) bool.

    Returns:
        str: The table.
    """
    parts = (pixels[labeled], pixels[~labeled])
    rows = [
        f'{"":<6}{"labeled":>24}{"unlabeled":>24}',
        f'{"class":<6}' + f'{"pixels":>15}{"images":>9}' * 2,
    ]
    for column, index in enumerate(classes):
        cells = ((int(part[:, column].sum(dtype=np.int64)), (part[:, column] > 0).sum()) for part in parts)
        rows.append(f'{index:<6}' + ''.join(f'{area:>15}{images:>9}' for area, images in cells))
    return '\n'.join(rows)


def write_lists(contents: dict[Path, str]) -> None:
    """Write the lists.

    Args:
        contents (dict[Path, str]): Maps files to their contents.

    Raises:
        FileExistsError: A file exists and has other contents. Nothing is written then.
    """
    for file, content in contents.items():
        if file.exists() and file.read_text() != content:
            raise FileExistsError(f'{file} exists and has other contents: remove it, or choose another --out')
    for file, content in contents.items():
        AtomicLocalBackend().put(content.encode(), file)


def make_new(args: argparse.Namespace) -> bool:
    """Write ``labeled.txt`` and ``unlabeled.txt``, and print a report.

    Args:
        args (Namespace): Options of ``make_splits.py new``.

    Returns:
        bool: True.

    Raises:
        OSError, ValueError: The data set, its masks or the number of images is wrong, or ``--out`` contains
            other lists.
    """
    rows = list_images(args)
    count = args.count or math.ceil(args.ratio * len(rows))
    if not 1 <= count < len(rows):
        raise ValueError(
            f'expected to label 1 to {len(rows) - 1} of the {len(rows)} images, found {count}: correct '
            '--ratio or --count'
        )
    lines = list_lines(rows)
    masks = [args.data_root / mask for _, mask in rows]
    classes, pixels = count_classes(masks, args.num_classes, args.ignore_index)
    labeled = np.zeros(len(rows), bool)
    labeled[choose(pixels > 0, count, args.seed)] = True
    parts: dict[str, list[str]] = {'labeled': [], 'unlabeled': []}
    for line, is_labeled in zip(lines, labeled, strict=True):
        parts['labeled' if is_labeled else 'unlabeled'].append(f'{line}\n')
    write_lists({args.out / f'{name}.txt': ''.join(part) for name, part in parts.items()})
    print(f'{args.out}: {count} labeled and {len(rows) - count} unlabeled images, seed {args.seed}')
    print(class_table(classes, pixels, labeled))
    if len(missing := classes[~pixels[labeled].any(axis=0)]):
        print(f'warning: no labeled image contains the classes {missing.tolist()}')
    return True
