"""Draw the sections as one picture."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..report.sheet import wrap_text
from .sections import Section

CELL = 200  # width of a cell in pixels
GAP = 10
_LINE = 15
_SWATCH = 12


class _Canvas:
    """A white picture that grows downwards."""

    def __init__(self, width: int) -> None:
        self.picture = Image.new('RGB', (width, 64), 'white')
        self.pen = ImageDraw.Draw(self.picture)
        self.top = GAP
        self.font, self.title = ImageFont.load_default(12), ImageFont.load_default(18)

    def grow(self, height: int) -> None:
        if self.top + height > self.picture.height:
            larger = Image.new('RGB', (self.picture.width, 2 * (self.top + height)), 'white')
            larger.paste(self.picture)
            self.picture, self.pen = larger, ImageDraw.Draw(larger)

    def write(self, text: str, left: int = GAP, title: bool = False) -> None:
        font = self.title if title else self.font
        for line in wrap_text(text, font, self.picture.width - left - GAP):
            self.grow(2 * _LINE)
            self.pen.text((left, self.top), line, 'black', font)
            self.top += 2 * _LINE if title else _LINE

    def finish(self) -> Image.Image:
        return self.picture.crop((0, 0, self.picture.width, self.top + GAP))


def draw_sheet(
    title: str, notes: Sequence[str], sections: Sequence[Section], classes: Sequence[str], palette: Sequence
) -> Image.Image:
    """Draw the sections below each other: cells with captions, then the numbers.

    Args:
        title (str): The title.
        notes (Sequence[str]): Sentences below the title.
        sections (Sequence[Section]): The sections.
        classes (Sequence[str]): Names of the K classes.
        palette (Sequence): (K, 3) RGB colors.

    Returns:
        Image: The RGB picture. Each cell is ``CELL`` pixels wide.
    """
    columns = max([4, *(len(section.heads) for section in sections)])
    canvas = _Canvas(GAP + columns * (CELL + GAP))
    canvas.write(title, title=True)
    for note in notes:
        canvas.write(note)
    canvas.top += GAP
    _draw_legend(canvas, classes, palette)
    for section in sections:
        canvas.top += GAP
        canvas.write(section.title, title=True)
        _draw_cells(canvas, section)
        for values in section.table[1:]:
            named = [f'{name} {value}' for name, value in zip(section.table[0], values, strict=True)]
            canvas.write('; '.join(named))
    return canvas.finish()


def _draw_legend(canvas: _Canvas, classes: Sequence[str], palette: Sequence) -> None:
    left = GAP
    for name, color in zip(classes, palette, strict=True):
        width = _SWATCH + 5 + round(canvas.font.getlength(name)) + 2 * GAP
        if left > GAP and left + width > canvas.picture.width:
            left, canvas.top = GAP, canvas.top + _LINE + 3
        canvas.grow(2 * _LINE)
        box = (left, canvas.top, left + _SWATCH, canvas.top + _SWATCH)
        canvas.pen.rectangle(box, tuple(color), 'black')
        canvas.pen.text((left + _SWATCH + 5, canvas.top), name, 'black', canvas.font)
        left += width
    canvas.top += 2 * _LINE


def _draw_cells(canvas: _Canvas, section: Section) -> None:
    for column, head in enumerate(section.heads):
        canvas.grow(2 * _LINE)
        canvas.pen.text((GAP + column * (CELL + GAP), canvas.top), head, 'black', canvas.font)
    canvas.top += _LINE + 3
    for row in section.rows:
        pictures = [Image.fromarray(cell.picture) for cell in row]
        heights = [max(round(CELL * picture.height / picture.width), 1) for picture in pictures]
        captions = [
            [part for line in cell.lines for part in wrap_text(line, canvas.font, CELL)] for cell in row
        ]
        bottom = max(heights)
        height = bottom + _LINE * max(map(len, captions)) + GAP
        canvas.grow(height)
        for column, (picture, size, lines) in enumerate(zip(pictures, heights, captions, strict=True)):
            left = GAP + column * (CELL + GAP)
            canvas.picture.paste(picture.resize((CELL, size), Image.Resampling.BICUBIC), (left, canvas.top))
            for index, line in enumerate(lines):
                canvas.pen.text((left, canvas.top + bottom + 2 + index * _LINE), line, 'black', canvas.font)
        canvas.top += height
