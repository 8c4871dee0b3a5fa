"""Command ``data``: the training pipelines of both streams."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .measure import Case, Result
from .pipelines import our_images, reference_images


def data(options: argparse.Namespace) -> Iterator[Case]:
    """Compare the training pipelines, from the file to the packed crop. Times are per image.

    Raises:
        SystemExit: The folder contains no images.
    """
    cv2.setNumThreads(0)  # as in a worker of a data loader
    with tempfile.TemporaryDirectory() as temporary:
        source = options.folder or make_images(Path(temporary), options.stored, number=16)
        images = sorted(path for path in source.iterdir() if path.suffix.lower() in ('.jpg', '.png'))
        if not images:
            raise SystemExit(f'--images is {source}, expected a folder with .jpg or .png files, found none.')
        pairs = [(str(image), make_mask(image, Path(temporary))) for image in images[: options.count]]
        paths = list(islice(cycle(pairs), options.count))
        for view, labeled in (('labeled', True), ('unlabeled', False)):
            yield Case(
                f'data, {view} view, {options.preset} (crop {options.crop}), {len(paths)} images',
                ours=partial(consume, our_images, paths, options.crop, labeled),
                reference=partial(consume, reference_images, paths, options.crop, labeled),
                calls=len(paths),
                peak=False,
            )


def consume(pipeline: Callable, paths: list[tuple[str, str]], crop: int, labeled: bool) -> Callable[[], None]:
    """Return a function that takes all images through a pipeline.

    Args:
        pipeline (Callable): ``our_images`` or ``reference_images``.
        paths (list[tuple[str, str]]): Image and mask files.
        crop (int): Side of the crop in pixels.
        labeled (bool): Whether the samples are labeled.
    """
    seeds = count()  # the work per image depends on the random draws, so every repeat has new draws

    def run() -> None:
        for _ in pipeline(paths, crop, next(seeds), labeled):
            pass

    return run


def make_images(folder: Path, size: tuple[int, int], number: int) -> Path:
    """Write JPEG images with soft shapes and fine noise. The files are about as large as those of photos.

    Args:
        folder (Path): Folder to write to.
        size (tuple[int, int]): Width and height in pixels.
        number (int): Number of images.

    Returns:
        Path: ``folder``.
    """
    generator = np.random.default_rng(0)
    for i in range(number):
        soft = cv2.resize(generator.integers(0, 256, (12, 16, 3), np.uint8), size)
        noisy = np.clip(soft + generator.normal(0, 8, soft.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f'{i:03}.jpg'), noisy)
    return folder


def make_mask(image: Path, folder: Path) -> str:
    """Write a mask of the size of the image, with random rectangles of 21 classes, and return its path."""
    with Image.open(image) as opened:  # the stored size; the orientation tag is ignored
        size = opened.size
    classes = np.random.default_rng(0).integers(0, 21, (3, 4), np.uint8)
    path = folder / f'{image.name}_mask.png'
    cv2.imwrite(str(path), cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST))
    return str(path)


def rates(result: Result) -> str:
    """Express the times as images per second and worker."""
    ours, reference = 1 / result.ours_s, 1 / result.reference_s
    return f'{result.name}: {ours:.1f} images/s per worker, reference {reference:.1f}.'
