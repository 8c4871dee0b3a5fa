"""Draws a contact sheet: a grid of images and label maps with titles and a legend.

MMSegmentation's SegLocalVisualizer draws one sample of one model at a time, with the labels blended over the
image, and without titles, legend or grid.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

IGNORE_INDEX = 255
IGNORE_COLOR = (200, 200, 200)
CELL_WIDTH = 176
GAP = 8
TEXT_SIZE = 14
LINE_HEIGHT = 18
SWATCH = 14

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_cell(cell: np.ndarray, colors: np.ndarray) -> Image.Image:
    """Resize an image or a label map to the width of a column. Label maps keep hard edges.

    Args:
        cell (np.ndarray): RGB image ``(H, W, 3)`` uint8 or label map ``(H, W)``.
        colors (np.ndarray): ``(256, 3)`` uint8, the color of each label.

    Returns:
        Image: The cell.
    """
    is_labels = cell.ndim == 2
    picture = Image.fromarray(colors[cell] if is_labels else cell)
    height = round(CELL_WIDTH * cell.shape[0] / cell.shape[1])
    resampling = Image.Resampling.NEAREST if is_labels else Image.Resampling.BICUBIC
    return picture.resize((CELL_WIDTH, height), resampling)


def legend_places(names: Sequence[str], font: Font, width: int) -> list[tuple[int, int]]:
    """Place the entries of the legend in lines of at most ``width`` pixels.

    Args:
        names (Sequence[str]): Names of the classes.
        font (Font): Font of the names.
        width (int): Width of the legend in pixels.

    Returns:
        list[tuple[int, int]]: Left and top of each entry in pixels, relative to the legend.
    """
    places = []
    left = top = 0
    for name in names:
        entry_width = SWATCH + 5 + round(font.getlength(name)) + 2 * GAP
        if left and left + entry_width > width:
            left, top = 0, top + LINE_HEIGHT + 4
        places.append((left, top))
        left += entry_width
    return places


def draw_legend(
    draw: ImageDraw.ImageDraw,
    top: int,
    entries: Sequence[tuple[str, tuple[int, int, int]]],
    places: Sequence[tuple[int, int]],
    font: Font,
) -> None:
    """Draw the legend.

    Args:
        draw (ImageDraw): The sheet.
        top (int): Top of the legend in pixels.
        entries (Sequence): Name and RGB color of each class.
        places (Sequence): Result of `legend_places`.
        font (Font): Font of the names.
    """
    for (name, color), (left, below) in zip(entries, places, strict=True):
        x, y = GAP + left, top + GAP + below
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), color, 'black')
        draw.text((x + SWATCH + 5, y - 2), name, 'black', font)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], classes: Sequence[str], palette: Sequence
) -> Image.Image:
    """Draw images and label maps in a grid, titles above it, and a legend of the visible classes below it.

    Args:
        rows (Sequence): Cells of each row: RGB images ``(H, W, 3)`` uint8 or label maps ``(H, W)`` of class
            indices. 255 is ignored and drawn in light gray.
        titles (Sequence[str]): Title of each column, one or two lines.
        classes (Sequence[str]): Names of the C classes, C <= 255.
        palette (Sequence): ``(C, 3)`` RGB colors in [0, 255].

    Returns:
        Image: The RGB sheet. Every cell is 176 pixels wide.

    Raises:
        ValueError: There are no rows, or a row does not have one cell per title.
    """
    lengths = sorted({len(row) for row in rows})
    if lengths != [len(titles)]:
        raise ValueError(f'the rows have {lengths or "no"} cells; expected {len(titles)}, one per title')
    colors = np.full((256, 3), IGNORE_COLOR, np.uint8)
    colors[: len(classes)] = palette
    labels = {int(label) for row in rows for cell in row if cell.ndim == 2 for label in np.unique(cell)}
    entries = [
        ('(ignored)' if label == IGNORE_INDEX else classes[label], tuple(colors[label].tolist()))
        for label in sorted(labels)
    ]
    cells = [[draw_cell(cell, colors) for cell in row] for row in rows]
    font = ImageFont.load_default(TEXT_SIZE)
    lines = [line for title in titles for line in title.split('\n')]
    column_width = max([CELL_WIDTH, *(round(font.getlength(line)) for line in lines)]) + GAP
    width = GAP + len(titles) * column_width
    places = legend_places([name for name, _ in entries], font, width - 2 * GAP)
    head = 2 * LINE_HEIGHT + 2 * GAP
    foot = 2 * GAP + (places[-1][1] + LINE_HEIGHT if places else 0)
    heights = [max(cell.height for cell in row) + GAP for row in cells]
    sheet = Image.new('RGB', (width, head + sum(heights) + foot), 'white')
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.multiline_text((GAP + column * column_width, GAP), title, 'black', font)
    top = head
    for row, height in zip(cells, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (GAP + column * column_width, top))
        top += height
    draw_legend(draw, top, entries, places, font)
    return sheet
