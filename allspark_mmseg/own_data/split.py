"""The validation part of labeled images: all classes in both parts, and near-duplicates on one side.

The order of the choices is that of iterative stratification (Sechidis et al., On the stratification of
multi-label data, ECML PKDD 2011): the rarest class first.
"""

from collections.abc import Mapping, Sequence

import numpy as np

SHARE = 0.2  # of the labeled images


def hold_out(
    groups: Sequence[Sequence[str]], classes: Mapping[str, Sequence[int]], share: float = SHARE
) -> list[str]:
    """Choose images for validation.

    A group is chosen as a whole. Only a group with more than half of the images is cut: its last images can
    be chosen, and the cut separates few neighbors.

    Args:
        groups (Sequence[Sequence[str]]): Groups of near-duplicates; at least two images together.
        classes (Mapping[str, Sequence[int]]): The classes that occur in each image.
        share (float): Share of the images to choose, in (0, 1).

    Returns:
        list[str]: The chosen images, sorted; at least one, and not all.
    """
    total = sum(map(len, groups))
    wanted = min(max(round(share * total), 1), total - 1)
    parts = [list(part) for group in groups for part in _cut(group, total, wanted)]
    presence = _presence(parts, classes)
    chosen = _choose(parts, presence, wanted)
    return sorted(path for index in chosen for path in parts[index])


def _cut(group: Sequence[str], total: int, wanted: int) -> list[Sequence[str]]:
    if 2 * len(group) <= total:
        return [group]
    last = min(wanted, len(group) - 1)
    return [group[:-last], group[-last:]]


def _presence(parts: Sequence[Sequence[str]], classes: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Count the images of each class in each part: int64 (P, K)."""
    count = max((max(found, default=-1) for found in classes.values()), default=-1) + 1
    presence = np.zeros((len(parts), count), np.int64)
    for row, part in enumerate(parts):
        for path in part:
            presence[row, list(classes[path])] += 1
    return presence


def _choose(parts: Sequence[Sequence[str]], presence: np.ndarray, wanted: int) -> list[int]:
    """Choose parts until the validation has ``wanted`` images and, if possible, every class."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(parts))
    sizes = np.array([len(part) for part in parts])
    total = presence.sum(axis=0)
    goal = np.maximum(total * wanted / sizes.sum(), 1)
    chosen: list[int] = []
    held = np.zeros_like(total)

    def allowed(index: int) -> bool:
        taken = sizes[chosen].sum() + sizes[index]
        # no class loses all its training images, and at least one image remains
        keeps = ((held + presence[index] < total) | (presence[index] == 0)).all()
        return index not in chosen and bool(keeps) and taken < sizes.sum()

    def take(candidates: list[int]) -> None:
        # the part that exceeds the goals least
        excess = [np.maximum(held + presence[i] - goal, 0).sum() / len(parts[i]) for i in candidates]
        best = candidates[int(np.argmin(excess))]
        chosen.append(best)
        held[:] += presence[best]

    for label in np.argsort(total, kind='stable'):
        while held[label] < round(goal[label]):
            candidates = [int(i) for i in order if presence[i, label] and allowed(i)]
            fitting = [i for i in candidates if sizes[chosen].sum() + sizes[i] <= max(1.5 * wanted, 1)]
            if not fitting and held[label]:
                break  # the class occurs; more of it would make the part too large
            if not candidates:
                break
            take(fitting or [min(candidates, key=lambda i: len(parts[i]))])
    while sizes[chosen].sum() < wanted:
        candidates = [int(i) for i in order if allowed(i) and sizes[chosen].sum() + sizes[i] <= 1.5 * wanted]
        if not candidates:
            break
        take(candidates)
    return chosen or [int(np.argmin(sizes))]
