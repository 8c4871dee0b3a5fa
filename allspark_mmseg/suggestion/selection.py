"""A diverse selection: images that are uncertain, different from each other, and typical of many.

The pooled features of the backbone describe an image. Starting from the labeled images, the selection adds
the candidate that reduces the weighted sum of squared distances to the nearest labeled or chosen image most:

.. code-block:: text

    gain(j) = sum_i score_i max(0, d_i - |f_i - f_j|^2),    d_i = min over labeled and chosen k |f_i - f_k|^2

This is greedy k-means++ (Arthur and Vassilvitskii 2007) with all candidates as trials, and needs no random
numbers. scikit-learn's ``kmeans_plusplus`` cannot start from given centers, here the labeled images. Unlike
greedy k-center, the rule does not prefer outliers, which are a bad choice while there are few labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

MAX_CANDIDATES = 4000  # their distances to each other are kept in memory, 64 MB
FARTHEST = 4.0  # largest squared distance of two unit vectors
# two images are near-duplicates below this part of the median distance of two images
DUPLICATE_SHARE = 0.2
CHUNK = 8192  # images whose features are in memory at once
ROWS = 256  # of the matrix of distances, small enough for the cache of the processor
EPSILON = 1e-6


@dataclass
class Choice:
    """A chosen image.

    Attributes:
        index (int): Its index among the candidates.
        duplicates (list[int]): Candidates that it makes superfluous.
        distance (float, optional): Distance to the nearest labeled or earlier image divided by the median
            distance of two images. None for the first one without labeled images.
        is_duplicate (bool): Whether it was taken only because nothing else was left.
    """

    index: int
    duplicates: list[int] = field(default_factory=list)
    distance: float | None = None
    is_duplicate: bool = False


def standardize(features: np.ndarray, reference: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Scale features by mean and standard deviation of a reference, and each row to length 1.

    Args:
        features (np.ndarray): (N, C).
        reference (np.ndarray): (M, C), for example the memory map of all images. It is read in parts.
        rows (np.ndarray, optional): Rows of the reference that count. Default: all.

    Returns:
        np.ndarray: (N, C) float32. Channels that are constant in the reference are 0.
    """
    rows = np.arange(len(reference)) if rows is None else rows
    total = np.zeros(reference.shape[1])
    squares = np.zeros(reference.shape[1])
    for start in range(0, len(rows), CHUNK):
        part = np.asarray(reference[rows[start : start + CHUNK]], dtype=np.float64)
        total += part.sum(0)
        squares += (part**2).sum(0)
    mean = total / len(rows)
    deviation = np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))
    # float16 rounds, so a constant channel can have a tiny deviation
    used = deviation > EPSILON * np.maximum(np.abs(mean), 1)
    scaled = (np.asarray(features, dtype=np.float64) - mean) / np.where(used, deviation, 1) * used
    return (scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), EPSILON)).astype(np.float32)


def preselect(scores: Sequence[float], count: int) -> list[int]:
    """Return the indices of the ``count`` highest scores, the highest first; equal ones in their order."""
    return np.argsort(-np.asarray(scores), kind='stable')[:count].tolist()


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the squared distances of unit vectors, 2 - 2 cos. SciPy's ``cdist`` takes 20 times as long.

    Args:
        first (np.ndarray): (N, C), rows of length 1.
        second (np.ndarray): (M, C), rows of length 1.

    Returns:
        np.ndarray: (N, M) float32, 0 or more.
    """
    return np.maximum(2 - 2 * (first.astype(np.float32) @ second.astype(np.float32).T), 0)


def nearest_squared(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the squared distance of each feature to the nearest of the others.

    Args:
        features (np.ndarray): (N, C), rows of length 1.
        others (np.ndarray): (M, C), rows of length 1. They are read in parts. M can be 0.

    Returns:
        np.ndarray: (N,), at most `FARTHEST`.
    """
    nearest = np.full(len(features), FARTHEST)
    for start in range(0, len(others), CHUNK):
        distances = squared_distances(features, others[start : start + CHUNK])
        nearest = np.minimum(nearest, distances.min(1))
    return nearest


def select_diverse(
    features: np.ndarray, scores: Sequence[float], labeled: np.ndarray, count: int
) -> list[Choice]:
    """Choose images. Near-duplicates of labeled or chosen images are taken last.

    Args:
        features (np.ndarray): (N, C), rows of length 1, of the candidates, N <= `MAX_CANDIDATES`.
        scores (Sequence[float]): N weights, 0 or more.
        labeled (np.ndarray): (M, C), rows of length 1, of the labeled images. M can be 0.
        count (int): Images to choose.

    Returns:
        list[Choice]: ``min(count, N)`` choices, the most useful first.
    """
    distances = squared_distances(features, features)
    typical = float(np.median(distances[np.triu_indices(len(features), 1)])) if len(features) > 1 else 1.0
    # distances are squared
    threshold = DUPLICATE_SHARE**2 * typical
    nearest = nearest_squared(features, labeled)
    weights = np.asarray(scores, dtype=np.float32) + np.float32(EPSILON)
    free = nearest > threshold
    left = np.ones(len(features), dtype=bool)
    has_reference = bool(len(labeled))
    choices: list[Choice] = []
    while len(choices) < min(count, len(features)):
        allowed = free if free.any() else left
        gains = _gains(distances, nearest, weights)
        index = int(np.argmax(np.where(allowed, gains, -1)))
        close = free & (distances[index] <= threshold)
        close[index] = False
        distance = float(np.sqrt(nearest[index] / max(typical, EPSILON))) if has_reference else None
        choices.append(Choice(index, np.flatnonzero(close).tolist(), distance, not free[index]))
        free &= ~close
        free[index] = left[index] = False
        nearest = np.minimum(nearest, distances[index])
        has_reference = True
    return choices


def _gains(distances: np.ndarray, nearest: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the gain (N,) of each candidate, from the squared distances (N, N) of the candidates."""
    parts = [
        np.maximum(nearest.astype(np.float32) - distances[start : start + ROWS], 0) @ weights
        for start in range(0, len(distances), ROWS)
    ]
    return np.concatenate(parts)
