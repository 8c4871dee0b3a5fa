"""Groups of near-duplicates: frames of one video, and several exposures of one object."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

_LAST_NUMBER = re.compile(r'(\d+)(\D*)$')
_SAME = 6  # differing bits, of 64, of two pictures of the same scene
_NEIGHBORS = 14  # differing bits of neighbors in a numbered sequence
_SHORT = 8  # images of a sequence that is too short to tell whether it is a video
_VIDEO = 0.75
_BLOCK = 512
_BITS = np.array([value.bit_count() for value in range(256)], np.uint8)


def hashes_available() -> bool:
    """Whether the package ImageHash is installed (extra ``new``)."""
    try:
        import imagehash  # noqa: F401
    except ImportError:
        return False
    return True


def find_groups(paths: Sequence[str], hashes: Mapping[str, str]) -> list[list[str]]:
    """Group images that show the same scene.

    Two images are in one group if their perceptual hashes differ by at most 6 of 64 bits. A sequence has
    names that differ in the last number only. Its neighbors are in one group if they differ by at most 14
    bits; or if the sequence is a video and their numbers differ by less than three times the usual step. A
    sequence is a video if neighbors differ by at most 3/4 of the bits by which images half the sequence apart
    differ (the median of both). CamVid's videos have 0.45 to 0.67; photographs of different tiles, numbered
    one by one, 0.8 to 1.3. Without hashes, every sequence counts as a video.

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
        members = [index[path] for _, path in sequence]
        near = _neighbors_together(
            [number for number, _ in sequence], None if bits is None else bits[members]
        )
        for place in np.flatnonzero(near):
            joined.join(members[place], members[place + 1])
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


def _neighbors_together(numbers: Sequence[int], bits: np.ndarray | None) -> np.ndarray:
    """Decide for each image of a sequence whether it and the next one are in one group: bool (N - 1,)."""
    steps = np.diff(numbers)
    regular = steps < 3 * np.median(steps) if len(steps) else np.zeros(0, bool)
    if bits is None:
        return regular
    distance = _differing_bits(bits[:-1], bits[1:])
    near = distance <= _NEIGHBORS
    if len(bits) < _SHORT:
        return near
    half = len(bits) // 2
    video = np.median(distance) <= _VIDEO * np.median(_differing_bits(bits[:-half], bits[half:]))
    return near | (regular & video)


def _differing_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Count the differing bits of hashes, uint64 of any shape that NumPy can combine."""
    difference = np.ascontiguousarray(first ^ second)
    return _BITS[difference.view(np.uint8).reshape(*difference.shape, 8)].sum(axis=-1)


def _close_pairs(bits: np.ndarray) -> list[tuple[int, int]]:
    """Find pairs of hashes uint64 (N,) that differ by at most ``_SAME`` bits."""
    pairs = []
    for start in range(0, len(bits), _BLOCK):
        distance = _differing_bits(bits[start : start + _BLOCK, None], bits[None, start:])
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
