"""Polygons in files of labelme and COCO."""

import base64
import io
import json
import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..pseudo_label import IGNORE_INDEX
from .files import Problem, parallel_map

BACKGROUND = 'background'
_BACKGROUND_NAMES = ('_background_', BACKGROUND)
_IGNORED_NAMES = ('__ignore__', 'ignore', 'void')


@dataclass
class PolygonFile:
    """A JSON file with shapes of one image (labelme) or of many (COCO).

    Attributes:
        path (str): The file, relative to the data.
        form (str): ``'labelme'`` or ``'COCO'``.
        images (dict[str, list]): Image -> its shapes, the first drawn first: ``(class, kind, points)``, with
            kind ``'polygon'``, ``'rectangle'``, ``'circle'``, ``'line'``, ``'mask'`` or ``'rle'``.
        labels (list[str]): The classes in the order of the file, or sorted.
    """

    path: str
    form: str
    images: dict[str, list[tuple[str, str, Any]]]
    labels: list[str]


def find_polygons(
    root: Path, candidates: Sequence[str], images: Sequence[str]
) -> tuple[list[PolygonFile], list[Problem]]:
    """Read the JSON files that have shapes.

    Args:
        root (Path): The data.
        candidates (Sequence[str]): JSON files, relative to it.
        images (Sequence[str]): The images.

    Returns:
        tuple[list[PolygonFile], list[Problem]]: The files, and shapes without an image.
    """
    known = _ImageNames(images)

    def read(path: str) -> tuple[PolygonFile | None, list[Problem]]:
        try:
            content = json.loads((root / path).read_text(encoding='utf-8-sig'))
        except (OSError, ValueError) as error:
            return None, [Problem(path, f'is not a JSON file ({error})')]
        if isinstance(content, dict) and isinstance(content.get('shapes'), list):
            return _labelme(path, content, known)
        if isinstance(content, dict) and {'images', 'annotations', 'categories'} <= set(content):
            return _coco(path, content, known)
        return None, []

    results = parallel_map(read, candidates, 'reading JSON files')
    parts = [part for part, _ in results if part is not None]
    return parts, [problem for _, problems in results for problem in problems]


class _ImageNames:
    """Finds an image by a path in a JSON file."""

    def __init__(self, images: Sequence[str]) -> None:
        self.images = set(images)
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for image in images:
            self.by_name[posixpath.basename(image)].append(image)
            self.by_name[posixpath.splitext(posixpath.basename(image))[0]].append(image)

    def find(self, folder: str, name: str) -> str | None:
        name = name.replace('\\', '/')
        for path in (posixpath.normpath(posixpath.join(folder, name)), name):
            if path in self.images:
                return path
        found = self.by_name.get(posixpath.basename(name)) or self.by_name.get(
            posixpath.splitext(posixpath.basename(name))[0], []
        )
        ends = [image for image in found if image.endswith(name)] or found
        return ends[0] if len(ends) == 1 else None


def _labelme(path: str, content: Mapping, known: _ImageNames) -> tuple[PolygonFile | None, list[Problem]]:
    folder, name = posixpath.split(path)
    stem = posixpath.splitext(name)[0]
    image = known.find(folder, str(content.get('imagePath') or stem)) or known.find(folder, stem)
    if image is None:
        return None, [Problem(path, f'has shapes of {content.get("imagePath")}, which is not in the data')]
    shapes = []
    for shape in content['shapes']:
        kind = shape.get('shape_type') or 'polygon'
        value = (shape.get('mask'), shape['points']) if kind == 'mask' else shape['points']
        shapes.append((str(shape['label']), {'linestrip': 'line'}.get(kind, kind), value))
    labels = sorted({label for label, _, _ in shapes})
    return PolygonFile(path, 'labelme', {image: shapes}, labels), []


def _coco(path: str, content: Mapping, known: _ImageNames) -> tuple[PolygonFile, list[Problem]]:
    folder = posixpath.dirname(path)
    names = {row['id']: row['name'] for row in sorted(content['categories'], key=lambda row: row['id'])}
    used = {row['category_id'] for row in content['annotations']}
    parents = {row.get('supercategory') for row in content['categories'] if row['id'] in used}
    # Roboflow lists the project as a category, of which all others are parts
    names = {key: name for key, name in names.items() if key in used or name not in parents}
    files = {row['id']: known.find(folder, row['file_name']) for row in content['images']}
    lost = [row['file_name'] for row in content['images'] if files[row['id']] is None]
    shapes: dict[str, list] = {image: [] for image in files.values() if image is not None}
    # large shapes first, so that they do not hide small ones
    for row in sorted(content['annotations'], key=lambda row: -float(row.get('area') or 0)):
        image, segmentation = files.get(row['image_id']), row.get('segmentation')
        if image is None or not segmentation:
            continue
        label = names[row['category_id']]
        if isinstance(segmentation, dict):
            shapes[image].append((label, 'rle', segmentation))
        else:
            points = [np.reshape(part, (-1, 2)).tolist() for part in segmentation]
            shapes[image] += [(label, 'polygon', part) for part in points]
    problems = [Problem(path, f'has shapes of {name}, which is not in the data') for name in lost]
    return PolygonFile(path, 'COCO', shapes, list(names.values())), problems


def class_names(files: Sequence[PolygonFile], given: Sequence[str]) -> list[str]:
    """Return the classes of polygons.

    Args:
        files (Sequence[PolygonFile]): The files.
        given (Sequence[str]): Names that the user gives, in the order of the class numbers.

    Returns:
        list[str]: ``given``; otherwise ``'background'`` and the labels.

    Raises:
        ValueError: A label is not among the given names.
    """
    found = list(dict.fromkeys(label for file in files for label in file.labels))
    if any(file.form == 'labelme' for file in files):
        found.sort()  # each file has only some of the labels
    found = [label for label in found if label not in (*_BACKGROUND_NAMES, *_IGNORED_NAMES)]
    if not given:
        return [BACKGROUND, *found]
    unknown = [label for label in found if label not in given]
    if unknown:
        raise ValueError(
            f'The polygons have the labels {unknown[:8]}, which are not among the classes {list(given)}; '
            'add them to --classes, or correct the labels.'
        )
    return list(given)


def draw(shapes: Sequence[tuple[str, str, Any]], size: tuple[int, int], classes: Sequence[str]) -> np.ndarray:
    """Draw the mask of an image.

    Args:
        shapes (Sequence[tuple]): From :class:`PolygonFile`.
        size (tuple[int, int]): Width and height of the image in pixels.
        classes (Sequence[str]): Names of the classes 0..K-1. Pixels without a shape are ``'background'``, or
            ignored if there is no such class.

    Returns:
        np.ndarray: uint8 (H, W), 255 for ignored pixels.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    numbers.update(dict.fromkeys(_IGNORED_NAMES, IGNORE_INDEX) | numbers)
    outside = next((numbers[name] for name in _BACKGROUND_NAMES if name in numbers), IGNORE_INDEX)
    numbers.setdefault('_background_', outside)
    numbers.setdefault(BACKGROUND, outside)
    mask = np.full(size[::-1], outside, np.uint8)
    for label, kind, value in shapes:
        _draw_shape(mask, numbers[label], kind, value)
    return mask


def _draw_shape(mask: np.ndarray, number: int, kind: str, value: Any) -> None:
    if kind == 'mask':
        encoded, ((left, top), *_) = value
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            _paste(mask, np.asarray(image) > 0, round(top), round(left), number)
    elif kind == 'rle':
        _paste(mask, _decode_rle(value), 0, 0, number)
    else:
        points = np.array(value, float)
        if kind == 'rectangle':
            (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
            points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        if kind == 'circle':
            radius = float(np.linalg.norm(points[0] - points[1]))
            angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
            points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        if kind in ('line', 'point'):
            cv2.polylines(mask, [np.floor(points).astype(np.int32)], isClosed=False, color=number)
        else:
            fill_polygon(mask, points, number)


def fill_polygon(mask: np.ndarray, points: np.ndarray, number: int) -> None:
    """Fill the pixels whose centers are inside, by the even-odd rule. OpenCV would also draw the outline.

    Args:
        mask (np.ndarray): uint8 (H, W), changed in place.
        points (np.ndarray): Corners (N, 2), x and y; the center of the first pixel is (0.5, 0.5).
        number (int): The class.
    """
    left, top = np.floor(points.min(axis=0)).astype(int).clip(0)
    right, bottom = np.ceil(points.max(axis=0)).astype(int)
    region = mask[top:bottom, left:right]
    height, width = region.shape
    x, y = (points - (left + 0.5, top + 0.5)).T  # now the center of the first pixel of the region is (0, 0)
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first = np.ceil(np.minimum(y, next_y)).astype(int).clip(0, height)
    last = np.ceil(np.maximum(y, next_y)).astype(int).clip(0, height)
    edges = np.repeat(np.arange(len(x)), last - first)
    # the rows that each edge crosses
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(last - first) - last, last - first)
    slope = (next_x - x)[edges] / (next_y - y)[edges]
    columns = np.ceil(x[edges] + (rows - y[edges]) * slope).astype(int).clip(0, width)
    crossings = np.zeros((height, width + 1), np.int32)
    np.add.at(crossings, (rows, columns), 1)
    region[np.cumsum(crossings, axis=1)[:, :width] % 2 == 1] = number


def _paste(mask: np.ndarray, shape: np.ndarray, top: int, left: int, number: int) -> None:
    part = mask[top : top + shape.shape[0], left : left + shape.shape[1]]
    part[shape[: part.shape[0], : part.shape[1]]] = number


def _decode_rle(value: Mapping) -> np.ndarray:
    """Decode run lengths of COCO, column by column, to bool (H, W)."""
    counts = value['counts']
    if isinstance(counts, list):
        runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return runs.reshape(value['size'][::-1]).T
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise ValueError(
            'The COCO file has compressed run lengths, which need pycocotools; run '
            "pip install 'allspark-mmseg[coco]'."
        ) from error
    return coco_mask.decode({'size': value['size'], 'counts': counts.encode()}) > 0
