"""The content of the sheet, for the picture and for the page: cells with captions, and a table of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..pseudo_label import IGNORE_INDEX
from .draws import Draw, Stream, View
from .numbers import ViewNumbers

FRAME = (0, 215, 255)  # BGR, the frame of a crop
_HATCH = 8  # pixels between two lines


@dataclass
class Cell:
    """One picture with its caption.

    Attributes:
        picture (np.ndarray): (H, W, 3) uint8 RGB.
        lines (list[str]): The caption.
    """

    picture: np.ndarray
    lines: list[str]


@dataclass
class Section:
    """One stream.

    Attributes:
        title (str): Name and number of images.
        heads (list[str]): Title of each column.
        rows (list[list[Cell]]): The cells of each image.
        table (list[list[str]]): Numbers of the views; the first row has the titles.
    """

    title: str
    heads: list[str]
    rows: list[list[Cell]]
    table: list[list[str]]


def make_section(
    stream: Stream,
    draws: Sequence[Draw],
    numbers: Sequence[ViewNumbers],
    classes: Sequence[str],
    palette: Sequence,
) -> Section:
    """Arrange the draws of a stream.

    Args:
        stream (Stream): The stream.
        draws (Sequence[Draw]): The draws to show.
        numbers (Sequence[ViewNumbers]): The numbers of its views.
        classes (Sequence[str]): Names of the K classes.
        palette (Sequence): (K, 3) RGB colors.

    Returns:
        Section: The section.
    """
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(classes)] = np.asarray(palette, np.uint8)[:, ::-1]
    heads, rows = ['as loaded'], []
    for draw in draws:
        cells = [Cell(_rgb(frame_crops(draw)), [draw.name, f'{draw.bare.shape[1]} x {draw.bare.shape[0]}'])]
        for view in draw.views:
            cells.append(Cell(_rgb(paint(view, colors, labels=False)), view.describe()))
            if stream.has_labels and view.mask is not None:
                cells.append(Cell(_rgb(paint(view, colors, labels=True)), [_present(view, classes)]))
        rows.append(cells)
    for view in draws[0].views if draws else []:
        heads.append(view.name)
        if stream.has_labels and view.mask is not None:
            heads.append(f'{view.name}, mask')
    title = f'{stream.name}: {len(stream.indices)} images'
    return Section(title, heads, rows, _table(numbers, classes, stream.has_labels))


def frame_crops(draw: Draw) -> np.ndarray:
    """Draw the frames of the crops into the bare image.

    Args:
        draw (Draw): The draw. Views whose transforms tell ``crop_box`` and ``scale`` have a frame.

    Returns:
        np.ndarray: (H, W, 3) uint8 BGR, a copy.
    """
    picture = draw.bare.copy()
    height, width = picture.shape[:2]
    for view in draw.views:
        meta = view.sample.metainfo
        if meta.get('crop_box') is not None and meta.get('scale') is not None:
            top, left, rows, columns = meta['crop_box']
            across, down = width / meta['scale'][0], height / meta['scale'][1]
            corners = [(left * across, top * down), ((left + columns) * across, (top + rows) * down)]
            first, last = ((round(x), round(y)) for x, y in corners)
            cv2.rectangle(picture, first, last, FRAME, max(round(max(height, width) / 150), 1))
    return picture


def paint(view: View, colors: np.ndarray, labels: bool) -> np.ndarray:
    """Draw the map of a view over its picture: classes in half of their color, ignored pixels hatched.

    Args:
        view (View): The view.
        colors (np.ndarray): (256, 3) uint8 BGR, the color of each label.
        labels (bool): Draw the classes. Otherwise only ignored pixels are marked.

    Returns:
        np.ndarray: (H, W, 3) uint8 BGR, a copy.
    """
    picture = view.picture.copy()
    if view.mask is None:
        return picture
    # validation images are resized before the mask is loaded: the prediction is resized to the mask
    size = (picture.shape[1], picture.shape[0])
    mask = cv2.resize(view.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    if labels:
        picture = cv2.addWeighted(picture, 0.5, colors[mask], 0.5, 0)
    ignored = mask == IGNORE_INDEX
    diagonals = np.add.outer(np.arange(mask.shape[0]), np.arange(mask.shape[1]))
    picture[ignored] //= 2
    picture[ignored & (diagonals % _HATCH == 0)] = 200
    return picture


def _rgb(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture[..., ::-1])


def _present(view: View, classes: Sequence[str]) -> str:
    labels = [] if view.mask is None else np.unique(view.mask).tolist()
    names = [classes[label] for label in labels if label < len(classes)]
    return ', '.join(names) or 'no label'


def _table(numbers: Sequence[ViewNumbers], classes: Sequence[str], has_labels: bool) -> list[list[str]]:
    shown = list(classes) if has_labels else []
    titles = [
        'view',
        'batch',
        'normalized range',
        'mean',
        'std',
        'ignored' if has_labels else 'padding',
        *shown,
    ]
    table = [titles]
    for entry in numbers:
        sizes = sorted(entry.sizes)
        size = f'{sizes[0][1]} x {sizes[0][0]}' + (f' and {len(sizes) - 1} more' if len(sizes) > 1 else '')
        shares = [f'{share:.2f} %' for share in entry.class_share] if has_labels else []
        known = f'{entry.ignored_share:.1f} %' if entry.pixels else 'no map'
        moments = [f'{entry.low:.2f} to {entry.high:.2f}', f'{entry.mean:.2f}', f'{entry.std:.2f}']
        table.append([entry.name, size, *moments, known, *shares])
    return table
