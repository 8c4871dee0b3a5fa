"""The masks of a layout as class numbers, with their classes and colors."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmseg.utils import get_classes, get_palette

from ..pseudo_label import IGNORE_INDEX
from .colors import Color, ColorTable, default_palette, find_class_names
from .convert import Job, convert_masks, target_of
from .files import Cache, Problem
from .layouts import Layout
from .mask_facts import read_mask_facts
from .mask_forms import (
    MaskForm,
    cityscapes_ids,
    describe_other_colors,
    recognize,
    refuse_damaged_colors,
)
from .polygons import class_names, draw
from .roles import parse_name

_MAX_CLASSES = 255


@dataclass
class Options:
    """What the user says about masks.

    Attributes:
        classes (list[str]): Names of the classes 0..K-1; empty if unknown.
        table (ColorTable, optional): Colors of the classes.
        threshold (int, optional): Gray values from here on are class 1.
        empty (str): The use of images without polygons, and of images whose mask has only class 0:
            ``'background'`` or ``'unlabeled'``.
        accept_drafts (bool): Add also masks that are still as ``suggest`` drew them.
    """

    classes: list[str] = field(default_factory=list)
    table: ColorTable | None = None
    threshold: int | None = None
    empty: str = 'background'
    accept_drafts: bool = False


@dataclass
class Labels:
    """The masks as class numbers.

    Attributes:
        masks (dict[str, str]): Image -> mask with class numbers, relative to the data.
        counts (dict[str, np.ndarray]): Image -> pixels of each class, int64 (256,).
        classes (list[str]): Names of the classes.
        palette (list): RGB of the classes.
        texts (list[str]): The form of the masks in words, one line for each form.
        problems (list[Problem]): Masks that cannot be used.
        jobs (list[Job]): Masks to convert.
    """

    masks: dict[str, str] = field(default_factory=dict)
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    palette: list[Color] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)


def understand_masks(
    root: Path,
    files: Sequence[str],
    layout: Layout,
    images: Mapping[str, dict],
    options: Options,
    cache: Cache,
) -> Labels:
    """Recognize form, classes and damage of all masks. Nothing is written but the cache.

    Args:
        root (Path): The data.
        files (Sequence[str]): All files below it.
        layout (Layout): The pairs of images and masks.
        images (Mapping[str, dict]): Facts of the usable images.
        options (Options): What the user says.
        cache (Cache): Results of earlier runs.

    Returns:
        Labels: The masks; ``jobs`` are the ones to convert, which :func:`convert` does.

    Raises:
        ValueError: The classes do not fit the masks.
    """
    pairs = {image: mask for image, mask in layout.masks.items() if image in images}
    drawn = {image: mask for image, mask in pairs.items() if mask.lower().endswith('.json')}
    pixels = {image: mask for image, mask in pairs.items() if image not in drawn}
    labels = Labels()
    if drawn:
        _add_polygons(labels, layout, drawn, images, options)
    if pixels:
        facts = cache.map(
            lambda path: read_mask_facts(root / path),
            root,
            sorted(set(pixels.values())),
            'mask',
            'reading masks',
        )
        pixels = _usable(labels, pixels, facts, images)
        _add_pixels(root, files, labels, layout, pixels, facts, options)
    return labels


def convert(root: Path, labels: Labels) -> None:
    """Write the masks of another form to ``.allspark/masks``.

    Args:
        root (Path): The data.
        labels (Labels): Changed in place: masks without a labeled pixel become problems.
    """
    labels.counts.update(convert_masks(root, labels.jobs))
    for image in list(labels.masks):
        if not labels.counts[image][:_MAX_CLASSES].any():
            labels.problems.append(Problem(labels.masks.pop(image), 'has no labeled pixel'))
            del labels.counts[image]


def _add_polygons(
    labels: Labels, layout: Layout, drawn: Mapping[str, str], images: Mapping[str, dict], options: Options
) -> None:
    by_path = {part.path: part for part in layout.polygons}
    used = [by_path[path] for path in dict.fromkeys(drawn.values())]
    labels.classes = class_names(used, options.classes)
    table = options.table
    if table is not None and set(labels.classes) <= set(table.names):
        labels.palette = [table.colors[table.names.index(name)] for name in labels.classes]
    outside = 'background' if labels.classes[0] == 'background' else 'ignored'
    forms = ' and '.join(sorted({part.form for part in used}))
    labels.texts.append(
        f'polygons of {forms}: {len(labels.classes)} classes; pixels without polygon are {outside}'
    )
    empty = [image for image, path in drawn.items() if not by_path[path].images[image]]
    if empty and options.empty == 'unlabeled':
        drawn = {image: path for image, path in drawn.items() if image not in empty}
        labels.texts.append(f'{len(empty)} images in the files of polygons have no polygon: unlabeled')
        for image in empty:
            del layout.masks[image]
    elif empty:
        labels.texts.append(
            f'{len(empty)} images in the files of polygons have no polygon, so they are all {outside}; if '
            'they are not annotated yet, --empty unlabeled makes them unlabeled'
        )
    for image, path in drawn.items():
        shapes, size = by_path[path].images[image], images[image]['size']
        signature = json.dumps([shapes, size, labels.classes])
        labels.jobs.append(
            Job(image, path, lambda s=shapes, n=size: draw(s, (n[0], n[1]), labels.classes), signature)  # type: ignore[misc]
        )
        labels.masks[image] = target_of(image)
    labels.palette = labels.palette or default_palette(len(labels.classes))


def _usable(
    labels: Labels, pairs: Mapping[str, str], facts: Mapping[str, dict], images: Mapping[str, dict]
) -> dict[str, str]:
    """Leave out masks that are damaged or have another size than their image."""
    kept = {}
    for image, mask in pairs.items():
        fact, size = facts[mask], images[image]['size']
        if 'error' in fact:
            labels.problems.append(Problem(mask, fact['error']))
        elif fact['size'] != size:
            hint = ''
            if images[image]['rotated'] and fact['size'] == size[::-1]:
                hint = '; the EXIF tag of the image rotates it, so save it without this tag'
            text = 'has {} x {} pixels, its image {} x {}'.format(*fact['size'], *size)
            labels.problems.append(Problem(mask, text + hint))
        else:
            kept[image] = mask
    return kept


def _add_pixels(
    root: Path,
    files: Sequence[str],
    labels: Labels,
    layout: Layout,
    pairs: Mapping[str, str],
    facts: Mapping[str, dict],
    options: Options,
) -> None:
    forms = _forms(pairs.values(), facts, options)
    for image, mask in pairs.items():
        form = forms[mask]
        counts = form.counts(facts[mask])
        labels.masks[image] = mask
        if form.needs_conversion(facts[mask]['mode']) or counts is None:
            signature = json.dumps([form.kind, form.table, form.levels, form.colors, form.nearest])
            job = Job(image, mask, lambda f=form, m=mask: f.decode(root / m), signature)  # type: ignore[misc]
            labels.jobs.append(job)
            labels.masks[image] = target_of(image)
        if counts is not None:
            labels.counts[image] = counts
    by_text = defaultdict(list)
    for mask, form in forms.items():
        by_text[form.text].append(mask)
    labels.texts += [f'{text} ({len(masks)} masks)' for text, masks in by_text.items()]
    if options.table is None:
        refuse_damaged_colors(forms)
    elif others := describe_other_colors(forms, facts):
        labels.texts.append(others)
    found = np.flatnonzero(sum(labels.counts[image] for image in pairs) if pairs else [])
    top = int(max((number for number in found if number != IGNORE_INDEX), default=0))
    _name_classes(labels, root, files, layout, list(forms.values()), top, options)


def _forms(masks: Iterable[str], facts: Mapping[str, dict], options: Options) -> dict[str, MaskForm]:
    """Recognize the forms. Masks of one kind are looked at together, because each has few classes."""
    families = defaultdict(list)
    for mask in sorted(set(masks)):
        name = parse_name(mask)
        families[name.family, name.split].append(mask)
    values = {
        key: {row[0] for mask in members for row in facts[mask].get('values', [[-1]])}
        for key, members in families.items()
    }
    zero_one = any(found == {0, 1} for found in values.values())
    groups: dict[str, list[str]] = defaultdict(list)
    for key, members in families.items():
        alone = zero_one and values[key] in ({0, 255}, {255})
        groups['0/255' if alone else 'colors' if -1 in values[key] else 'values'] += members
    forms = {}
    for kind, members in groups.items():
        rows = [facts[mask] for mask in members]
        if all(mask.endswith('_labelIds.png') for mask in members):
            form = cityscapes_ids()
        else:
            form = recognize(rows, options.table, options.threshold, kind == '0/255')
        forms.update(dict.fromkeys(members, form))
    return forms


def _name_classes(
    labels: Labels,
    root: Path,
    files: Sequence[str],
    layout: Layout,
    forms: Sequence[MaskForm],
    top: int,
    options: Options,
) -> None:
    """Choose names and colors of the classes."""
    names, palette = list(options.classes), []
    form = forms[0] if forms else MaskForm('numbers')
    listed = find_class_names(root, files)
    if options.table is not None:
        names, palette = names or options.table.names, options.table.colors
    elif form.names:
        names, palette = names or form.names, form.palette
    elif not names and len(listed) > top:
        names = listed
    elif not names and (known := _known(layout, files, top)):
        names, palette = get_classes(known), [tuple(color) for color in get_palette(known)]
    names = names or [f'class_{number}' for number in range(max(top + 1, len(form.palette), 2))]
    if len(names) <= top:
        raise ValueError(
            f'The masks hold the classes 0..{top}, but there are {len(names)} names: {names}. Give '
            f'{top + 1} names with --classes, in the order of the numbers.'
        )
    palette = palette or form.palette
    labels.classes = names
    labels.palette = palette if len(palette) == len(names) else default_palette(len(names))


def _known(layout: Layout, files: Sequence[str], top: int) -> str | None:
    """Return the name in MMSegmentation of a data set whose class numbers are known."""
    if layout.kind.startswith('Pascal VOC') and top < 21:
        return 'voc'
    if top < 19 and any(
        mask.endswith(('labelTrainIds.png', '_labelIds.png')) for mask in layout.masks.values()
    ):
        return 'cityscapes'
    return None
