"""``make_splits.py voc|cityscapes|coco``: writes the published lists and reports on them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from allspark_mmseg.datasets.published_splits import LISTS, REFERENCES, voc_line
from allspark_mmseg.utils import format_paths

from .collection import Collection, collect


def voc_lists(root: Path, masks: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the lists that Pascal VOC itself determines.

    Args:
        root (Path): The folder VOC2012.
        masks (str): The folder below it with VOC's own masks and the augmented masks.

    Yields:
        tuple[str, list[str]]: Key of ``LISTS`` and lines.

    Raises:
        FileNotFoundError: A list of VOC or the folder of the masks does not exist.
        ValueError: The number of masks is wrong.
    """
    names = {}
    for path, split in (('voc/val.txt', 'val'), ('voc/1464/labeled.txt', 'train')):
        file = root / 'ImageSets/Segmentation' / f'{split}.txt'
        if not file.is_file():
            raise FileNotFoundError(
                f'{file} does not exist. It is part of Pascal VOC 2012 (VOCtrainval_11-May-2012.tar): put it '
                'there, correct --data-root, or give --reference.'
            )
        names[split] = set(file.read_text().split())
        yield path, [voc_line(name) for name in sorted(names[split])]
    folder = root / masks
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} does not exist. Put the masks there, or correct --masks.')
    train_aug = {file.stem for file in folder.glob('*.png')} | names['train']
    train_aug -= names['val']
    expected = LISTS['voc/train_aug.txt'].lines
    if len(train_aug) != expected:
        raise ValueError(
            f'{folder}: expected the masks of {expected} training images, found {len(train_aug)}. '
            + augmented_masks_hint(root)
        )
    yield 'voc/train_aug.txt', [voc_line(name) for name in sorted(train_aug)]


def augmented_masks_hint(root: Path) -> str:
    """Say how to add the augmented masks to SegmentationClass. VOC's own masks, which are finer, are kept."""
    if (root / 'SegmentationClassAug').is_dir():
        return (
            'The lists name all masks in SegmentationClass; link the masks of SegmentationClassAug that are '
            f"missing there: (cd '{root}/SegmentationClass' && ln -s ../SegmentationClassAug/*.png . "
            '2>/dev/null)'
        )
    return (
        f"{root}/SegmentationClass must hold VOC's own masks and the augmented masks (often distributed as "
        '"SegmentationClassAug", made from the SBD data set), 12031 files.'
    )


def report(collection: Collection) -> None:
    """Print the table of the lists, and say what to do about missing lists."""
    print(f'{"list":<32}{"lines":>6}  {"origin":<19}check')
    for path in collection.wanted:
        count, origin, check = LISTS[path].lines, 'needs --reference', '-'
        if path in collection.lists:
            content, origin, check = collection.lists[path]
            count = len(content.splitlines())
        elif path in collection.problems:
            origin = 'failed'
        print(f'{path:<32}{count:>6}  {origin:<19}{check}')
    paths_of: dict[str, list[str]] = {}
    for path, problem in collection.problems.items():
        paths_of.setdefault(problem, []).append(path)
    for problem, paths in paths_of.items():
        print(f'error: {problem}\n{len(paths)} list(s) could not be made:\n{format_paths(paths)}')
    unavailable = set(collection.wanted) - set(collection.lists) - set(collection.problems)
    if unavailable:
        print(
            f'{len(unavailable)} lists follow no rule: add --reference FOLDER|ARCHIVE|ADDRESS, a copy of '
            f'{" or ".join(REFERENCES)} or its address'
        )


def report_missing_files(root: Path, collection: Collection) -> None:
    """Warn about files that the lists name and that do not exist."""
    if not root.is_dir():
        print(f'warning: {root} does not exist; the files that the lists name were not checked')
        return
    hints = {
        'images': f'Complete the data set, or correct --data-root {root}.',
        'masks': {
            'voc': augmented_masks_hint(root),
            'cityscapes': 'tools/dataset_converters/cityscapes.py writes the labelTrainIds masks.',
            'coco': 'tools/dataset_converters/coco.py writes the masks.',
        }[collection.dataset],
    }
    for kind, names in collection.missing_files(root).items():
        if names:
            print(
                f'warning: {len(names)} {kind} of these lists are missing in {root}:\n'
                f'{format_paths(names)}\n{hints[kind]}'
            )


def make_published(args: argparse.Namespace) -> bool:
    """Write the published lists of a data set and report on them.

    Args:
        args (Namespace): ``dataset``, ``data_root``, ``reference``, ``out`` and, for VOC, ``masks``.

    Returns:
        bool: Whether at least one list exists and no list failed.
    """
    from_data = voc_lists(args.data_root, args.masks) if args.dataset == 'voc' else ()
    collection = collect(args.dataset, args.out, args.reference, from_data)
    collection.write(args.out)
    report(collection)
    if collection.lists:
        report_missing_files(args.data_root, collection)
    return bool(collection.lists) and not collection.problems
