"""From a folder to three lists: the steps of ``python -m allspark_mmseg new`` in their order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..datasets.list_lines import format_list_line
from .added import add_masks, read_added
from .files import WORK, Cache, Problem, is_image, list_files
from .groups import find_groups, hashes_available
from .labels import Labels, Options, convert, understand_masks
from .layouts import Layout, Patterns, find_layout
from .other_tools import other_annotations
from .scan import find_copies, scan_images
from .split import hold_out
from .state import State, write_if_changed

_FEW = 20
_INSTALL = "pip install 'allspark-mmseg[new]'"


@dataclass
class Understanding:
    """What is known about a data set before anything is written.

    Attributes:
        root (Path): The data.
        files (list[str]): All files.
        layout (Layout): Pairs and splits.
        images (dict[str, dict]): Facts of the usable images.
        labels (Labels): Masks and classes.
        problems (list[Problem]): Everything that is not used.
        cache (Cache): Results of reading.
    """

    root: Path
    files: list[str]
    layout: Layout
    images: dict[str, dict]
    labels: Labels
    problems: list[Problem]
    cache: Cache


@dataclass
class Streams:
    """The images of each stream, sorted.

    Attributes:
        labeled, unlabeled, val (list[str]): Images.
        notes (list[str]): How the validation part was chosen, and what changed since the last run.
    """

    labeled: list[str] = field(default_factory=list)
    unlabeled: list[str] = field(default_factory=list)
    val: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def understand(root: Path, patterns: Patterns, options: Options) -> Understanding:
    """Read the folder: names, images and masks.

    Args:
        root (Path): The data.
        patterns (Patterns): Folders that the user names.
        options (Options): What the user says about masks.

    Returns:
        Understanding: What is there.

    Raises:
        FileNotFoundError: The folder or a pattern has no image.
        ValueError: Lists or classes are wrong.
    """
    files = list_files(root)
    if not any(is_image(path) for path in files):
        raise FileNotFoundError(f'{root} has no images (.jpg, .png, .tif, ...) in it or its folders.')
    layout = find_layout(root, files, patterns)
    missing = [path for path in layout.images if not (root / path).is_file()]
    lost = [image for image, mask in layout.masks.items() if not (root / mask).is_file()]
    problems = [Problem(path, 'is in a list but does not exist') for path in missing]
    problems += [Problem(layout.masks.pop(image), f'(mask of {image}) does not exist') for image in lost]
    present = [path for path in layout.images if path not in {*missing, *lost}]
    cache = Cache(root / WORK / 'cache.json')
    has_val = any(layout.splits.get(image) == 'val' for image in layout.masks)
    hashed = [] if has_val or not hashes_available() else [path for path in present if path in layout.masks]
    try:
        images, unusable = scan_images(root, present, hashed, cache)
        order = sorted(images, key=lambda path: (path not in layout.masks, layout.splits.get(path) == 'val'))
        copies = find_copies(root, order)
        for problem in copies:
            del images[problem.path]
        labels = understand_masks(root, files, layout, images, options, cache)
    finally:
        cache.save()
    problems = [*layout.problems, *problems, *unusable, *copies, *labels.problems]
    return Understanding(root, files, layout, images, labels, problems, cache)


def add(
    found: Understanding, sources: Sequence[str], state: State, options: Options
) -> tuple[list[str], list[str]]:
    """Add masks to images that have none.

    Args:
        found (Understanding): The data set; its problems grow.
        sources (Sequence[str]): Values of ``--add``.
        state (State): Memory of the data set, changed in place.
        options (Options): What the user says about masks.

    Returns:
        tuple[list[str], list[str]]: The images that got a mask, and the files that are still as ``suggest``
        drew them.

    Raises:
        FileNotFoundError: A source does not exist.
        ValueError: No image has a mask yet, or the masks have other classes.
    """
    if not found.labels.classes:
        raise ValueError(
            f'--add adds masks to data that have some, and {found.root} has none yet. Name the first ones '
            f'with --masks {" ".join(str(Path(source).resolve()) for source in sources)}.'
        )
    masks, problems, drafts = add_masks(found.root, sources, found.images, found.labels, options)
    state.added.update(masks)
    found.problems += problems
    return sorted(masks), drafts


def finish(found: Understanding, state: State, empty: str = 'background') -> Streams:
    """Convert masks, choose the validation part, and write the lists.

    Args:
        found (Understanding): The data set.
        state (State): Memory of the data set, changed in place.
        empty (str): See ``Options``.

    Returns:
        Streams: The images of each stream.

    Raises:
        ValueError: There are too few masks to train and to validate.
    """
    labels, splits = found.labels, found.layout.splits
    convert(found.root, labels)
    note = _judge_empty(found, empty)
    found.problems = list(dict.fromkeys([*found.problems, *labels.problems]))
    # a mask that lies in the data now is newer than the one of --add
    added = {k: v for k, v in state.added.items() if k in found.images and k not in labels.masks}
    read_added(found.root, added, labels, found.cache)
    found.cache.save()
    streams = Streams(notes=[note] if note else [])
    for image in sorted(found.images):
        split = None if splits.get(image) == 'unlabeled' and image in added else splits.get(image)
        if image in labels.masks and split not in ('test', 'unlabeled'):
            (streams.val if split == 'val' else streams.labeled).append(image)
        elif (split not in ('test', 'val') and image not in found.layout.masks) or split == 'unlabeled':
            streams.unlabeled.append(image)
    for split, what in (('test', 'images for testing'), ('val', 'validation images without a mask')):
        unused = [p for p in sorted(found.images) if splits.get(p) == split and p not in streams.val]
        if unused:
            streams.notes.append(f'{len(unused)} {what} are not used (such as {unused[0]})')
    _write_list(
        found, streams, 'problems', [f'{problem.path} {problem.reason}' for problem in found.problems]
    )
    if not streams.labeled:
        raise ValueError(_no_labels(found))
    if not streams.val:
        _hold_out(found, state, streams)
    if len(streams.val) < _FEW:
        streams.notes.append(
            f'{len(streams.val)} validation images are few: differences of some points of mIoU are chance'
        )
    masks = labels.masks
    for name in ('labeled', 'val'):
        images = getattr(streams, name)
        _write_list(found, streams, name, [format_list_line(image, masks[image]) for image in images])
    _write_list(found, streams, 'unlabeled', list(map(format_list_line, streams.unlabeled)))
    return streams


def _judge_empty(found: Understanding, empty: str) -> str | None:
    """Make images whose mask has only class 0 unlabeled if the user says so, and return a note on them."""
    labels = found.labels
    images = [image for image, counts in labels.counts.items() if counts[0] and not counts[1:255].any()]
    if not images:
        return None
    name = labels.classes[0]
    if empty == 'unlabeled':
        for image in images:
            del labels.masks[image], labels.counts[image]
            found.layout.masks.pop(image, None)
        return f'{len(images)} images whose mask has only {name} are unlabeled'
    return (
        f'{len(images)} labeled images have only {name}; if they are not annotated yet, --empty unlabeled '
        'makes them unlabeled'
    )


def _no_labels(found: Understanding) -> str:
    if found.layout.masks and found.problems:
        first = found.problems[0]
        return (
            f'{found.root} has no labeled image that can be used: {len(found.problems)} files are left out, '
            f'the first is {first.path}, which {first.reason}. {WORK}/problems.txt there lists all.'
        )
    other = other_annotations(found.root, found.files)
    hint = '--images and --masks name the folders.'
    if other:
        hint = f'Annotations of {other} are not read: export them as COCO JSON, or as PNG masks.'
    return (
        f'{found.root} has {len(found.images)} images and no mask that fits one of them; expected masks '
        f'with the names of their images, or labelme or COCO files. {hint}'
    )


def _hold_out(found: Understanding, state: State, streams: Streams) -> None:
    """Move images from the labeled stream to the validation; the same as in the last run."""
    kept = [image for image in state.held_out if image in set(streams.labeled)]
    if len(kept) in (0, len(streams.labeled)):
        if len(streams.labeled) < 2:
            raise ValueError(
                f'{found.root} has one labeled image; expected at least two, one to train and one to '
                'validate. Label more images.'
            )
        hashes = {image: found.images[image].get('hash', '') for image in streams.labeled}
        groups = find_groups(streams.labeled, hashes if all(hashes.values()) else {})
        present = {
            image: [k for k in range(len(found.labels.classes)) if found.labels.counts[image][k]]
            for image in streams.labeled
        }
        kept = hold_out(groups, present)
        by_name = '' if all(hashes.values()) else f', by name only; {_INSTALL} also looks at pixels'
        state.held_out = kept
        streams.notes.append(
            f'no validation images: {len(kept)} of {len(streams.labeled)} labeled images are held out; '
            f'near-duplicates stay on one side ({len(groups)} groups{by_name})'
        )
    else:
        streams.notes.append(f'the {len(kept)} validation images of the last run are kept')
    streams.val = kept
    streams.labeled = [image for image in streams.labeled if image not in set(kept)]


def _write_list(found: Understanding, streams: Streams, name: str, lines: Sequence[str]) -> None:
    path = found.root / WORK / f'{name}.txt'
    before = path.read_text().splitlines() if path.is_file() else None
    changed = write_if_changed(path, ''.join(f'{line}\n' for line in lines))
    if changed and before is not None and name != 'problems':
        streams.notes.append(f'{WORK}/{name}.txt: {len(before)} lines before, {len(lines)} now')
