"""Small copies of the data sets in their published layouts, and the converters' command lines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from tests.helpers.configs import ROOT

TOOLS = ROOT / 'tools' / 'dataset_converters'

# the category ids of instances_{train,val}2017.json: 1 to 90 without the ten that were never annotated
COCO_IDS = [
    *(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21),
    *(22, 23, 24, 25, 27, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44),
    *(46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65),
    *(67, 70, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 84, 85, 86, 87, 88, 89, 90),
]
PERSON, DOG, CUP, TOOTHBRUSH = 1, 17, 42, 80  # labels of the categories 1, 18, 47 and 90


def command(tool: str, *arguments: object) -> list[str]:
    """Command line of a converter."""
    return [sys.executable, str(TOOLS / f'{tool}.py'), *map(str, arguments)]


def run(tool: str, *arguments: object, workers: int = 2, status: int = 0, **environment: str) -> str:
    """Run a converter, check its exit status, and return its output, errors last."""
    done = subprocess.run(
        command(tool, *arguments, '--workers', workers),
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr
    return done.stdout + done.stderr


def pixels(path: Path) -> np.ndarray:
    """Read an image."""
    return np.asarray(Image.open(path))


def save(path: Path, values: ArrayLike) -> None:
    """Write an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def contents(root: Path) -> dict[Path, bytes]:
    """Path -> content of all files below a folder."""
    return {path: path.read_bytes() for path in root.rglob('*') if path.is_file()}


def box(x: int, y: int, width: int, height: int) -> list[list[int]]:
    """Polygon of a box, as in COCO."""
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def counts(inside: ArrayLike) -> dict:
    """Run lengths of a mask as COCO stores crowd regions: column by column, starting outside."""
    flat = np.concatenate([[False], np.asarray(inside, bool).ravel(order='F'), [False]])
    borders = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(np.concatenate([[0], borders, [np.size(inside)]]))
    if lengths[-1] == 0:
        lengths = lengths[:-1]
    return {'size': list(np.shape(inside)), 'counts': lengths.tolist()}


def annotations(*images: tuple) -> dict:
    """COCO annotations; an image is its id, height, width and (label, segmentation[, crowd]), ..."""
    entries = [
        dict(image_id=image[0], category_id=COCO_IDS[label - 1], segmentation=shape, iscrowd=int(bool(crowd)))
        for image in images
        for label, shape, *crowd in image[3:]
    ]
    return dict(
        images=[
            dict(id=number, file_name=f'{number:012d}.jpg', height=height, width=width)
            for number, height, width, *_ in images
        ],
        categories=[dict(id=number, name=f'category {number}') for number in reversed(COCO_IDS)],
        annotations=[dict(entry, id=index) for index, entry in enumerate(entries, start=1000)],
    )


def write_coco(root: Path, train: dict, val: dict | None = None) -> Path:
    """Write the annotation files of both splits."""
    (root / 'annotations').mkdir(exist_ok=True)
    for split, content in (('train', train), ('val', val or annotations((7, 2, 2)))):
        (root / f'annotations/instances_{split}2017.json').write_text(json.dumps(content))
    return root


def write_cityscapes(root: Path, number: int = 1, labels: ArrayLike = ((7, 24), (0, 26))) -> list[Path]:
    """Write label ids of ``number`` training images and one validation image; return the files to be made."""
    stems = [f'train/aachen/aachen_{index:06d}_000019' for index in range(number)]
    stems.append('val/munster/munster_000173_000019')
    for stem in stems:
        save(root / f'gtFine/{stem}_gtFine_labelIds.png', labels)
        (root / f'gtFine/{stem}_gtFine_polygons.json').write_text('{}')
    return [root / f'gtFine/{stem}_gtFine_labelTrainIds.png' for stem in stems]
