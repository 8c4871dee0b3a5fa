"""Layouts in which lists say what belongs together: ``labeled.txt``, and the folders of Pascal VOC."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path, PurePosixPath

from ..datasets.list_lines import parse_list_line
from .files import is_image
from .roles import MASK, parse_name

# kind, masks, splits, images and notes of a Layout
Listed = tuple[str, dict[str, str], dict[str, str], list[str], list[str]]


def read_list(path: Path) -> list[tuple[str, str | None]]:
    """Read a list of images or of images and masks.

    Args:
        path (Path): The list, one ``image`` or ``image mask`` per line.

    Returns:
        list[tuple[str, str | None]]: The columns of each line.

    Raises:
        ValueError: A line has more than two columns.
    """
    rows = []
    for number, line in enumerate(StringIO(path.read_text(encoding='utf-8-sig'), newline=None), start=1):
        if line.strip():
            try:
                rows.append(parse_list_line(line))
            except ValueError as error:
                raise ValueError(f'{path}:{number}: {error}') from error
    return rows


def find_lists(root: Path, files: Sequence[str]) -> Listed | None:
    """Recognize ``labeled.txt`` with optional ``unlabeled.txt`` and ``val.txt`` in the top folder.

    Args:
        root (Path): The data.
        files (Sequence[str]): Paths relative to it.

    Returns:
        tuple or None: The parts of a layout.
    """
    if 'labeled.txt' not in files:
        return None
    masks: dict[str, str] = {}
    splits: dict[str, str] = {}
    listed: set[str] = set()
    for name in ('labeled', 'unlabeled', 'val'):
        for image, mask in read_list(root / f'{name}.txt') if f'{name}.txt' in files else ():
            listed.add(image)
            if mask is not None and name != 'unlabeled':
                masks[image] = mask
            if name != 'labeled':
                splits[image] = name
    others = [
        path
        for path in files
        if is_image(path) and path not in listed and parse_name(path).role != MASK
        and path not in set(masks.values())
    ]  # fmt: skip
    notes = []
    if others and 'unlabeled.txt' in files:
        place = str(PurePosixPath(others[0]).parent)
        notes.append(
            f'{len(others)} images (in {place}) are in no list and are not used; --unlabeled adds them.'
        )
    elif others:
        listed.update(others)
    names = [name for name in ('labeled', 'unlabeled', 'val') if f'{name}.txt' in files]
    return f'lists ({", ".join(f"{name}.txt" for name in names)})', masks, splits, sorted(listed), notes


def find_voc(root: Path, files: Sequence[str]) -> Listed | None:
    """Recognize Pascal VOC: ``JPEGImages``, ``SegmentationClass`` and ``ImageSets/Segmentation``.

    Args:
        root (Path): The data.
        files (Sequence[str]): Paths relative to it.

    Returns:
        tuple or None: The parts of a layout.
    """
    images = [path for path in files if '/JPEGImages/' in f'/{path}' and is_image(path)]
    masks = [path for path in files if '/SegmentationClass' in f'/{path}' and is_image(path)]
    lists = [path for path in files if '/ImageSets/Segmentation/' in f'/{path}' and path.endswith('.txt')]
    if not (images and masks and lists):
        return None
    named: dict[str, set[str]] = {}
    for path in lists:
        stem = PurePosixPath(path).stem
        part = 'val' if stem.startswith('val') else 'test' if stem.startswith('test') else 'train'
        if stem != 'trainval':
            named.setdefault(part, set()).update((root / path).read_text().split())
    by_stem = {PurePosixPath(path).stem: path for path in sorted(masks)}  # SegmentationClassAug is the last
    pairs, splits = {}, {}
    for image in images:
        stem = PurePosixPath(image).stem
        part = next((name for name in ('val', 'test', 'train') if stem in named.get(name, ())), '')
        if stem in by_stem and (part in ('val', 'train') or 'train' not in named):
            pairs[image] = by_stem[stem]
        if part in ('val', 'test'):
            splits[image] = part
    return 'Pascal VOC (JPEGImages, SegmentationClass, ImageSets)', pairs, splits, images, []
