r"""Make split lists: the published ones of Pascal VOC, Cityscapes and COCO, or new ones for any data set.

    python tools/dataset_converters/make_splits.py voc
    python tools/dataset_converters/make_splits.py cityscapes --reference https://github.com/xmed-lab/AllSpark
    python tools/dataset_converters/make_splits.py new --data-root data/mine \
        --images images/train --masks annotations/train --ratio 1/8 --out data/mine/splits/1_8

The published lists are written below data/splits. Those that follow a rule are made from the data set; the
others are taken from a copy of the AllSpark or the UniMatch repository: a folder, an archive or an address.
Each list is compared with the published digest, and one that differs is never written.
"""

from __future__ import annotations

import argparse
import http.client
import math
import os
import re
import shutil
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from allspark_mmseg.datasets import ImageListDataset
from allspark_mmseg.datasets.published_splits import (
    DEFAULT_OUT,
    LISTS,
    REFERENCES,
    SUBCOMMANDS,
    derive,
    encode,
    is_published,
    needs_reference,
    verify,
    voc_line,
)
from allspark_mmseg.engine.checkpoint import AtomicLocalBackend
from allspark_mmseg.utils import format_paths

DRAWS = 100  # random completions of a new split, of which the most representative is kept


class Made(NamedTuple):
    """A list that is the published one.

    Attributes:
        content: The file.
        origin: ``there already``, ``imported`` or ``by rule``.
        check: What the comparison with the published list found.
    """

    content: bytes
    origin: str
    check: str


# ---- the copy of the reference repository


def archive_address(address: str) -> str:
    """Address of the archive of a GitHub repository's branch main; any other address is one already."""
    repository = re.fullmatch(r'(https?://github\.com/[^/]+/[^/]+?)(\.git)?/?', address)
    return f'{repository[1]}/archive/refs/heads/main.zip' if repository else address


def fetch(address: str, path: Path) -> None:
    """Download ``address`` to the file ``path``.

    Raises:
        OSError: There is no connection or no such file.
    """
    request = urllib.request.Request(address, headers={'User-Agent': 'allspark_mmseg'})
    try:
        with urllib.request.urlopen(request, timeout=60) as response, path.open('wb') as file:
            shutil.copyfileobj(response, file)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f'--reference: could not download {address}: {error}. Give the address of an archive, or '
            'download the archive elsewhere and name its file.'
        ) from error


def read_reference(reference: str) -> dict[str, bytes]:
    """Read the published lists out of a copy of the reference repository, unchecked.

    Args:
        reference: A folder that holds splits/, is splits/, or has it one level below; a zip or tar archive
            of such a folder; or the address of an archive or of a repository on GitHub.

    Returns:
        Key of `LISTS` -> content with Unix line ends, for the lists that are there.

    Raises:
        OSError: ``reference`` does not exist, is no archive, or cannot be downloaded.
        ValueError: It holds none of the lists.
    """
    if re.match('https?://', reference):
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch, 'archive')
            fetch(archive_address(reference), archive)
            found = dict(_archive_lists(archive, reference))
    elif Path(reference).is_dir():
        found = dict(_folder_lists(Path(reference)))
    elif Path(reference).is_file():
        found = dict(_archive_lists(Path(reference), reference))
    else:
        raise FileNotFoundError(
            f"--reference: expected a folder, an archive or an address, found nothing at '{reference}'. "
            f'Name a copy of {" or ".join(REFERENCES)}.'
        )
    if not found:
        raise ValueError(
            f'--reference: expected lists such as splits/pascal/val.txt, found none in {reference}. '
            f'Name a copy of {" or ".join(REFERENCES)}.'
        )
    # git may have changed the line ends of a copy on Windows
    return {path: content.replace(b'\r\n', b'\n') for path, content in found.items()}


def _folder_lists(folder: Path) -> Iterator[tuple[str, bytes]]:
    roots = [folder / 'splits', folder, *sorted(folder.glob('*/splits'))]
    for path in LISTS:
        if file := next((root / path for root in roots if (root / path).is_file()), None):
            yield path, file.read_bytes()


def _archive_lists(archive: Path, name: str) -> Iterator[tuple[str, bytes]]:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for member in file.namelist():
                    if path := _list_name(member):
                        yield path, file.read(member)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as file:
                for member in file:
                    if member.isfile() and (path := _list_name(member.name)):
                        yield path, file.extractfile(member).read()
        else:
            raise ValueError('expected a zip or tar archive, found something else')
    except (OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise OSError(f'--reference: could not read {name}: {error}. Download it again.') from error


def _list_name(member: str) -> str | None:
    # AllSpark-main/splits/pascal/val.txt, splits/pascal/val.txt and pascal/val.txt are the same list
    match = re.fullmatch(rf'(?:\./)?(?:[^/]+/)??(?:splits/)?((?:{"|".join(SUBCOMMANDS)})/.+)', member)
    return match[1] if match and match[1] in LISTS else None


# ---- the published lists


def voc_lists(root: Path, masks: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the lists that Pascal VOC itself determines as (key of `LISTS`, lines).

    Args:
        root: The folder VOC2012.
        masks: Folder below it with VOC's own and the augmented masks.

    Raises:
        FileNotFoundError: A list of VOC or the folder of the masks does not exist.
        ValueError: The number of masks is wrong.
    """
    names = {}
    for path, split in (('pascal/val.txt', 'val'), ('pascal/1464/labeled.txt', 'train')):
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
    expected = LISTS['pascal/train_aug.txt'].lines
    if len(train_aug) != expected:
        raise ValueError(
            f'{folder}: expected the masks of {expected} training images, found {len(train_aug)}. '
            + augmented_masks_hint(root)
        )
    yield 'pascal/train_aug.txt', [voc_line(name) for name in sorted(train_aug)]


def augmented_masks_hint(root: Path) -> str:
    """Say how SegmentationClass gets the augmented masks; VOC's own, which are finer, stay."""
    if (root / 'SegmentationClassAug').is_dir():
        return (
            'The lists name all masks in SegmentationClass; link those of SegmentationClassAug that are '
            f"missing there: (cd '{root}/SegmentationClass' && ln -s ../SegmentationClassAug/*.png . "
            '2>/dev/null)'
        )
    return (
        f"{root}/SegmentationClass must hold VOC's own masks and the augmented ones (often distributed as "
        '"SegmentationClassAug", made from the SBD data set), 12031 files.'
    )


class Collection:
    """The published lists of a data set, made or not, before any is written.

    Attributes:
        wanted: Their keys in `LISTS`.
        made: Those that were made.
        problems: Why others could not be. Lists that need a reference where none was given are in neither.
    """

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset
        self.wanted = [path for path in LISTS if path.startswith(f'{dataset}/')]
        self.made: dict[str, Made] = {}
        self.problems: dict[str, str] = {}

    def offer(self, path: str, content: bytes, origin: str) -> None:
        """Take a list that is wanted still, if it is the published one."""
        if path not in self.wanted or path in self.made or path in self.problems:
            return
        try:
            self.made[path] = Made(content, origin, verify(path, content))
        except ValueError as error:
            self.problems[path] = f'the list {origin} is not the published one: {error}'

    def offer_existing(self, out: Path) -> None:
        """Take the lists below ``out`` that are exactly the published ones."""
        for path in self.wanted:
            if (out / path).is_file() and is_published(path, content := (out / path).read_bytes()):
                self.offer(path, content, 'there already')

    def offer_derived(self) -> None:
        """Make what follows by a rule from the lists that are exactly the published ones."""
        exact = {p: made.content for p, made in self.made.items() if is_published(p, made.content)}
        for path, lines in derive({p: content.decode().splitlines() for p, content in exact.items()}).items():
            self.offer(path, encode(path, lines), 'by rule')

    def explain_missing(self, reference: str | None, reason: str) -> None:
        """Note why a list was not made: for want of a reference list, or for ``reason``."""
        for path in self.wanted:
            if path in self.made or path in self.problems:
                continue
            if not needs_reference(path):
                self.problems[path] = reason
            elif reference:
                self.problems[path] = f'not in {reference}: name a complete copy of {" or ".join(REFERENCES)}'


def collect(
    dataset: str, out: Path, reference: str | None, from_data: Iterable[tuple[str, list[str]]]
) -> Collection:
    """Make the published lists of a data set, without writing them.

    Args:
        dataset: ``pascal``, ``cityscapes`` or ``coco``.
        out: Folder of the lists; what it holds already is used.
        reference: What `read_reference` reads, or None.
        from_data: What the data set on disk determines, as `voc_lists` yields it.

    Raises:
        OSError, ValueError: The reference cannot be read.
    """
    lists = Collection(dataset)
    lists.offer_existing(out)
    if reference:
        for path, content in read_reference(reference).items():
            lists.offer(path, content, 'imported')
    reason = 'a list from which it follows is missing'
    try:
        for path, lines in from_data:
            lists.offer(path, encode(path, lines), 'by rule')
    except (FileNotFoundError, ValueError) as error:
        # needed only if no copy of the lists was found above
        reason = str(error)
    lists.offer_derived()
    lists.explain_missing(reference, reason)
    return lists


def store(out: Path, lists: Collection) -> None:
    """Write what was made; a list that is there with other images stays, and becomes a problem."""
    for path, (content, origin, _) in list(lists.made.items()):
        file = out / path
        if file.is_file() and sorted(file.read_bytes().split()) != sorted(content.split()):
            lists.problems[path] = f'{file} is there, with other images: remove it, or choose another --out'
            del lists.made[path]
        elif origin != 'there already':
            AtomicLocalBackend().put(content, file)


def missing_files(root: Path, lists: Collection) -> tuple[list[str], list[str]]:
    """Images and masks that the lists name and ``root`` lacks; an unlabeled image needs no mask."""
    images, masks = {}, {}
    for path, made in lists.made.items():
        for line in made.content.decode().splitlines():
            image, *mask = line.split()
            images[image] = None
            if not path.endswith('unlabeled.txt'):
                masks.update(dict.fromkeys(mask))
    return tuple([name for name in names if not (root / name).is_file()] for names in (images, masks))


def report(lists: Collection) -> None:
    """Print the table of the lists, and what to do about those that were not made."""
    print(f'{"list":<32}{"lines":>6}  {"origin":<19}check')
    for path in lists.wanted:
        count, origin, check = LISTS[path].lines, 'needs --reference', '-'
        if path in lists.made:
            content, origin, check = lists.made[path]
            count = len(content.splitlines())
        elif path in lists.problems:
            origin = 'not made'
        print(f'{path:<32}{count:>6}  {origin:<19}{check}')
    by_problem = {}
    for path, problem in lists.problems.items():
        by_problem.setdefault(problem, []).append(path)
    for problem, paths in by_problem.items():
        print(f'error: {problem}\nSo {len(paths)} of the lists could not be made:\n{format_paths(paths)}')
    if lacking := len(set(lists.wanted) - set(lists.made) - set(lists.problems)):
        print(
            f'{lacking} lists follow no rule: add --reference FOLDER|ARCHIVE|ADDRESS, a copy of '
            f'{" or ".join(REFERENCES)} or its address'
        )


def report_missing_files(root: Path, lists: Collection) -> None:
    """Warn of files that the lists name and the data set on disk lacks."""
    if not root.is_dir():
        print(f'warning: {root} does not exist: whether the data set is complete was not checked')
        return
    mask_hints = {
        'pascal': augmented_masks_hint(root),
        'cityscapes': 'tools/dataset_converters/cityscapes.py makes the labelTrainIds masks.',
        'coco': 'tools/dataset_converters/coco.py makes the masks.',
    }
    hints = (f'Complete the data set, or correct --data-root {root}.', mask_hints[lists.dataset])
    for kind, names, hint in zip(('images', 'masks'), missing_files(root, lists), hints, strict=True):
        if names:
            print(f'warning: {root} lacks {len(names)} {kind} of these lists:\n{format_paths(names)}\n{hint}')


def published_splits(args: argparse.Namespace) -> bool:
    """Make the published lists of a data set and report on them.

    Returns:
        Whether there are lists now, and none is wrong or lacks what was to make it.
    """
    from_data = voc_lists(args.data_root, args.masks) if args.dataset == 'pascal' else ()
    lists = collect(args.dataset, args.out, args.reference, from_data)
    store(args.out, lists)
    report(lists)
    if lists.made:
        report_missing_files(args.data_root, lists)
    return bool(lists.made) and not lists.problems


# ---- new lists


def list_images(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Find the images and masks that the command line names, as paths relative to the data root.

    Raises:
        FileNotFoundError, ValueError: As `ImageListDataset` does; or a list could not hold the names.
    """
    prefix = {'img_path': args.images or '', 'seg_map_path': args.masks}
    dataset = ImageListDataset(
        ann_file=args.list or '',
        data_root=str(args.data_root),
        data_prefix={key: folder for key, folder in prefix.items() if folder is not None},
        img_suffix=args.img_suffix,
        seg_map_suffix=args.seg_map_suffix,
    )
    rows = []
    for info in map(dataset.get_data_info, range(len(dataset))):
        rows.append(tuple(os.path.relpath(info[key], args.data_root) for key in ('img_path', 'seg_map_path')))
    if broken := [name for row in rows for name in row if len(name.split()) != 1]:
        raise ValueError(
            f'{len(broken)} names contain white space; rename the files:\n{format_paths(broken)}'
        )
    images = [image for image, _ in rows]
    if len(set(images)) < len(images):
        twice = [image for image, number in Counter(images).items() if number > 1]
        raise ValueError(f'--list {args.list}: an image must not occur twice, found:\n{format_paths(twice)}')
    return rows


def class_pixels(path: Path) -> np.ndarray:
    """Count the pixels of each value in a mask: (256,) int32.

    Raises:
        ValueError: The mask cannot be read, or has not one byte a pixel.
    """
    try:
        with Image.open(path) as mask:
            mode, pixels = mask.mode, mask.histogram()
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path}: expected a mask, found a file that cannot be read: {error}') from error
    if mode not in ('L', 'P'):
        raise ValueError(
            f'{path}: expected a mask of one byte a pixel (Pillow mode L or P), found mode {mode}. Convert '
            'the masks to class numbers.'
        )
    return np.array(pixels, np.int32)


def count_classes(
    masks: list[Path], num_classes: int | None, ignore: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Count the pixels of each class in each mask, on all cores.

    Args:
        masks: N masks.
        num_classes: C; None for the classes that occur.
        ignore: Values that are no class.

    Returns:
        The numbers of the classes (C,) and their pixels (N, C) int32.

    Raises:
        ValueError: A mask is no mask, or holds a value that is neither a class nor ignored.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside Python's global lock
        pixels = np.stack(list(pool.map(class_pixels, masks)))
    pixels[:, ignore] = 0
    found = np.flatnonzero(pixels.any(axis=0))
    if not len(found):
        raise ValueError(f'the masks hold ignored values only: --ignore-index {ignore} is wrong')
    if num_classes is None:
        return found, pixels[:, found]
    if found[-1] >= num_classes:
        culprit = masks[int(pixels[:, found[-1]].argmax())]
        raise ValueError(
            f'{culprit}: expected values 0 to {num_classes - 1} or {ignore}, found {found[-1]}. Correct '
            '--num-classes or --ignore-index.'
        )
    return np.arange(num_classes), pixels[:, :num_classes]


def choose(present: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose images to label so that they hold every class, and each about as often as all images do.

    First the classes are covered, rarest first, each by an image that holds it and as many other uncovered
    classes as possible; every such image covers one class or more. The rest is drawn at random, ``DRAWS``
    times, and the draw is kept for which the share of images with a class is closest to that in all images.

    Args:
        present: (N, C) bool, whether an image holds a class.
        count: Number of images to choose, at most N.
        seed: Another seed makes another choice.

    Returns:
        Their indices (count,), ascending.
    """
    rng = np.random.default_rng(seed)
    images_of_class = present.sum(axis=0)
    uncovered = images_of_class > 0
    chosen = []
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
    """Table of the pixels and images of each class in the labeled and in the unlabeled part.

    Args:
        classes: (C,) numbers.
        pixels: (N, C) pixels of each class.
        labeled: (N,) bool.
    """
    parts = (pixels[labeled], pixels[~labeled])
    rows = [
        f'{"":<6}{"labeled":>24}{"unlabeled":>24}',
        f'{"class":<6}' + f'{"pixels":>15}{"images":>9}' * 2,
    ]
    for index, number in enumerate(classes):
        cells = ((int(part[:, index].sum(dtype=np.int64)), (part[:, index] > 0).sum()) for part in parts)
        rows.append(f'{number:<6}' + ''.join(f'{area:>15}{images:>9}' for area, images in cells))
    return '\n'.join(rows)


def new_split(args: argparse.Namespace) -> bool:
    """Make ``labeled.txt`` and ``unlabeled.txt`` of a data set, as the command line says, and report.

    Returns:
        True.

    Raises:
        OSError, ValueError: The data set, its masks or the number of images are not as they must be, or
            ``--out`` holds other lists.
    """
    rows = list_images(args)
    count = args.count or math.ceil(args.ratio * len(rows))
    if not 1 <= count < len(rows):
        raise ValueError(
            f'expected to label 1 to {len(rows) - 1} of the {len(rows)} images, found {count}: correct '
            '--ratio or --count'
        )
    masks = [args.data_root / mask for _, mask in rows]
    classes, pixels = count_classes(masks, args.num_classes, args.ignore_index)
    labeled = np.zeros(len(rows), bool)
    labeled[choose(pixels > 0, count, args.seed)] = True
    lines = np.array([f'{image} {mask}\n' for image, mask in rows])
    contents = {
        args.out / 'labeled.txt': ''.join(lines[labeled]),
        args.out / 'unlabeled.txt': ''.join(lines[~labeled]),
    }
    for file, content in contents.items():
        if file.exists() and file.read_text() != content:
            raise FileExistsError(f'{file} is there, with other contents: remove it, or choose another --out')
    for file, content in contents.items():
        AtomicLocalBackend().put(content.encode(), file)
    print(f'{args.out}: {count} labeled and {len(rows) - count} unlabeled images, seed {args.seed}')
    print(class_table(classes, pixels, labeled))
    if len(lacking := classes[~pixels[labeled].any(axis=0)]):
        print(f'warning: no labeled image holds the classes {lacking.tolist()}')
    return True


# ---- the command line


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description='Make split lists.')
    commands = parser.add_subparsers(required=True, metavar='voc|cityscapes|coco|new')
    folders = {'voc': 'data/VOC2012', 'cityscapes': 'data/cityscapes', 'coco': 'data/coco'}
    for dataset, name in SUBCOMMANDS.items():
        command = commands.add_parser(name, help=f'the published lists of {name}')
        command.set_defaults(make=published_splits, dataset=dataset)
        command.add_argument('--data-root', type=Path, default=Path(folders[name]), help='the data set')
        command.add_argument(
            '--reference',
            metavar='FOLDER|ARCHIVE|ADDRESS',
            help=f'a copy of {" or ".join(REFERENCES)}, or its address',
        )
        command.add_argument('--out', type=Path, default=Path(DEFAULT_OUT), help='folder of the lists')
        if name == 'voc':
            command.add_argument(
                '--masks', default='SegmentationClass', help='folder below --data-root to count masks in'
            )
    _add_new(commands)
    args = parser.parse_args(arguments)
    if args.make is new_split:
        _check_new(parser, args)
    return args


def _add_new(commands) -> None:
    command = commands.add_parser('new', help='a new split of any data set with masks')
    command.set_defaults(make=new_split)
    command.add_argument('--data-root', type=Path, required=True, help='the data set')
    command.add_argument('--images', help='folder of the images, relative to --data-root')
    command.add_argument('--masks', help='folder of the masks, relative to --data-root')
    command.add_argument('--list', help='list of "image" or "image mask", relative to --data-root')
    command.add_argument('--img-suffix', help='end of an image name that --seg-map-suffix replaces')
    command.add_argument('--seg-map-suffix', default='.png', help='end of a mask name')
    size = command.add_mutually_exclusive_group(required=True)
    size.add_argument('--ratio', type=Fraction, help='share to label, as in 1/8 (rounded up)')
    size.add_argument('--count', type=int, help='number of images to label')
    command.add_argument('--seed', type=int, default=0, help='another seed makes another split')
    command.add_argument('--num-classes', type=int, help='default: the classes found in the masks')
    command.add_argument('--ignore-index', type=int, nargs='+', default=[255], help='no class (255)')
    command.add_argument('--out', type=Path, required=True, help='folder of labeled.txt and unlabeled.txt')


def _check_new(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.list and not (args.images and args.masks):
        parser.error('expected --images and --masks, or --list')
    for option, least, most in (('count', 1, None), ('seed', 0, None), ('num_classes', 1, 256)):
        found = getattr(args, option)
        if found is not None and (found < least or (most and found > most)):
            limits = f'{least} to {most}' if most else f'{least} or more'
            parser.error(f'--{option.replace("_", "-")} is {found}; expected {limits}')
    if wrong := [value for value in args.ignore_index if not 0 <= value <= 255]:
        parser.error(f'--ignore-index is {wrong[0]}; expected 0 to 255')


def main(arguments: list[str] | None = None) -> None:
    """Make the lists that the command line names."""
    args = parse_args(arguments)
    try:
        succeeded = args.make(args)
    except (OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    if not succeeded:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
