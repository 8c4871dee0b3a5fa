"""Write the sections as one HTML file without other files."""

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from jinja2 import Environment
from PIL import Image

from .sections import Section

_LARGEST = 480  # pixels of the longer side of a picture

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 14px sans-serif; margin: 1.5em; color: #222; }
table { border-collapse: collapse; }
td, th { padding: .3em .6em; text-align: left; vertical-align: top; }
.numbers td, .numbers th { border: 1px solid #ccc; white-space: nowrap; }
.scroll { overflow-x: auto; margin-bottom: 2em; }
img { max-width: 300px; min-width: 160px; cursor: zoom-in; display: block; }
img.large { max-width: none; min-width: 480px; cursor: zoom-out; }
.swatch { display: inline-block; width: 1em; height: 1em; border: 1px solid; vertical-align: text-bottom; }
.legend span { margin-right: 1.2em; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for note in notes %}<p>{{ note }}</p>
{% endfor %}
<p class="legend">{% for name, color in legend %}
<span><i class="swatch" style="background: rgb({{ color | join(',') }})"></i> {{ name }}</span>{% endfor %}
</p>
{% for section in sections %}
<h2>{{ section.title }}</h2>
<div class="scroll"><table class="numbers">
{% for row in section.table %}{% set tag = 'th' if loop.first else 'td' %}
<tr>{% for value in row %}<{{ tag }}>{{ value }}</{{ tag }}>{% endfor %}</tr>
{% endfor %}
</table></div>
<div class="scroll"><table>
<tr>{% for head in section.heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in section.rows %}
<tr>{% for cell in row %}
<td><img alt="{{ cell.lines | join(', ') }}" src="{{ cell.picture | data_url }}">
{% for line in cell.lines %}{{ line }}<br>{% endfor %}</td>{% endfor %}
</tr>
{% endfor %}
</table></div>
{% endfor %}
<script>
for (const image of document.images) image.onclick = () => image.classList.toggle('large');
</script>
</body>
</html>
"""


def render_page(
    title: str, notes: Sequence[str], sections: Sequence[Section], classes: Sequence[str], palette: Sequence
) -> str:
    """Render the sections as HTML. The pictures are in the text; a click enlarges one.

    Args:
        title (str): The title.
        notes (Sequence[str]): Sentences below the title.
        sections (Sequence[Section]): The sections.
        classes (Sequence[str]): Names of the K classes.
        palette (Sequence): (K, 3) RGB colors.

    Returns:
        str: The text of the file.
    """
    environment = Environment(autoescape=True)
    environment.filters['data_url'] = data_url
    legend = list(zip(classes, palette, strict=True))
    return environment.from_string(_TEMPLATE).render(
        title=title, notes=notes, sections=sections, legend=legend
    )


def data_url(picture: np.ndarray) -> str:
    """Encode a picture (H, W, 3) uint8 RGB as a JPEG in a ``data:`` address, at most 480 pixels large."""
    image = Image.fromarray(picture)
    image.thumbnail((_LARGEST, _LARGEST))
    buffer = BytesIO()
    image.save(buffer, 'JPEG', quality=90, subsampling=0)
    return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'
