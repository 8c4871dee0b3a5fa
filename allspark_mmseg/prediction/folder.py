"""Predict the images of a folder: load ahead, group by size, write behind, name what fails."""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from ..datasets.image_headers import ImageHeader, read_header
from ..output import progress
from .loading import ImageLoader, LoadedImage
from .output import OutputFolder
from .predictor import Prediction, Predictor
from .windows import CHUNK

Group = list[tuple[PurePosixPath, LoadedImage]]


class FolderPrediction:
    """Predicts the images of a folder.

    Images are loaded and results are written in threads while the network predicts. Small images wait until
    there are enough of the same size for a batch. Large images follow one by one. An image that cannot be
    loaded or predicted is remembered in ``failed``, and the others are predicted.

    Args:
        root (str | Path): Folder of the images.
        names (dict[PurePosixPath, str]): Relative path of each image -> name of its results.
        loader (ImageLoader): Loads an image.
        predictor (Predictor): Predicts it.
        output (OutputFolder): Writes the results.
        num_classes (int): Number of classes.
        workers (int): Threads that load images.

    Attributes:
        failed (dict[PurePosixPath, str]): Image -> why it has no result.
        pixels (np.ndarray): Pixels of each class so far, (K,) int64.
        count (int): Images predicted so far.
        seconds (float): Time of the prediction.
    """

    def __init__(
        self,
        root: str | Path,
        names: dict[PurePosixPath, str],
        loader: ImageLoader,
        predictor: Predictor,
        output: OutputFolder,
        num_classes: int,
        workers: int = 2,
    ) -> None:
        self.root, self.names, self.workers = Path(root), names, workers
        self.loader, self.predictor, self.output = loader, predictor, output
        self.failed: dict[PurePosixPath, str] = {}
        self.pixels = np.zeros(num_classes, np.int64)
        self.count = 0
        self.seconds = 0.0
        self._headers: dict[PurePosixPath, ImageHeader] = {}
        self._large: list[PurePosixPath] = []
        self._writes: deque[Future] = deque()

    def run(self, images: Sequence[PurePosixPath]) -> None:
        """Predict images and write the results.

        Args:
            images (Sequence[PurePosixPath]): Those of ``names`` to predict.

        Raises:
            OSError: A result cannot be written.
        """
        started = time.monotonic()
        small: list[PurePosixPath] = []
        for image in progress(images, 'reading sizes'):
            header = self._headers[image] = read_header(str(self.root / image))
            is_large = self.predictor.is_large(header.width * header.height)
            (self._large if is_large else small).append(image)
        with ThreadPoolExecutor(1) as self._writer:
            if small:
                for _ in progress(self._predict_small(small), 'predicting', total=len(small)):
                    pass
            for image in self._large:
                self._predict_large(image)
            self._finish_writes(0)
        self.seconds = time.monotonic() - started

    def _predict_small(self, images: Sequence[PurePosixPath]) -> Iterator[PurePosixPath]:
        """Predict images and yield each one that is done with."""
        groups: dict[tuple, Group] = {}
        for image, future in self._load_ahead(images):
            try:
                loaded = future.result()
            except Exception as error:
                self._fail(image, error)
                yield image
                continue
            if self._is_large(loaded):
                self._large.append(image)
                yield image
                continue
            group = groups.setdefault(loaded.shapes, [])
            group.append((image, loaded))
            waiting = sum(map(len, groups.values()))
            if len(group) == self.predictor.batch_size or waiting >= 4 * self.predictor.batch_size:
                shapes = max(groups, key=lambda key: len(groups[key]))
                yield from self._predict_group(groups.pop(shapes))
        for group in groups.values():
            yield from self._predict_group(group)

    def _load_ahead(self, images: Sequence[PurePosixPath]) -> Iterator[tuple[PurePosixPath, Future]]:
        with ThreadPoolExecutor(self.workers) as pool:
            pending: deque[tuple[PurePosixPath, Future]] = deque()
            try:
                for image in images:
                    pending.append((image, pool.submit(self._load, image)))
                    if len(pending) > self.workers:
                        yield pending.popleft()
                while pending:
                    yield pending.popleft()
            finally:
                pool.shutdown(cancel_futures=True)

    def _load(self, image: PurePosixPath) -> LoadedImage:
        return self.loader(self.root / image, self._headers.get(image))

    def _is_large(self, loaded: LoadedImage) -> bool:
        views = [math.prod(view.shape[1:]) for view in loaded.inputs]
        return self.predictor.is_large(max(math.prod(loaded.size), *views))

    def _predict_group(self, group: Group) -> Iterator[PurePosixPath]:
        try:
            predictions = self.predictor.predict([loaded for _, loaded in group])
        except Exception as error:  # for example, the image is too small for the network
            for image, _ in group:
                self._fail(image, error)
        else:
            for (image, loaded), prediction in zip(group, predictions, strict=True):
                self._write(image, prediction, loaded.picture)
        yield from (image for image, _ in group)

    def _predict_large(self, image: PurePosixPath) -> None:
        """Predict an image in strips, with a progress bar of its own."""
        try:
            loaded = self._load(image)
            strips = self.predictor.predict_strips(loaded)
            height, width = loaded.size
            labels = confidence = np.empty((0, 0), np.uint8)
            bar = progress(strips, f'{image}, {height} x {width}', total=math.ceil(height / CHUNK))
            for index, strip in enumerate(bar):
                if index == 0:
                    labels = np.empty((height, width), strip.labels.dtype)
                    confidence = np.empty((height, width), strip.confidence.dtype)
                rows = slice(index * CHUNK, (index + 1) * CHUNK)
                labels[rows], confidence[rows] = strip.labels, strip.confidence
        except Exception as error:
            self._fail(image, error)
            return
        self._write(image, Prediction(labels, confidence), loaded.picture)
        self._finish_writes(0)  # one large image in memory at a time

    def _write(self, image: PurePosixPath, prediction: Prediction, picture: np.ndarray) -> None:
        self.count += 1
        # bincount makes a copy with 8 bytes per pixel
        for first in range(0, len(prediction.labels), 1024):
            rows = prediction.labels[first : first + 1024].ravel()
            self.pixels += np.bincount(rows, minlength=len(self.pixels))
        self._writes.append(self._writer.submit(self.output.write, self.names[image], prediction, picture))
        self._finish_writes(2 * self.predictor.batch_size)

    def _finish_writes(self, most: int) -> None:
        """Wait until at most ``most`` images are not written yet, and raise the errors of the others."""
        while len(self._writes) > most:
            self._writes.popleft().result()

    def _fail(self, image: PurePosixPath, error: Exception) -> None:
        lines = str(error).strip().splitlines() or ['']
        self.failed[image] = f'{type(error).__name__}: {lines[0][:200]}'
