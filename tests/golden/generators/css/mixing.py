"""Vectors of CSS's CutMix, ClassMix and CutOut (``generalframeworks/dataset_helpers/VOC.py``)."""

from typing import Any

import numpy as np
import torch
from common import patched
from torch import Tensor

from .record import Draws, Vectors
from .reference import Reference
from .tracing import Locals, local_values

BOX_SIZES = ((512, 512), (769, 769), (321, 321), (20, 20), (12, 16))
CUTOUT_KEYS = ('image', 'label_cls', 'conf_cls', 'conf_rep')


def drawn_boxes(seen: Locals) -> list[list[int]]:
    """Return the boxes (top, left, height, width) that the released function drew."""
    keys = ('y_start', 'x_start', 'h', 'w')
    return [[int(variables[key]) for key in keys] for variables in seen['generate_cutout_mask']]


def kept_classes(seen: Locals) -> list[list[bool]]:
    """Return for each image which of the classes -1 to 4 ClassMix kept."""
    selected = [variables['labels_select'].tolist() for variables in seen['generate_class_mask']]
    return [[c in classes for c in range(-1, 5)] for classes in selected]


def draw_inputs(draws: Draws, n: int, height: int, width: int) -> dict[str, Tensor]:
    """Draw images (N, 2, H, W), labels (N, H, W) and confidences (N, H, W)."""
    labels = [draws.regions(n, height, width, [-1, 0, 1, 2, 3, 4]) for _ in range(2)]
    return dict(
        image=torch.round(draws.grid(n, 2, height, width) * 16) / 16,
        label_cls=labels[0],
        label_rep=labels[1],
        conf_cls=torch.round(draws.uniform(n, height, width) * 64) / 64,
        conf_rep=torch.round(draws.uniform(n, height, width) * 64) / 64,
    )


def copies(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in inputs.items()}


def record_modes(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record each mode on the same inputs."""
    voc = reference.voc
    inputs = draw_inputs(draws, 3, 12, 16)
    vectors.put_all('mixing', **inputs)
    for mode in ('cutmix', 'classmix', 'cutout'):
        keys, arguments = tuple(inputs), copies(inputs)
        with local_values(voc.generate_cutout_mask, voc.generate_class_mask) as seen:
            if mode == 'cutout':  # the released function of the other variant fails for CutOut
                keys = CUTOUT_KEYS
                mixed = voc.generate_cut_gather_2(*(arguments[key] for key in keys), mode=mode)
            else:
                mixed = voc.generate_cut_gather_3(*arguments.values(), mode=mode)
        vectors.put_all(f'mixing.{mode}', **dict(zip(keys, mixed, strict=False)))
        if mode == 'classmix':
            vectors.put(f'mixing.{mode}.kept', kept_classes(seen))
        else:
            vectors.put(f'mixing.{mode}.boxes', drawn_boxes(seen))


def record_two_ranks(reference: Reference, vectors: Vectors, draws: Draws, seed: int) -> None:
    """Record CutMix on two ranks."""
    voc = reference.voc
    inputs = [draw_inputs(draws, 2, 8, 10) for _ in range(2)]

    def mix(rank: int) -> tuple[Any, list[list[int]]]:
        np.random.seed(seed + 5 + rank)
        with local_values(voc.generate_cutout_mask) as seen:
            mixed = voc.generate_cut_gather_3(*copies(inputs[rank]).values(), mode='cutmix')
        return mixed, drawn_boxes(seen)

    for rank, (mixed, boxes) in enumerate(reference.world.run_on_two_ranks(mix)):
        name = f'as_released.mixing_two_ranks.rank{rank}'
        vectors.put_all(name, **inputs[rank])
        outputs = dict(zip(inputs[rank], mixed, strict=False))
        vectors.put_all(f'{name}.cutmix', **outputs, boxes=boxes[2 * rank : 2 * rank + 2])
    np.random.seed(seed)


def possible_box(reference: Reference, size: tuple[int, int], width: int, at_end: bool) -> list[float]:
    """Return a row of ``record_boxes`` for a width, with the box at the start or the end of its range."""
    asked: list[tuple[float, float]] = []

    def randint(low: float, high: float = 0, size: Any = None) -> int:
        asked.append((float(low), float(high)))
        if len(asked) == 1:
            return width
        return int(high) - 1 if at_end else 0

    with patched(np.random, randint=randint):
        mask = reference.voc.generate_cutout_mask(list(size), ratio=2)
    ys, xs = torch.where(mask == 0)
    box = [int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1]
    return [*size, *asked[0], width, asked[1][1], asked[2][1], *box]


def record_boxes(reference: Reference, vectors: Vectors) -> None:
    """Record the ranges from which the sides and the position of a box are drawn."""
    rows = []
    for height, width in BOX_SIZES:
        low = int(width / 2 + 1)
        widths = {low, (low + width) // 2, width - 1}
        if width == 20:
            widths.add(16)
        for box_width in sorted(widths):
            for at_end in (False, True):
                rows.append(possible_box(reference, (height, width), box_width, at_end))
    table = np.array(rows)
    vectors.put_all(
        'cut_box',
        size=table[:, :2].astype(int),
        width_low=table[:, 2],
        width_high=table[:, 3].astype(int),
        width=table[:, 4].astype(int),
        x_start_high=table[:, 5].astype(int),
        y_start_high=table[:, 6].astype(int),
        box=table[:, 7:].astype(int),
    )


def record_group(reference: Reference, vectors: Vectors, draws: Draws, seed: int) -> None:
    """Record everything about mixing."""
    record_modes(reference, vectors, draws)
    record_two_ranks(reference, vectors, draws, seed)
    record_boxes(reference, vectors)
