"""Tables of colors and classes: given, found in the data, or made from the colors of masks."""

import colorsys
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..pseudo_label import IGNORE_INDEX

Color = tuple[int, int, int]

_TABLE_FILES = ('label_colors.txt', 'labelmap.txt', 'class_dict.csv', 'class_dict_seg.csv', 'colors.txt')
_CLASS_FILES = ('classes.txt', 'class_names.txt', 'labels.txt')
_IGNORED_NAMES = ('void', 'ignore', 'ignored', 'unlabeled', '__ignore__')
_LEAST_SHARE = 1e-4  # of the pixels; rarer colors are those of smoothed edges
_FEW, _VERY_FEW = 64, 16  # smoothed edges make more colors
_NEAR = 40  # distance in RGB up to which a rare color is a damaged frequent one
_NAMED = {
    'black': (0, 0, 0), 'white': (255, 255, 255), 'red': (255, 0, 0), 'green': (0, 255, 0),
    'blue': (0, 0, 255), 'yellow': (255, 255, 0), 'cyan': (0, 255, 255),
    'magenta': (255, 0, 255), 'gray': (128, 128, 128),
}  # fmt: skip
# the first colors are easy to tell apart on photographs; class 0 is often the background
_PALETTE: list[Color] = [
    (0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180),
    (70, 240, 240), (240, 50, 230), (170, 255, 195), (170, 110, 40), (250, 190, 212), (0, 128, 128),
    (220, 190, 255), (128, 0, 0), (255, 250, 200), (128, 128, 0), (255, 215, 180), (0, 0, 128),
    (128, 128, 128),
]  # fmt: skip


class ColorTable(NamedTuple):
    """Colors of classes.

    Attributes:
        names (list[str]): The classes.
        colors (list[tuple]): The color of each class, 0..255.
        ignored (list[tuple]): Colors of pixels without a class.
    """

    names: list[str]
    colors: list[Color]
    ignored: list[Color]


def default_palette(count: int) -> list[Color]:
    """Return different colors for classes.

    Args:
        count (int): Number of classes.

    Returns:
        list[tuple]: RGB, 0..255; black is the first.
    """
    more = []
    for index in range(len(_PALETTE), count):
        hue, value = (index * 0.618034) % 1, 1 - 0.4 * (index % 2)  # the golden ratio spreads the hues
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (index % 3 == 0), value)
        more.append((int(255 * red), int(255 * green), int(255 * blue)))
    return (_PALETTE + more)[:count]


def read_table(path: Path) -> ColorTable:
    """Read a table of colors.

    Args:
        path (Path): JSON ``{"road": [128, 64, 128]}``, or text with one class per line: three numbers and a
            name in any order, separated by spaces, tabs, commas or colons (CamVid, CVAT and CSV files do).
            Lines without three numbers are skipped. Classes named void or ignore are ignored pixels.

    Returns:
        ColorTable: The classes.

    Raises:
        ValueError: The file has no color, or a number is not in 0..255.
    """
    text = path.read_text(encoding='utf-8-sig')
    rows: list[tuple[str, Color]] = []
    if path.suffix.lower() == '.json':
        rows = [(str(name), _color(path, color)) for name, color in json.loads(text).items()]
    else:
        for line in text.splitlines():
            parts = [part for part in re.split(r'[\s,;:]+', line.partition('#')[0].strip()) if part]
            numbers = [part for part in parts if part.isdigit()]
            name = ' '.join(part for part in parts if not part.isdigit())
            if len(numbers) >= 3 and name:
                rows.append((name, _color(path, numbers[-3:])))
    if not rows:
        raise ValueError(
            f'{path} has no colors; expected one class per line, for example "road 128 64 128", or JSON '
            '{"road": [128, 64, 128]}.'
        )
    kept = [(name, color) for name, color in rows if name.lower() not in _IGNORED_NAMES]
    ignored = [color for name, color in rows if name.lower() in _IGNORED_NAMES]
    return ColorTable([name for name, _ in kept], [color for _, color in kept], ignored)


def _color(path: Path, values: Sequence) -> Color:
    numbers = [int(value) for value in values]
    if len(numbers) != 3 or not all(0 <= number <= 255 for number in numbers):
        raise ValueError(f'{path}: the color {list(values)} is not three numbers from 0 to 255.')
    return numbers[0], numbers[1], numbers[2]


def find_table(root: Path, files: Sequence[str]) -> Path | None:
    """Find a table of colors in the data, by its usual names; the one nearest to the top."""
    found = [path for path in files if path.rpartition('/')[2].lower() in _TABLE_FILES]
    return root / min(found, key=lambda path: path.count('/')) if found else None


def find_class_names(root: Path, files: Sequence[str]) -> list[str]:
    """Read ``classes.txt`` or a file of a similar name in the top folder: one class per line, or none.

    ``_classes.csv`` of Roboflow, in any folder, has lines such as ``1, road``.
    """
    tables = [name for name in files if name.rpartition('/')[2] == '_classes.csv']
    if tables:
        rows = re.findall(
            r'^ *(\d+) *, *(.+?) *$', (root / tables[0]).read_text(encoding='utf-8-sig'), re.MULTILINE
        )
        names = {int(number): name for number, name in rows}
        return [names.get(number, f'class_{number}') for number in range(max(names, default=-1) + 1)]
    found = [name for name in _CLASS_FILES if name in files]
    if not found:
        return []
    lines = (root / found[0]).read_text(encoding='utf-8-sig').splitlines()
    return [re.sub(r'^\d+[\s:,]+', '', line.strip()) for line in lines if line.strip()]


def frequent_colors(counts: Mapping[Color, int], exact: bool) -> tuple[list[Color], dict[Color, Color]]:
    """Return the colors that are classes, the most frequent first, without those of smoothed edges.

    Args:
        counts (Mapping): Color -> pixels in all masks.
        exact (bool): The masks were stored without loss. If they have at most 64 colors, each frequent one is
            a class, also if it is near another one; of at most 16 colors, each one is.

    Returns:
        tuple[list[tuple], dict[tuple, tuple]]: At most 254 colors, and the frequent colors that are taken for
        one of these.
    """
    exact, every = exact and len(counts) <= _FEW, exact and len(counts) <= _VERY_FEW
    taken: dict[Color, Color] = {}
    total = sum(counts.values())
    kept: list[Color] = []
    for color, count in Counter(counts).most_common():
        if (count < _LEAST_SHARE * total and not every) or len(kept) == 254:
            break
        near = [other for other in kept if _distance(color, other) < _NEAR and 20 * count < counts[other]]
        if near and not exact:
            taken[color] = near[0]
        else:
            kept.append(color)
    return kept, taken


def _distance(color: Color, other: Color) -> float:
    return float(np.linalg.norm(np.subtract(color, other)))


def color_name(color: Color) -> str:
    """Name a class after its color: ``red``, or ``color_128_64_0``."""
    names = [name for name, value in _NAMED.items() if value == color]
    return names[0] if names else 'color_{}_{}_{}'.format(*color)


def colors_to_classes(pixels: np.ndarray, table: ColorTable, *, nearest: bool) -> np.ndarray:
    """Map colors to class numbers.

    Args:
        pixels (np.ndarray): uint8 (H, W, 3), RGB.
        table (ColorTable): The colors.
        nearest (bool): Whether a color that is not in the table is that of the nearest class, up to a
            distance of 40; otherwise, and if it is farther, it is ignored.

    Returns:
        np.ndarray: uint8 (H, W), 255 for ignored pixels.
    """
    known = [*table.colors, *table.ignored]
    numbers = np.array([*range(len(table.colors)), *[IGNORE_INDEX] * len(table.ignored)], np.uint8)
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    found, inverse = np.unique(packed, return_inverse=True)
    values = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.float32)
    labels = np.full(len(found), IGNORE_INDEX, np.uint8)
    limit = _NEAR if nearest else 0
    for start in range(0, len(found), 4096):
        difference = values[start : start + 4096, None] - np.array(known, np.float32)[None]
        distance = np.linalg.norm(difference, axis=2)
        best = distance.argmin(axis=1)
        near = distance.min(axis=1) <= limit
        labels[start : start + 4096][near] = numbers[best[near]]
    return labels[inverse].reshape(pixels.shape[:2])
