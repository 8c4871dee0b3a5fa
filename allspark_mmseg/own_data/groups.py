"""Groups of near-duplicates: frames of one video, and several exposures of one object."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

_LAST_NUMBER = re.compile(r'(\d+)(\D*)$')
_SAME = 6  # differing bits, of 64, of two pictures of the same scene
_NEIGHBORS = 14  # differing bits of neighbors in a numbered sequence
_BLOCK = 512


def hashes_available() -> bool:
    """Whether the package ImageHash is installed (extra ``new``)."""
    try:
        import imagehash  # noqa: F401
    except ImportError:
        return False
    return True


def find_groups(paths: Sequence[str], hashes: Mapping[str, str]) -> list[list[str]]:
    """Group images that show the same scene.

    Two images are in one group if their perceptual hashes differ by at most 6 of 64 bits; or by at most 14
    bits if they are neighbors in a sequence, that is, their names differ in the last number only, and no
    number of the images is between the two. Without hashes, an image and its neighbor are in one group if
    their numbers differ by less than three times the usual step.

    Args:
        paths (Sequence[str]): The images.
        hashes (Mapping[str, str]): Perceptual hash of each image, 16 hexadecimal digits; or empty.

    Returns:
        list[list[str]]: The groups, each sorted; the groups in the order of their first image.
    """
    order = sorted(paths)
    index = {path: number for number, path in enumerate(order)}
    joined = _Union(len(order))
    bits = np.array([int(hashes[path], 16) for path in order], np.uint64) if hashes else None
    if bits is not None:
        for first, second in _close_pairs(bits):
            joined.join(first, second)
    for sequence in _sequences(order):
        for (number, path), (following, neighbor) in pairwise(sequence):
            first, second = index[path], index[neighbor]
            if bits is not None:
                near = int(bits[first] ^ bits[second]).bit_count() <= _NEIGHBORS
            else:
                near = following - number < 3 * _usual_step(sequence)
            if near:
                joined.join(first, second)
    groups = defaultdict(list)
    for path in order:
        groups[joined.root(index[path])].append(path)
    return list(groups.values())


def _sequences(paths: Sequence[str]) -> list[list[tuple[int, str]]]:
    """Split paths into sequences whose names differ in the last number only."""
    sequences = defaultdict(list)
    for path in paths:
        stem = path.rpartition('.')[0] or path
        found = _LAST_NUMBER.search(stem)
        if found:
            sequences[stem[: found.start()], found[2]].append((int(found[1]), path))
    return [sorted(sequence) for sequence in sequences.values()]


def _usual_step(sequence: Sequence[tuple[int, str]]) -> float:
    return float(np.median(np.diff([number for number, _ in sequence])))


def _close_pairs(bits: np.ndarray) -> list[tuple[int, int]]:
    """Find pairs of hashes uint64 (N,) that differ by at most ``_SAME`` bits."""
    pairs = []
    table = np.array([value.bit_count() for value in range(256)], np.uint8)
    for start in range(0, len(bits), _BLOCK):
        difference = bits[start : start + _BLOCK, None] ^ bits[None, start:]
        distance = table[difference.view(np.uint8).reshape(*difference.shape, 8)].sum(axis=2)
        rows, columns = np.nonzero(distance <= _SAME)
        pairs += [
            (start + a, start + b) for a, b in zip(rows.tolist(), columns.tolist(), strict=True) if a < b
        ]
    return pairs


class _Union:
    """Disjoint sets of numbers."""

    def __init__(self, count: int) -> None:
        self.parents = list(range(count))

    def root(self, item: int) -> int:
        while self.parents[item] != item:
            self.parents[item] = self.parents[self.parents[item]]
            item = self.parents[item]
        return item

    def join(self, first: int, second: int) -> None:
        first, second = sorted((self.root(first), self.root(second)))
        self.parents[second] = first
