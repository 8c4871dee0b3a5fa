"""Draws a contact sheet: a grid of images and label maps with titles, captions, a legend and a note.

MMSegmentation's SegLocalVisualizer draws one sample of one model at a time, with the labels blended over the
image, and without titles, legend or grid.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..pseudo_label import IGNORE_INDEX

IGNORE_COLOR = (200, 200, 200)
# vermilion and blue of Okabe and Ito's palette, which color-blind readers can tell apart
ONLY_FIRST = (213, 94, 0)
ONLY_LAST = (0, 114, 178)
CELL_WIDTH = 176
GAP = 8
TEXT_SIZE = 14
LINE_HEIGHT = 18
SWATCH = 14

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def difference_picture(
    image: np.ndarray, truth: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Show where exactly one of two predictions is right, over the image in light gray.

    Args:
        image (np.ndarray): RGB image ``(h, w, 3)`` uint8. It is resized to (H, W).
        truth (np.ndarray): Label map ``(H, W)``. Neither prediction is right where it is 255.
        first (np.ndarray): Predicted label map ``(H, W)``. Pixels that only it has right become vermilion.
        last (np.ndarray): Predicted label map ``(H, W)``. Pixels that only it has right become blue.

    Returns:
        np.ndarray: RGB picture ``(H, W, 3)`` uint8.
    """
    gray = np.asarray(Image.fromarray(image).convert('L').resize(truth.shape[::-1]))
    # light, so that both colors are darker than the image
    picture = np.repeat((160 + gray * 0.37).astype(np.uint8)[..., None], 3, axis=2)
    picture[(first == truth) & (last != truth)] = ONLY_FIRST
    picture[(last == truth) & (first != truth)] = ONLY_LAST
    return picture


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


def draw_legend(entries: Sequence[tuple[str, Color]], width: int, font: Font) -> Image.Image:
    """Draw a legend.

    Args:
        entries (Sequence): Name and RGB color of each entry.
        width (int): Width of the sheet in pixels.
        font (Font): Font of the names.

    Returns:
        Image: The legend, ``width`` pixels wide. Without entries it has no height.
    """
    places = legend_places([name for name, _ in entries], font, width - 2 * GAP)
    legend = Image.new('RGB', (width, places[-1][1] + LINE_HEIGHT + GAP if places else 0), 'white')
    draw = ImageDraw.Draw(legend)
    for (name, color), (left, top) in zip(entries, places, strict=True):
        x, y = GAP + left, GAP // 2 + top
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), color, 'black')
        draw.text((x + SWATCH + 5, y - 2), name, 'black', font)
    return legend


def wrap_text(text: str, font: Font, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` pixels. Only a word that is longer has a longer line.

    Args:
        text (str): The text.
        font (Font): Its font.
        width (int): Width in pixels.

    Returns:
        list[str]: The lines.
    """
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f'{lines[-1]} {word}') <= width:
            lines[-1] += f' {word}'
        else:
            lines.append(word)
    return lines


def draw_note(note: str, width: int, font: Font) -> Image.Image:
    """Draw the note as an image that is ``width`` pixels wide. An empty note has no height."""
    lines = wrap_text(note, font, width - 2 * GAP)
    picture = Image.new('RGB', (width, len(lines) * LINE_HEIGHT + 2 * GAP if lines else 0), 'white')
    ImageDraw.Draw(picture).multiline_text((GAP, GAP // 2), '\n'.join(lines), 'black', font)
    return picture


def draw_titles(titles: Sequence[str], column_width: int, width: int, font: Font) -> Image.Image:
    """Draw the titles of the columns as an image that is ``width`` pixels wide, with room for two lines."""
    head = Image.new('RGB', (width, 2 * LINE_HEIGHT + 2 * GAP), 'white')
    draw = ImageDraw.Draw(head)
    for column, title in enumerate(titles):
        draw.multiline_text((GAP + column * column_width, GAP), title, 'black', font)
    return head


def draw_row(
    cells: Sequence[Image.Image], captions: Sequence[str], column_width: int, width: int, font: Font
) -> Image.Image:
    """Draw a row of the grid: the cells, and their captions below them.

    Args:
        cells (Sequence[Image]): The cells.
        captions (Sequence[str]): One caption for each cell. Without any text they take no space.
        column_width (int): Distance of two columns in pixels.
        width (int): Width of the sheet in pixels.
        font (Font): Font of the captions.

    Returns:
        Image: The row, ``width`` pixels wide.
    """
    bottom = max(cell.height for cell in cells)
    row = Image.new('RGB', (width, bottom + GAP + (LINE_HEIGHT if any(captions) else 0)), 'white')
    draw = ImageDraw.Draw(row)
    for column, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
        row.paste(cell, (GAP + column * column_width, 0))
        draw.text((GAP + column * column_width, bottom), caption, 'black', font)
    return row


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Put pictures of the same width below each other."""
    sheet = Image.new('RGB', (pictures[0].width, sum(picture.height for picture in pictures)), 'white')
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def class_entries(
    rows: Sequence[Sequence[np.ndarray]], classes: Sequence[str], colors: np.ndarray
) -> list[tuple[str, Color]]:
    """Return name and color of each class that a label map of ``rows`` shows."""
    labels = {int(label) for row in rows for cell in row if cell.ndim == 2 for label in np.unique(cell)}
    return [
        ('(ignored)' if label == IGNORE_INDEX else classes[label], tuple(colors[label].tolist()))
        for label in sorted(labels)
    ]


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    classes: Sequence[str],
    palette: Sequence,
    *,
    captions: Sequence[Sequence[str]] | None = None,
    marks: Sequence[tuple[str, Color]] = (),
    note: str = '',
) -> Image.Image:
    """Draw images and label maps in a grid, titles above it, and a legend of the visible classes below it.

    Args:
        rows (Sequence): Cells of each row: RGB images ``(H, W, 3)`` uint8 or label maps ``(H, W)`` of class
            indices. 255 is ignored and drawn in light gray.
        titles (Sequence[str]): Title of each column, one or two lines.
        classes (Sequence[str]): Names of the C classes, C <= 255.
        palette (Sequence): ``(C, 3)`` RGB colors in [0, 255].
        captions (Sequence, optional): Text below each cell.
        marks (Sequence): Name and RGB color of further entries of the legend, in lines of their own.
        note (str): Text below the legend.

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
    texts = captions or [[''] * len(titles)] * len(rows)
    font = ImageFont.load_default(TEXT_SIZE)
    lines = [line for title in titles for line in title.split('\n')]
    lines += [caption for row in texts for caption in row]
    column_width = max([CELL_WIDTH, *(round(font.getlength(line)) for line in lines)]) + GAP
    width = GAP + len(titles) * column_width

    head = draw_titles(titles, column_width, width, font)
    grid = [
        draw_row([draw_cell(cell, colors) for cell in row], below, column_width, width, font)
        for row, below in zip(rows, texts, strict=True)
    ]
    legends = [draw_legend(entries, width, font) for entries in (class_entries(rows, classes, colors), marks)]
    return stack([head, *grid, *legends, draw_note(note, width, font)])
