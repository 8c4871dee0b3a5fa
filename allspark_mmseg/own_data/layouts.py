"""Which files are images and masks, which belong together, and which are for validation."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.image_headers import READ_ERRORS
from ..datasets.list_lines import IMAGE_SUFFIXES
from .files import Problem, is_image, select
from .listed import find_lists, find_voc
from .pairs import match
from .polygons import PolygonFile, find_polygons
from .roles import IMAGE, MASK, Name, parse_name, strip_common_ends

_SAMPLES = 5  # files of a family whose pixels are looked at
_MAX_COLORS = 48  # a mask has at most this many colors, a photograph has more
_PREFERRED = ('labeltrainids', 'segmentationclassaug', 'labelids', 'annotations', 'labels', 'masks')


@dataclass
class Patterns:
    """Folders, patterns or files that the user gives; each list may be empty.

    Attributes:
        images, masks, unlabeled, val (list[str]): Images, masks, images without masks, images for validation.
    """

    images: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    unlabeled: list[str] = field(default_factory=list)
    val: list[str] = field(default_factory=list)


@dataclass
class Layout:
    """The files of a data set. All paths are relative to the data, or absolute outside.

    Attributes:
        kind (str): What was recognized, for the user.
        masks (dict[str, str]): Image -> mask, or file of polygons.
        images (list[str]): All images, sorted.
        splits (dict[str, str]): Image -> ``'val'``, ``'test'`` or ``'unlabeled'``; the others are not named.
        polygons (list[PolygonFile]): The files of polygons.
        notes (list[str]): Sentences about what was chosen.
        problems (list[Problem]): Files that fit nowhere.
    """

    kind: str
    masks: dict[str, str] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    polygons: list[PolygonFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def find_layout(root: Path, files: Sequence[str], patterns: Patterns) -> Layout:
    """Recognize the layout of a folder.

    Args:
        root (Path): The data.
        files (Sequence[str]): All files below it, relative, with slashes.
        patterns (Patterns): What the user names. Without patterns, lists (``labeled.txt``) and VOC's layout
            are recognized; everything else is recognized from names and pixels.

    Returns:
        Layout: Images, masks and splits.

    Raises:
        FileNotFoundError: A pattern selects nothing.
        ValueError: A list is damaged.
    """
    given = patterns.images or patterns.masks
    known = None if given else find_lists(root, files) or find_voc(root, files)
    if known is not None:
        kind, masks, splits, images, notes = known
        layout = Layout(kind, masks, images, splits, notes=[] if patterns.unlabeled else notes)
    else:
        layout = _find_pairs(root, files, patterns)
    for name, chosen in (('unlabeled', patterns.unlabeled), ('val', patterns.val)):
        paths = [path for path in select(root, files, chosen) if is_image(path)] if chosen else []
        if chosen and not paths:
            raise FileNotFoundError(
                f'--{name} {" ".join(chosen)} selects no image; expected files that end with '
                f'{", ".join(IMAGE_SUFFIXES)}. "ffmpeg -i clip.mp4 -r 1 frames/%06d.jpg" takes an image a '
                'second from a video.'
            )
        layout.images = sorted({*layout.images, *paths})
        layout.splits.update(dict.fromkeys(paths, name))
    return layout


def _find_pairs(root: Path, files: Sequence[str], patterns: Patterns) -> Layout:
    forced = {}
    for role, chosen in ((IMAGE, patterns.images), (MASK, patterns.masks)):
        forced.update(dict.fromkeys(select(root, files, chosen) if chosen else (), role))
    pool = sorted({*files, *forced})
    images, masks = _split_roles(root, [path for path in pool if is_image(path)], forced, patterns)
    layout = Layout('', images=images)
    layout.polygons, problems = find_polygons(root, _polygon_candidates(pool, forced, patterns), images)
    layout.problems += problems
    names = {path: parse_name(path) for path in (*images, *masks)}
    layout.masks = _match_families(layout, names, images, masks)
    # of two files with the same images, the one with more classes: key points of COCO have one
    ranked = sorted(layout.polygons, key=lambda part: len(part.labels))
    drawn = {image: part.path for part in ranked for image in part.images}
    unused = [part.path for part in ranked if part.images and part.path not in drawn.values()]
    if unused:
        layout.notes.append(
            f'{len(unused)} JSON files such as {unused[0]} are not used, because others have polygons of the '
            'same images; --masks names them instead.'
        )
    if drawn and (not layout.masks or any(forced.get(path) == MASK for path in drawn.values())):
        layout.masks = drawn
    elif drawn:
        layout.notes.append(
            f'{len(layout.polygons)} JSON files with polygons are not used, because there are masks; '
            '--masks names them instead.'
        )
    layout.splits = _splits(layout, names)
    layout.kind = _describe(layout)
    return layout


def _polygon_candidates(pool: Sequence[str], forced: dict[str, str], patterns: Patterns) -> list[str]:
    """Return the JSON files to look at: all, or those that --masks names."""
    found = [path for path in pool if path.lower().endswith('.json')]
    return [path for path in found if forced.get(path) == MASK] if patterns.masks else found


def _split_roles(
    root: Path, paths: Sequence[str], forced: dict[str, str], patterns: Patterns
) -> tuple[list[str], list[str]]:
    """Decide for each family of files whether they are images or masks."""
    families = defaultdict(list)
    names = {path: parse_name(path) for path in paths}
    for path, name in names.items():
        families[name.family].append(path)
    like_masks = {family: _look_like_masks(root, members) for family, members in families.items()}
    stems = {family: _stems([names[path] for path in members]) for family, members in families.items()}
    roles: dict[str, str] = {}
    for family, members in families.items():
        partners = [
            other
            for other in families
            if other != family
            and not like_masks[other]
            and any(
                2 * len(own & theirs) >= len(own)
                for own, theirs in zip(stems[family], stems[other], strict=True)
            )
        ]
        named = names[members[0]].role
        is_mask = named == MASK or (like_masks[family] and bool(partners))
        roles.update(dict.fromkeys(members, MASK if is_mask else IMAGE))
    for path in paths:
        role = roles[path]
        if patterns.masks and role == MASK:
            role = ''  # only those that the user names
        if patterns.images and role == IMAGE:
            role = ''
        roles[path] = forced.get(path, role)
    return [path for path in paths if roles[path] == IMAGE], [path for path in paths if roles[path] == MASK]


def _stems(names: Sequence[Name]) -> tuple[set[str], set[str]]:
    """Return the names of files, whole and without what all of them have in common."""
    whole = [name.key.rpartition('/')[2] for name in names]
    return set(whole), set(strip_common_ends(whole).values())


def _look_like_masks(root: Path, members: Sequence[str]) -> bool:
    """Whether most of some files have few colors, or almost only black and white."""
    chosen = members[:: max(len(members) // _SAMPLES, 1)][:_SAMPLES]
    votes = [looks_like_mask(root / path) for path in chosen]
    return sum(vote is True for vote in votes) > sum(vote is False for vote in votes)


def looks_like_mask(path: Path) -> bool | None:
    """Whether an image has few colors, or is almost black and white. None if it cannot be read.

    Args:
        path (Path): The image.
    """
    try:
        with Image.open(path) as image:
            if image.mode == '1':
                return True
            if image.getcolors(_MAX_COLORS) is not None:
                return True
            if image.mode != 'L':
                return False
            values = np.array(image.histogram())
            return bool(values[:16].sum() + values[240:].sum() > 0.8 * values.sum() and values[240:].sum())
    except READ_ERRORS:
        return None


def _match_families(
    layout: Layout, names: dict[str, Name], images: Sequence[str], masks: Sequence[str]
) -> dict[str, str]:
    """Match masks with images, and choose one family of masks if several fit the same images."""
    families = defaultdict(list)
    for path in masks:
        families[names[path].family].append(path)
    # several families can cover different images: a family is used if no better one has the same images
    found: dict[str, str] = {}
    used: list[str] = []
    unused: list[str] = []
    ranked = sorted(families.items(), key=lambda item: (_rank(item[0]), -len(item[1]), item[0]))
    for _, members in ranked:
        pairs = match(names, images, members)
        new = {image: mask for image, mask in pairs.items() if image not in found}
        if pairs and len(new) < len(pairs) / 2:
            layout.notes.append(
                f'{len(pairs)} masks in {_place(members)} are not used, because {_place(used)} has masks of '
                'the same images; --masks names them instead.'
            )
            continue
        found |= new
        used += members if pairs else []
        single = sorted(set(members) - set(pairs.values()))
        if not pairs and found:
            unused += members
            continue
        layout.problems += [Problem(path, 'is a mask without an image') for path in single]
    if unused:
        layout.notes.append(f'{len(unused)} files such as {unused[0]} fit no image and are not used.')
    return found


def _rank(family: str) -> int:
    words = [index for index, word in enumerate(_PREFERRED) if word in family]
    return min(words, default=len(_PREFERRED))


def _place(paths: Sequence[str]) -> str:
    folders = Counter(path.rpartition('/')[0].split('/')[0] or '.' for path in paths)
    return folders.most_common(1)[0][0] if folders else 'another folder'


def _splits(layout: Layout, names: dict[str, Name]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for image in layout.images:
        mask = layout.masks.get(image)
        own = names[image].split or (names[mask].split if mask in names else None)
        if own in ('val', 'test') or (own == 'unlabeled' and mask is None):
            splits[image] = str(own)
    return splits


def _describe(layout: Layout) -> str:
    if (
        layout.polygons
        and layout.masks
        and any(p.path in set(layout.masks.values()) for p in layout.polygons)
    ):
        return f'images, and polygons in {layout.polygons[0].form} files'
    if not layout.masks:
        return 'images without masks'
    same = sum(_folder(image) == _folder(mask) for image, mask in layout.masks.items())
    if 2 * same > len(layout.masks):
        return 'images and masks in the same folders'
    return f'images in {_tops(layout.masks)}, masks in {_tops(layout.masks.values())}'


def _folder(path: str) -> str:
    return path.rpartition('/')[0]


def _tops(paths: Iterable[str]) -> str:
    folders = sorted({_folder(path) or '.' for path in paths})
    tops = sorted({folder.split('/')[0] for folder in folders})
    shown = folders if len(folders) <= 2 else tops
    return ', '.join(shown[:3]) + (', ...' if len(shown) > 3 else '')
