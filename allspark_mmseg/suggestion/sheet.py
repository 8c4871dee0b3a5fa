"""The contact sheet of the chosen images: image, mask, uncertainty, and why each was chosen."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..prediction.loading import as_picture
from ..report.sheet import GAP, LINE_HEIGHT, TEXT_SIZE, Font, draw_legend, stack

CELL_WIDTH, CELL_HEIGHT = 300, 320  # pixels; a cell has at most this size
TEXT_WIDTH = 330
TITLES = ('image', "model's mask", 'uncertainty: black sure, yellow unsure', 'why')


@dataclass
class SheetRow:
    """A row of the sheet.

    Attributes:
        cells (list[Image]): Image, image with mask, and uncertainty map.
        lines (list[str]): Text beside them; long lines are wrapped.
        labels (set[int]): Classes of the mask.
    """

    cells: list[Image.Image]
    lines: list[str]
    labels: set[int]


def to_display(inputs: np.ndarray) -> np.ndarray:
    """Convert an image that a pipeline has read to RGB for display.

    Args:
        inputs (np.ndarray): (C, H, W), BGR or other bands, of any type.

    Returns:
        np.ndarray: (H, W, 3) uint8. Other types than uint8 are stretched from the 1st to the 99th percentile.
    """
    return np.ascontiguousarray(as_picture(inputs.transpose(1, 2, 0))[..., ::-1])


def make_row(
    image: np.ndarray, mask: np.ndarray, entropy: np.ndarray, palette: np.ndarray, lines: Sequence[str]
) -> SheetRow:
    """Make the row of an image. Only the small pictures are kept.

    Args:
        image (np.ndarray): (h, w, 3) uint8 RGB.
        mask (np.ndarray): (H, W) uint8.
        entropy (np.ndarray): (H, W), in [0, 1].
        palette (np.ndarray): (K, 3) uint8.
        lines (Sequence[str]): Text beside the pictures.

    Returns:
        SheetRow: The row.
    """
    height, width = mask.shape
    scale = min(CELL_WIDTH / width, CELL_HEIGHT / height)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    blended = (0.45 * small + 0.55 * palette[labels]).astype(np.uint8)
    # black is the usual color of a background, and would only darken the image
    blended = np.where(palette[labels].any(-1, keepdims=True), blended, small)
    # the maximum of each small area, so that a thin line stays visible
    heat = cv2.resize(_local_maximum(entropy, scale), size, interpolation=cv2.INTER_NEAREST)
    colored = (matplotlib.colormaps['inferno'](heat)[..., :3] * 255).astype(np.uint8)
    pictures = [Image.fromarray(each) for each in (small, blended, colored)]
    return SheetRow(pictures, list(lines), set(np.unique(mask).tolist()))


def _local_maximum(values: np.ndarray, scale: float) -> np.ndarray:
    """Return the maximum around each pixel, over the pixels that become one pixel of the sheet."""
    side = max(round(1 / scale), 1)
    return cv2.dilate(values.astype(np.float32), np.ones((side, side), np.uint8))


def draw_sheet(
    rows: Sequence[SheetRow], classes: Sequence[str], palette: np.ndarray, note: str
) -> Image.Image:
    """Draw the sheet.

    Args:
        rows (Sequence[SheetRow]): The images.
        classes (Sequence[str]): Names of the K classes.
        palette (np.ndarray): (K, 3) uint8.
        note (str): Text at the top.

    Returns:
        Image: RGB.
    """
    font = ImageFont.load_default(TEXT_SIZE)
    width = 3 * (CELL_WIDTH + GAP) + TEXT_WIDTH + GAP
    parts = [_draw_lines(_wrap(note, font, width - 2 * GAP), width, font)]
    labels = sorted(set().union(*(row.labels for row in rows)))
    parts.append(
        draw_legend([(classes[label], tuple(palette[label].tolist())) for label in labels], width, font)
    )
    parts.append(_draw_titles(width, font))
    parts += [_draw_row(row, width, font) for row in rows]
    return stack(parts)


def _wrap(text: str, font: Font, width: int) -> list[str]:
    """Break a text at spaces, and longer words anywhere, into lines of at most ``width`` pixels."""
    lines = ['']
    for word in text.split():
        if lines[-1] and font.getlength(f'{lines[-1]} {word}') <= width:
            lines[-1] += f' {word}'
            continue
        if lines[-1]:
            lines.append('')
        for letter in word:
            if font.getlength(lines[-1] + letter) > width:
                lines.append('')
            lines[-1] += letter
    return lines


def _draw_lines(lines: Sequence[str], width: int, font: Font) -> Image.Image:
    """Draw lines of text."""
    picture = Image.new('RGB', (width, len(lines) * LINE_HEIGHT + 2 * GAP), 'white')
    draw = ImageDraw.Draw(picture)
    for index, line in enumerate(lines):
        draw.text((GAP, GAP + index * LINE_HEIGHT), line, 'black', font)
    return picture


def _draw_titles(width: int, font: Font) -> Image.Image:
    """Draw the titles of the columns."""
    picture = Image.new('RGB', (width, LINE_HEIGHT + GAP), 'white')
    draw = ImageDraw.Draw(picture)
    for index, title in enumerate(TITLES):
        draw.text((GAP + index * (CELL_WIDTH + GAP), 0), title, 'black', font)
    return picture


def _draw_row(row: SheetRow, width: int, font: Font) -> Image.Image:
    """Draw the pictures of an image and the text beside them."""
    lines = [part for line in row.lines for part in _wrap(line, font, TEXT_WIDTH - GAP)]
    height = max(row.cells[0].height, len(lines) * LINE_HEIGHT) + 2 * GAP
    picture = Image.new('RGB', (width, height), 'white')
    for index, cell in enumerate(row.cells):
        picture.paste(cell, (GAP + index * (CELL_WIDTH + GAP), 0))
    draw = ImageDraw.Draw(picture)
    for index, line in enumerate(lines):
        draw.text((GAP + 3 * (CELL_WIDTH + GAP), index * LINE_HEIGHT), line, 'black', font)
    return picture
