"""The form of masks: class numbers, 0 and 255, soft gray, gray levels, palette, colors, or one bit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..pseudo_label import IGNORE_INDEX
from ..utils import join_first
from .colors import Color, ColorTable, color_name, colors_to_classes, frequent_colors

_LOSSY = ('.jpg', '.jpeg')
_MAX_LEVELS = 6  # masks with more gray values, most of them near 0 and 255, have soft edges
_BRIGHT = 192
_THRESHOLD = 128
_DENSE = 0.5  # class numbers without 255 use at least this share of 0..max, if the maximum is large


@dataclass
class MaskForm:
    """How the masks of one folder become class numbers.

    Attributes:
        kind (str): ``'numbers'``, ``'binary'``, ``'soft'``, ``'levels'``, ``'shifted'`` or ``'colors'``.
        table (list[int]): Class number of each value 0..255, for masks of one channel.
        colors (ColorTable, optional): Colors of the classes, for masks of three channels.
        nearest (bool): Whether a color between those of the table is the nearest one.
        names (list[str]): Names of the classes if the form has some.
        palette (list): Colors of the classes if the form has some.
        text (str): The form in words.
        levels (list[int]): Instead of ``table``: the value of each class, ascending. A value between two of
            them is the nearest one.
    """

    kind: str
    table: list[int] = field(default_factory=list)
    colors: ColorTable | None = None
    nearest: bool = False
    names: list[str] = field(default_factory=list)
    palette: list[Color] = field(default_factory=list)
    text: str = ''
    levels: list[int] = field(default_factory=list)

    def counts(self, facts: Mapping) -> np.ndarray | None:
        """Count the pixels of each class from the facts of a mask, without reading it again.

        Args:
            facts (Mapping): From :func:`read_mask_facts`.

        Returns:
            np.ndarray or None: int64 (256,); None if the pixels must be read.
        """
        result = np.zeros(256, np.int64)
        if self.colors is None:
            if 'values' not in facts:
                return None
            values, counts = np.array(facts['values'], np.int64).reshape(-1, 2).T
            np.add.at(result, self._numbers(values), counts)
            return result
        if 'colors' not in facts and 'values' not in facts:
            return None
        rows = facts.get('colors') or [[value] * 3 + [count] for value, count in facts['values']]
        pixels = np.array([row[:3] for row in rows], np.uint8)[None]
        labels = colors_to_classes(pixels, self.colors, nearest=self.nearest)[0]
        np.add.at(result, labels, [row[3] for row in rows])
        return result

    def decode(self, path: Path) -> np.ndarray:
        """Read a mask as class numbers.

        Args:
            path (Path): The mask.

        Returns:
            np.ndarray: uint8 (H, W), 255 for ignored pixels.
        """
        with Image.open(path) as image:
            if self.colors is not None:
                return colors_to_classes(np.asarray(image.convert('RGB')), self.colors, nearest=self.nearest)
            values = np.asarray(
                image if image.mode in ('1', 'L', 'P') or image.mode[0] in 'IF' else image.getchannel(0)
            )
        return self._numbers(values.astype(np.int64))

    def _numbers(self, values: np.ndarray) -> np.ndarray:
        """Return the class number of each value of a mask of one channel."""
        if self.levels:
            borders = (np.array(self.levels[1:]) + np.array(self.levels[:-1])) / 2
            return np.searchsorted(borders, values).astype(np.uint8)
        return np.array(self.table, np.uint8)[values.clip(0, 255)]

    def needs_conversion(self, mode: str) -> bool:
        """Whether a mask must be converted: its values are not the class numbers, or it is not one byte.

        Args:
            mode (str): Mode of the file in Pillow.
        """
        return self.kind != 'numbers' or mode not in ('L', 'P')


# label ids of Cityscapes whose train ids are 0..18
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def cityscapes_ids() -> MaskForm:
    """Return the form of Cityscapes' ``labelIds``: 19 of the ids become train ids, the others are ignored."""
    table = [_CITYSCAPES.index(value) if value in _CITYSCAPES else IGNORE_INDEX for value in range(256)]
    return MaskForm('cityscapes', table, text='label ids of Cityscapes, which become the train ids 0..18')


def recognize(
    facts: Sequence[Mapping], table: ColorTable | None, threshold: int | None, binary_elsewhere: bool
) -> MaskForm:
    """Recognize the form of the masks of one folder.

    Args:
        facts (Sequence[Mapping]): From :func:`read_mask_facts`, of all its masks.
        table (ColorTable, optional): Colors that the user gives.
        threshold (int, optional): Gray values from here on are class 1.
        binary_elsewhere (bool): Whether the masks of another folder hold exactly the classes 0 and 1, so that
            0 and 255 here are these classes, too.

    Returns:
        MaskForm: How to decode them.
    """
    if any('colors' in fact for fact in facts):
        return _colored(facts, table)
    counts: Counter[int] = Counter()
    for fact in facts:
        counts.update(dict(fact['values']))
    values = sorted(counts)
    if table is not None and all(fact['mode'] != 'P' for fact in facts):
        # masks of class numbers can have a table, too, in which 1, 1, 1 is no color
        grays = {(value, value, value) for value in values} - {(0, 0, 0)}
        if not grays or grays & {*table.colors, *table.ignored}:
            return _colored(facts, table)
    palettes = [fact['palette'] for fact in facts if 'palette' in fact]
    form = _gray(values, counts, threshold, binary_elsewhere, bool(palettes))
    if {fact['mode'] for fact in facts} == {'1'}:
        form.text = 'one bit per pixel'
    if palettes and form.kind == 'numbers':
        form.text = f'palette images, {form.text}'
        highest = max([value for value in values if value != IGNORE_INDEX], default=0)
        if highest < len(palettes[0]):
            red_green_blue = [(color[0], color[1], color[2]) for color in palettes[0][: highest + 1]]
            form.palette = red_green_blue if len(set(red_green_blue)) == len(red_green_blue) else []
    return form


def _gray(
    values: list[int], counts: Mapping[int, int], threshold: int | None, binary_elsewhere: bool, palette: bool
) -> MaskForm:
    """Recognize masks of one channel from the values of all of them."""
    classes = [value for value in values if value != IGNORE_INDEX]
    if threshold is not None and (values[-1] > 1 or len(values) > 2):
        return _binary('soft', threshold, f'gray values, {threshold} and more are class 1')
    if values == [0, 255] or (binary_elsewhere and values == [255]):
        return _binary('binary', _THRESHOLD, 'values 0 and 255, 255 is class 1')
    if values[-1:] > [255]:
        return _deep(values, counts)
    dense = len(classes) >= _DENSE * (classes[-1] + 1) if classes else True
    # class numbers are small: values from 192 on, besides 255, are those of a soft edge
    smooth = len(classes) > _MAX_LEVELS and classes[-1] >= _BRIGHT and _is_bimodal(counts)
    if not palette and (smooth or (len(classes) > 128 and classes[-1] > 200)):
        return _binary('soft', _THRESHOLD, f'gray values with soft edges, {_THRESHOLD} and more are class 1')
    if classes and classes[0] == 1 and len(classes) > 1 and classes[-1] < 64:
        table = [IGNORE_INDEX, *range(254), IGNORE_INDEX]
        return MaskForm('shifted', table, text=f'class numbers 1..{classes[-1]}, 1 becomes 0 (no pixel is 0)')
    if classes and classes[-1] >= 64 and not dense and not palette:
        return _levels(values)
    top = classes[-1] if classes else 0
    ignored = ', 255 is ignored' if 255 in values else ''
    return MaskForm('numbers', list(range(256)), text=f'class numbers 0..{top}{ignored}')


def _is_bimodal(counts: Mapping[int, int]) -> bool:
    """Whether most pixels are near 0 or near the largest value."""
    top = max(255, *counts)
    ends = sum(count for value, count in counts.items() if value < top / 8 or value > top * 7 / 8)
    return ends > 0.8 * sum(counts.values())


def _deep(values: list[int], counts: Mapping[int, int]) -> MaskForm:
    """Recognize masks of 16 or 32 bits with values above 255."""
    if len(values) <= _MAX_LEVELS or not _is_bimodal(counts):
        return _levels(values)
    form = _binary('soft', 0, 'gray values with soft edges, the upper half of them are class 1')
    form.levels = [values[0], values[-1]]
    return form


def _binary(kind: str, threshold: int, text: str) -> MaskForm:
    table = [int(value >= threshold) for value in range(256)]
    return MaskForm(kind, table, names=['background', 'foreground'], text=text)


def _levels(values: list[int]) -> MaskForm:
    if len(values) > IGNORE_INDEX:
        raise ValueError(
            f'The masks hold {len(values)} different values from {values[0]} to {values[-1]}, such as the '
            f'numbers of objects; expected the numbers of at most {IGNORE_INDEX} classes. --masks names '
            'other files.'
        )
    text = f'gray levels {", ".join(map(str, values[:8]))}{", ..." if len(values) > 8 else ""}, in this order'
    return MaskForm('levels', levels=values, names=[f'gray_{value}' for value in values], text=text)


def _colored(facts: Sequence[Mapping], table: ColorTable | None) -> MaskForm:
    lossy = any(fact['lossy'] for fact in facts)
    if table is not None:
        text = f'RGB colors of the table ({len(table.names)} classes)'
        return MaskForm('colors', [], table, lossy, list(table.names), list(table.colors), text)
    counts: Counter[Color] = Counter()
    for fact in facts:
        for red, green, blue, count in fact.get('colors') or [[v, v, v, n] for v, n in fact['values']]:
            counts[red, green, blue] += count
    colors, taken = frequent_colors(counts, exact=not lossy)
    total = sum(counts.values())
    names = [color_name(color) for color in colors]
    shares = [f'{color} {counts[color] / total:.1%}' for color in colors]
    text = f'RGB colors; by frequency: {"; ".join(shares)}. --colors TABLE names them and their order'
    if taken:
        pairs = [f'{color} ({counts[color] / total:.2%}) for {other}' for color, other in taken.items()]
        text += f'. Without a table, these are taken for a color near them: {join_first(pairs)}'
    rare = [color for color, _ in counts.most_common() if color not in colors and color not in taken]
    if rare and not lossy:
        text += f'. {len(rare)} colors are too rare for classes, such as {join_first(rare, limit=2)}'
    return MaskForm('colors', [], ColorTable(names, colors, []), True, names, colors, text)


def refuse_damaged_colors(forms: Mapping[str, MaskForm]) -> None:
    """Refuse colors of JPEG files without a table.

    Args:
        forms (Mapping): Mask -> form, recognized without a table.

    Raises:
        ValueError: A mask of colors is a JPEG file.
    """
    damaged = [mask for mask, form in forms.items() if form.colors and mask.lower().endswith(_LOSSY)]
    if damaged:
        found = len(forms[damaged[0]].names)
        raise ValueError(
            f'{len(damaged)} masks such as {damaged[0]} are JPEG files, which damage colors: {found} colors '
            'were found. Export the masks as PNG, or name the colors of the classes with --colors.'
        )


def describe_other_colors(forms: Mapping[str, MaskForm], facts: Mapping[str, dict]) -> str | None:
    """Say which colors a table lacks.

    Args:
        forms (Mapping): Mask -> form, recognized with the table.
        facts (Mapping): Mask -> facts.

    Returns:
        str, optional: The most frequent ones, with their share of the pixels; None if there is none.
    """
    others: Counter[Color] = Counter()
    total = 0
    for mask, form in forms.items():
        if form.colors is None or form.nearest:
            continue
        known = {*form.colors.colors, *form.colors.ignored}
        for *color, count in facts[mask].get('colors', ()):
            total += count
            if tuple(color) not in known:
                others[color[0], color[1], color[2]] += count
    frequent = [(color, count / total) for color, count in others.most_common(5) if count > total / 1000]
    text = ', '.join(f'{color} {share:.1%}' for color, share in frequent)
    return f'colors that are not in the table are ignored: {text} of the pixels' if frequent else None
