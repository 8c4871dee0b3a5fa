"""Quality of pseudo-labels on images with masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmseg.structures import SegDataSample
from prettytable import PrettyTable
from torch import Tensor

from ..pseudo_label import IGNORE_INDEX
from ..thresholds import most_probable
from ..utils import full_precision

# a class has too many pseudo-labels only if its true share is lower by at least this
_SINK_MARGIN = 0.02


@dataclass(frozen=True)
class PseudoLabelQuality:
    """Counts of pixels, and the precision and coverage of the pseudo-labels of each class c.

    .. code-block:: text

        precision_c = pixels of class c with pseudo-label c / pixels with pseudo-label c
        coverage_c  = pixels of class c with pseudo-label c / pixels of class c

    Ignored pixels (255) do not count. A value without pixels in its denominator is NaN.

    Attributes:
        labeled (np.ndarray): (C,) int64, pixels with pseudo-label c.
        correct (np.ndarray): (C,) int64, pixels of class c with pseudo-label c.
        true (np.ndarray): (C,) int64, pixels of class c.
        confident (float): Share of all pixels, ignored pixels included, that have a pseudo-label, in [0, 1].
    """

    labeled: np.ndarray
    correct: np.ndarray
    true: np.ndarray
    confident: float

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> 'PseudoLabelQuality':
        """Make the counts from a sum of matrices (C + 1, C + 1) int64 of ``pseudo_label_matrix``."""
        counts = matrix.cpu().numpy()
        known = counts[:-1]
        confident = counts[:, :-1].sum() / max(counts.sum(), 1)
        return cls(known[:, :-1].sum(axis=0), known.diagonal().copy(), known.sum(axis=1), float(confident))

    @property
    def precision(self) -> np.ndarray:
        """(C,) float64 in [0, 1]: share of the pseudo-labels of each class that are correct, or NaN."""
        return _ratio(self.correct, self.labeled)

    @property
    def coverage(self) -> np.ndarray:
        """(C,) float64 in [0, 1]: share of the pixels of each class with its pseudo-label, or NaN."""
        return _ratio(self.correct, self.true)

    @property
    def mean_precision(self) -> float:
        """Mean precision of the classes that have pseudo-labels; NaN if there are none."""
        return _mean(self.precision)

    @property
    def mean_coverage(self) -> float:
        """Mean coverage of the classes that have pixels; NaN if there are none."""
        return _mean(self.coverage)

    def table(self, names: Sequence[str]) -> str:
        """Format precision and coverage in percent, one line per class, and their means.

        Args:
            names (Sequence[str]): Names of the C classes.

        Returns:
            str: The table, in which ``-`` stands for NaN, and a line with the means and ``confident``.
        """
        table = PrettyTable(['class', 'precision', 'coverage'], align='r')
        table.align['class'] = 'l'
        for row in zip(names, self.precision, self.coverage, strict=True):
            table.add_row([row[0], *map(_percent, row[1:])])
        return (
            f'{table.get_string()}\nmean precision {_percent(self.mean_precision)}, mean coverage '
            f'{_percent(self.mean_coverage)}; {self.confident:.1%} of the pixels have a pseudo-label'
        )

    def scalars(self, names: Sequence[str]) -> dict[str, float]:
        """Name the values for the visualizer, without those that are NaN.

        Args:
            names (Sequence[str]): Names of the C classes.

        Returns:
            dict[str, float]: ``pseudo_quality/precision.NAME`` and ``pseudo_quality/coverage.NAME`` of each
            class, ``pseudo_quality/mean_precision``, ``mean_coverage`` and ``confident``, in [0, 1].
        """
        values = {key: getattr(self, key) for key in ('mean_precision', 'mean_coverage', 'confident')}
        for key in ('precision', 'coverage'):
            by_class = zip(names, getattr(self, key).tolist(), strict=True)
            values |= {f'{key}.{name}': value for name, value in by_class}
        return {f'pseudo_quality/{key}': value for key, value in values.items() if not np.isnan(value)}

    def find_drop(self, best: float, max_drop: float) -> str | None:
        """Describe a fall of the mean precision.

        Args:
            best (float): The highest mean precision so far.
            max_drop (float): The largest fall that is not described, in (0, 1].

        Returns:
            str, optional: A warning, or None if the mean precision did not fall by more than ``max_drop``.
        """
        if not best - self.mean_precision > max_drop:
            return None
        return (
            f'The mean precision of the pseudo-labels fell from {best:.1%} to {self.mean_precision:.1%}. The '
            'model may be learning its own errors. Keep the checkpoint with the best validation result. For '
            'the next run, raise threshold or lower unlabeled_weight.'
        )

    def find_sink(self, names: Sequence[str], sink_share: float) -> str | None:
        """Describe a class that has almost all pseudo-labels.

        Args:
            names (Sequence[str]): Names of the C classes.
            sink_share (float): The largest share of pseudo-labels that is not described, in (0, 1].

        Returns:
            str, optional: A warning, or None if no class has more than ``sink_share`` of the pseudo-labels,
            or if the class has about the same share of the pixels.
        """
        share, true = (_ratio(counts, counts.sum(keepdims=True)) for counts in (self.labeled, self.true))
        index = int(share.argmax())
        if not (share[index] > sink_share and share[index] - true[index] >= _SINK_MARGIN):
            return None
        name = names[index]
        return (
            f'{share[index]:.1%} of the pseudo-labels are {name}, but only {true[index]:.1%} of the pixels. '
            f'Such pseudo-labels teach the model to predict {name} everywhere. Label more images of the '
            'other classes, or train on the labeled images alone and start from that checkpoint (load_from).'
        )

    def find_unlearnable(self, names: Sequence[str]) -> str | None:
        """Describe the classes that occur, but never get their pseudo-label.

        Args:
            names (Sequence[str]): Names of the C classes.

        Returns:
            str, optional: A warning, or None if there is no such class.
        """
        missing = [names[index] for index in np.flatnonzero((self.true > 0) & (self.correct == 0)).tolist()]
        if not missing:
            return None
        return (
            f'No pixel of the following classes gets their pseudo-label: {", ".join(missing)}. So far, '
            'pseudo-labels cannot teach these classes. If this remains so, label more images of them, use '
            "crops that contain them, or, with another threshold, threshold=dict(type='ClassBalanced')."
        )


def pseudo_label_matrix(logits: Tensor, truth: Tensor, thresholds: Tensor) -> Tensor:
    """Count the pixels of an image by true class and pseudo-label.

    Args:
        logits (Tensor): (C, H, W) float.
        truth (Tensor): (H, W) integer, in 0..C-1. Other labels, such as 255, are ignored pixels.
        thresholds (Tensor): (C,) float, the minimum confidence of a pseudo-label of each class, in [0, 1].

    Returns:
        Tensor: (C + 1, C + 1) int64. Row: true class, the last row for ignored pixels. Column: pseudo-label,
        the last column for pixels without one.
    """
    num_classes = len(logits)
    label, confidence = most_probable(full_precision(logits)[None])
    column = label[0].masked_fill(confidence[0] < thresholds.to(confidence)[label[0]], num_classes)
    row = truth.to(column).clamp(max=num_classes)
    cells = (row * (num_classes + 1) + column).flatten()
    return torch.bincount(cells, minlength=(num_classes + 1) ** 2).view(num_classes + 1, -1)


def check_mask(sample: SegDataSample, num_classes: int) -> None:
    """Check that pseudo-labels of an image can be compared with its mask.

    Args:
        sample (SegDataSample): A prediction.
        num_classes (int): Number of classes C.

    Raises:
        ValueError: The sample has no mask, or its mask has another size or labels outside 0..C-1 and 255.
    """
    if 'gt_sem_seg' not in sample:
        problem = 'has no mask'
    elif sample.gt_sem_seg.shape != sample.seg_logits.shape:
        problem = f'is {sample.seg_logits.shape} (height, width), but its mask is {sample.gt_sem_seg.shape}'
    else:
        truth = sample.gt_sem_seg.data
        labels = truth[(truth >= num_classes) & (truth != IGNORE_INDEX)].unique().tolist()
        if not labels:
            return
        problem = f'has a mask with the labels {labels}'
    raise ValueError(
        f'PseudoLabelQualityHook: {sample.get("img_path")} of dataloader {problem}. Expected a mask of the '
        f'size of the image with labels in 0..{num_classes - 1}, or {IGNORE_INDEX}. Correct the list and the '
        "masks, and add dict(type='LoadAnnotations') to the pipeline, after the steps that change the size."
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    # without the warning of NumPy about 0 / 0
    return part / np.where(whole > 0, whole, np.nan)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float('nan')


def _percent(value: float) -> str:
    return '-' if np.isnan(value) else f'{value:.1%}'
