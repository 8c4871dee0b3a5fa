"""Masks as class numbers in ``.allspark/masks``, written once, in parallel; a stopped conversion goes on."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..output import complete_file
from .files import WORK, parallel_map, stamp

_MASKS = f'{WORK}/masks'
_RECORD = f'{WORK}/converted.json'


class Job(NamedTuple):
    """A mask to convert.

    Attributes:
        image (str): The image.
        source (str): The file with its mask.
        decode (Callable): Returns the mask, uint8 (H, W).
        signature (str): Everything besides ``source`` that the result depends on.
    """

    image: str
    source: str
    decode: Callable[[], np.ndarray]
    signature: str


def target_of(image: str) -> str:
    """Return the path of the converted mask of an image, relative to the data.

    Args:
        image (str): The image: relative to the data, or absolute.
    """
    path = PurePosixPath(image)
    if path.is_absolute() or '..' in path.parts:
        # images of one name from several folders outside the data
        digest = hashlib.sha1(str(path.parent).encode()).hexdigest()[:8]
        return f'{_MASKS}/{digest}/{path.name}.png'
    return f'{_MASKS}/{path}.png'


def convert_masks(root: Path, jobs: Sequence[Job]) -> dict[str, np.ndarray]:
    """Write the masks that are not yet written, or whose source has changed.

    Args:
        root (Path): The data.
        jobs (Sequence[Job]): The masks.

    Returns:
        dict[str, np.ndarray]: Pixels of each class in the mask of each image, int64 (256,).
    """
    try:
        record = json.loads((root / _RECORD).read_text())
    except (OSError, ValueError):
        record = {}
    marks = {
        job.image: [*stamp(root / job.source), hashlib.sha1(job.signature.encode()).hexdigest()]
        for job in jobs
    }
    waiting = [
        job
        for job in jobs
        if record.get(job.image, [None])[0] != marks[job.image] or not (root / target_of(job.image)).is_file()
    ]

    def write(job: Job) -> None:
        mask = job.decode()
        with complete_file(root / target_of(job.image)) as path:
            Image.fromarray(mask).save(path)
        counts = np.bincount(mask.ravel(), minlength=256)
        record[job.image] = [marks[job.image], [[int(v), int(counts[v])] for v in np.flatnonzero(counts)]]

    try:
        parallel_map(write, waiting, 'converting masks')
    finally:
        if waiting:
            with complete_file(root / _RECORD) as path:
                path.write_text(json.dumps(record))
    result = {}
    for job in jobs:
        result[job.image] = np.zeros(256, np.int64)
        for value, count in record[job.image][1]:
            result[job.image][value] = count
    return result
