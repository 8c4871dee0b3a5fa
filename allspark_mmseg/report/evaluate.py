"""Scores of a network on its validation set. They are kept in the work dir, so a second report is fast."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmseg.datasets import BaseSegDataset
from PIL import Image

from ..output import complete_file, progress
from ..pseudo_label import IGNORE_INDEX
from .networks import Network, predict

CACHE = '.report'  # folder in the work dir
_SCORES = 'scores.npz'
# of a larger validation set, only the predictions that are shown are kept
_KEPT_PREDICTIONS = 1000


@dataclass
class Evaluation:
    """Scores of one network.

    .. code-block:: text

        IoU_c = intersection_c / union_c, over the pixels that are not ignored

    Attributes:
        network (Network): The network.
        matrix (np.ndarray): ``(C, C)`` int64, pixels of all images by true class (row) and prediction.
        areas (np.ndarray): ``(N, 3, C)`` int64: intersection, union and true pixels of each image and class.
    """

    network: Network
    matrix: np.ndarray
    areas: np.ndarray

    @classmethod
    def empty(cls, network: Network, num_classes: int) -> 'Evaluation':
        """Return the scores of no image."""
        shape = (num_classes, num_classes)
        return cls(network, np.zeros(shape, np.int64), np.zeros((0, 3, num_classes), np.int64))

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Add an image.

        Args:
            truth (np.ndarray): Label map ``(H, W)`` uint8; 255 is ignored.
            prediction (np.ndarray): Label map ``(H, W)`` uint8.
        """
        matrix = count_pairs(truth, prediction, len(self.matrix))
        hits, true = matrix.diagonal(), matrix.sum(axis=1)
        areas = np.stack([hits, true + matrix.sum(axis=0) - hits, true])
        self.matrix = self.matrix + matrix
        self.areas = np.concatenate([self.areas, areas[None]])

    @property
    def iou(self) -> np.ndarray:
        """``(C,)`` IoU of each class in percent; NaN for classes that do not occur."""
        hits, union, _ = self.areas.sum(axis=0)
        return 100 * _ratio(hits, union)

    @property
    def mean_iou(self) -> float:
        """Mean IoU in percent over the classes that occur."""
        return float(np.nanmean(self.iou))

    @property
    def image_iou(self) -> np.ndarray:
        """``(N,)`` mIoU of each image in percent over the classes in its ground truth, or NaN."""
        hits, union, true = np.moveaxis(self.areas, 1, 0)
        occurs = true > 0
        total = np.where(occurs, _ratio(hits, union), 0).sum(axis=1)
        return 100 * _ratio(total, occurs.sum(axis=1))

    @property
    def pixel_share(self) -> np.ndarray:
        """``(C,)`` share of the true pixels of each class, in [0, 1]."""
        true = self.areas[:, 2].sum(axis=0)
        return true / max(int(true.sum()), 1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    # without the warning of NumPy about 0 / 0
    return part / np.where(whole > 0, whole, np.nan)


def count_pairs(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of an image by true class and prediction.

    Args:
        truth (np.ndarray): Label map ``(H, W)`` uint8; 255 is ignored.
        prediction (np.ndarray): Label map ``(H, W)`` uint8.
        num_classes (int): Number of classes C.

    Returns:
        np.ndarray: ``(C, C)`` int64. Row: true class. Column: prediction.
    """
    valid = truth != IGNORE_INDEX
    cells = truth[valid].astype(np.int64) * num_classes + prediction[valid]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def evaluate(network: Network, dataset: BaseSegDataset, device: str | None = None) -> Evaluation:
    """Run one network on the whole data set. An interrupted evaluation goes on where it stopped.

    Args:
        network (Network): The network.
        dataset (BaseSegDataset): The validation set.
        device (str, optional): Where to run the model. Default: CUDA if there is one, else the CPU.

    Returns:
        Evaluation: The scores.

    Raises:
        ValueError: As in ``predict``.
    """
    key = network.key(dataset)
    result = _load(network, key, len(dataset.metainfo['classes']))
    start = len(result.areas)
    if start == len(dataset):
        return result
    todo = range(start, len(dataset))
    try:
        for truth, prediction in progress(
            predict(network, dataset, todo, device),
            f'{network.name} ({network.run.work_dir.name})',
            len(todo),
        ):
            if len(dataset) <= _KEPT_PREDICTIONS:
                _store_labels(network, len(result.areas), prediction)
            result.add(truth, prediction)
    finally:
        if len(result.areas) > start:
            _store(network, _SCORES, lambda path: _save_scores(result, key, path))
    return result


def label_maps(
    network: Network, dataset: BaseSegDataset, indices: Iterable[int], device: str | None = None
) -> dict[int, np.ndarray]:
    """Return the predictions of one network on some images.

    Args:
        network (Network): The network.
        dataset (BaseSegDataset): The validation set, with at most 255 classes.
        indices (Iterable[int]): Indices of the images.
        device (str, optional): Where to run the model. Default: CUDA if there is one, else the CPU.

    Returns:
        dict[int, np.ndarray]: Index -> label map ``(H, W)`` uint8.
    """
    wanted = list(dict.fromkeys(indices))
    folder = _folder(network)
    known = [index for index in wanted if (folder / f'{index}.png').is_file()]
    maps = {index: np.array(Image.open(folder / f'{index}.png')) for index in known}
    missing = [index for index in wanted if index not in maps]
    if missing:
        predictions = predict(network, dataset, missing, device)
        for index, (_, labels) in zip(missing, predictions, strict=True):
            maps[index] = labels
            _store_labels(network, index, labels)
    return maps


def _folder(network: Network) -> Path:
    return network.run.work_dir / CACHE / network.checkpoint.stem


def _load(network: Network, key: str, num_classes: int) -> Evaluation:
    """Return the stored scores. Those of another checkpoint or data set are deleted with the predictions."""
    try:
        with np.load(_folder(network) / _SCORES) as stored:
            if str(stored['key']) == key and len(stored['matrix']) == num_classes:
                return Evaluation(network, stored['matrix'], stored['areas'])
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(_folder(network), ignore_errors=True)
    return Evaluation.empty(network, num_classes)


def _save_scores(result: Evaluation, key: str, path: Path) -> None:
    np.savez_compressed(path, key=np.array(key), matrix=result.matrix, areas=result.areas)


def _store_labels(network: Network, index: int, labels: np.ndarray) -> None:
    _store(network, f'{index}.png', Image.fromarray(labels).save)


def _store(network: Network, name: str, write: Callable[[Path], object]) -> None:
    """Write a file of the cache. In a work dir that is read-only, nothing is kept."""
    try:
        with complete_file(_folder(network) / name) as path:
            write(path)
    except OSError:
        return
