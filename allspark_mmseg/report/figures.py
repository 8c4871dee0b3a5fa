"""Pictures of a report as data URIs of bounded size."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmseg.datasets import BaseSegDataset
from PIL import Image

from .contact import sheet_rows
from .evaluate import Evaluation, label_maps
from .selection import Choice, choose_images, image_gain
from .sheet import IGNORE_COLOR

# widths in pixels to try, largest first, until all pictures together are small enough
_WIDTHS = (720, 560, 420, 320, 240, 160)
MAX_BYTES = 7_000_000


@dataclass
class Picture:
    """A picture of the page.

    Attributes:
        uri (str): ``data:image/...``.
        title (str): What it is.
        caption (str): A number, or ``''``.
        alt (str): Description.
        labels (bool): Whether it is a label map, which is enlarged without smoothing.
        width (int): Width in pixels.
        height (int): Height in pixels.
    """

    uri: str
    title: str
    caption: str
    alt: str
    labels: bool
    width: int
    height: int


@dataclass
class Row:
    """One validation image: its file, and its pictures."""

    name: str
    pictures: list[Picture]


@dataclass
class Gallery:
    """Images with a common rule.

    Attributes:
        title (str): What they have in common.
        rule (str): How they were chosen.
        rows (list[Row]): The images.
    """

    title: str
    rule: str
    rows: list[Row]


def encode(cell: np.ndarray, colors: np.ndarray, width: int) -> tuple[str, int, int]:
    """Encode an image as JPEG, or a label map as PNG with a palette.

    Args:
        cell (np.ndarray): RGB image ``(H, W, 3)`` uint8 or label map ``(H, W)`` uint8.
        colors (np.ndarray): ``(256, 3)`` uint8, the color of each label.
        width (int): Largest width and height in pixels. Smaller pictures keep their size.

    Returns:
        tuple[str, int, int]: The data URI, and width and height in pixels.
    """
    is_labels = cell.ndim == 2
    picture = Image.fromarray(cell)
    scale = min(1.0, width / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    resampling = Image.Resampling.NEAREST if is_labels else Image.Resampling.LANCZOS
    picture = picture.resize(size, resampling) if size != picture.size else picture
    buffer = io.BytesIO()
    if is_labels:
        picture = picture.convert('P')
        picture.putpalette(colors.flatten().tolist())
        picture.save(buffer, 'PNG', optimize=True)
    else:
        picture.save(buffer, 'JPEG', quality=85)
    kind = 'png' if is_labels else 'jpeg'
    text = base64.b64encode(buffer.getvalue()).decode()
    return f'data:image/{kind};base64,{text}', *size


def label_colors(palette: Sequence) -> np.ndarray:
    """Return the color of each label, ``(256, 3)`` uint8; ignored pixels are light gray.

    Args:
        palette (Sequence): ``(C, 3)`` RGB colors in [0, 255].
    """
    colors = np.full((256, 3), IGNORE_COLOR, np.uint8)
    colors[: len(palette)] = palette
    return colors


def make_galleries(
    dataset: BaseSegDataset, evaluations: Sequence[Evaluation], num: int, device: str | None = None
) -> list[Gallery]:
    """Choose validation images, and encode them with truth, predictions and difference.

    Args:
        dataset (BaseSegDataset): The validation set.
        evaluations (Sequence[Evaluation]): The networks to show, at least one.
        num (int): Number of images.
        device (str, optional): Where to run the models.

    Returns:
        list[Gallery]: The images. Their pictures take at most `MAX_BYTES`, or are 160 pixels wide.
    """
    choices = choose_images(evaluations, num)
    indices = [index for choice in choices for index in choice.indices]
    predictions = [label_maps(each.network, dataset, indices, device) for each in evaluations]
    cells = dict(zip(indices, sheet_rows(dataset, indices, predictions), strict=True))
    galleries: list[Gallery] = []
    for width in _WIDTHS:
        galleries = [_gallery(choice, dataset, evaluations, cells, width) for choice in choices]
        pictures = [picture for each in galleries for row in each.rows for picture in row.pictures]
        if sum(len(picture.uri) for picture in pictures) <= MAX_BYTES:
            break
    return galleries


def _gallery(
    choice: Choice,
    dataset: BaseSegDataset,
    evaluations: Sequence[Evaluation],
    cells: dict[int, list[np.ndarray]],
    width: int,
) -> Gallery:
    colors = label_colors(dataset.metainfo['palette'])
    titles = ['image', 'truth', *(each.network.name for each in evaluations)]
    titles += ['difference'] if len(evaluations) > 1 else []
    rows = []
    for index in choice.indices:
        name = dataset.get_data_info(index)['img_path'].replace('\\', '/').rsplit('/', 1)[-1]
        captions = ['', '', *(f'{each.image_iou[index]:.1f}\N{NO-BREAK SPACE}%' for each in evaluations)]
        if len(evaluations) > 1:
            captions.append(f'{image_gain(evaluations[0], evaluations[-1])[index]:+.1f}')
        pictures = []
        for cell, title, caption in zip(cells[index], titles, captions, strict=True):
            uri, *size = encode(cell, colors, width)
            alt = f'{name}: {title}' + (f', mIoU {caption}' if caption else '')
            pictures.append(Picture(uri, title, caption, alt, cell.ndim == 2, *size))
        rows.append(Row(name, pictures))
    return Gallery(choice.title, choice.rule, rows)
