"""The table of classes: IoU before and after, pixels, and pseudo-labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .collect import Report
from .evaluate import Evaluation
from .groups import Group

_PSEUDO = {
    'pseudo-label share': ('pseudo.share/', 'Share of the class in the pseudo-labels, last logged.'),
    'precision': (
        'pseudo_quality/precision.',
        'Share of the pseudo-labels of the class that are correct, last logged.',
    ),
    'coverage': (
        'pseudo_quality/coverage.',
        'Share of the pixels of the class that get its pseudo-label, last logged.',
    ),
}
_TOP_CONFUSIONS = 5


@dataclass
class Column:
    """A column of the table.

    Attributes:
        title (str): Heading.
        values (list): A number for each class, or None.
        note (str): What the numbers are.
        gain (bool): Whether the numbers are differences, which are drawn as bars from zero.
    """

    title: str
    values: list[float | None]
    note: str = ''
    gain: bool = False

    @property
    def scale(self) -> float:
        """The largest absolute value, at least 1, for the length of the bars."""
        return max([1.0, *(abs(value) for value in self.values if value is not None)])


@dataclass
class ClassTable:
    """The table.

    Attributes:
        names (list[str]): Names of the classes.
        colors (list[str]): Their colors, ``#RRGGBB``.
        columns (list[Column]): The columns, all in percent.
    """

    names: list[str]
    colors: list[str]
    columns: list[Column] = field(default_factory=list)


def class_table(report: Report) -> ClassTable | None:
    """Make the table of classes of the leading runs, with the IoU of other methods.

    Args:
        report (Report): The report.

    Returns:
        ClassTable, optional: The table, or None if the classes are not known.
    """
    names, palette = _classes(report)
    if not names:
        return None
    table = ClassTable(names, ['#{:02x}{:02x}{:02x}'.format(*color) for color in palette])
    before, after = report.before_and_after()
    shown = before or after
    if shown:
        share = _to_list(100 * shown[0].pixel_share)
        table.columns.append(Column('pixels', share, 'Share of the pixels of the validation images.'))
    table.columns += _iou_columns(report, before, after)
    for title, (prefix, note) in _PSEUDO.items():
        values = [_last_logged(report.lead, f'{prefix}{name}') for name in names]
        if any(value is not None for value in values):
            table.columns.append(Column(title, values, note))
    return table if table.columns else None


def _iou_columns(report: Report, before: list[Evaluation], after: list[Evaluation]) -> list[Column]:
    columns = []
    for evaluations in (before, after):
        if evaluations:
            title = f'IoU {evaluations[0].network.name}'
            columns.append(Column(title, _to_list(_mean_iou(evaluations)), _over(evaluations)))
    if before and after:
        gain = _mean_iou(after) - _mean_iou(before)
        note = f'IoU {after[0].network.name} minus IoU {before[0].network.name}.'
        columns.append(Column('gain', _to_list(gain), note, gain=True))
    used = [id(each) for each in [*before, *after]]
    for group in report.groups:
        others = report.of(group, supervised=not group.semi_supervised)
        if others and id(others[0]) not in used:
            columns.append(Column(f'IoU {group.name}', _to_list(_mean_iou(others)), _over(others)))
    return columns


def _over(evaluations: list[Evaluation]) -> str:
    return f'Mean of {len(evaluations)} runs.' if len(evaluations) > 1 else ''


def _mean_iou(evaluations: Sequence[Evaluation]) -> np.ndarray:
    return np.mean([each.iou for each in evaluations], axis=0)


def _to_list(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


def _last_logged(group: Group, name: str) -> float | None:
    """Return the mean over the runs of the last value in percent, or None."""
    last = [run.curves[name][max(run.curves[name])] for run in group.runs if name in run.curves]
    return round(100 * float(np.mean(last)), 4) if last else None


def _classes(report: Report) -> tuple[list[str], list[tuple[int, ...]]]:
    """Return names and colors of the classes, of the validation set or else of the config."""
    meta = report.lead.runs[0].metainfo if report.dataset is None else report.dataset.metainfo
    names = list(meta.get('classes') or ())
    palette = [tuple(map(int, color)) for color in meta.get('palette') or ()]
    return names, [*palette, *[(128, 128, 128)] * (len(names) - len(palette))]


def row_percent(matrix: np.ndarray) -> list[list[float | None]]:
    """Divide each row of a confusion matrix by its sum.

    Args:
        matrix (np.ndarray): ``(C, C)`` pixels by true class (row) and prediction.

    Returns:
        list[list[float]]: Percent, or None in the rows of classes without pixels.
    """
    total = matrix.sum(axis=1, keepdims=True)
    percent = 100 * matrix / np.where(total > 0, total, np.nan)
    return [[round(value, 2) if np.isfinite(value) else None for value in row] for row in percent.tolist()]


def top_confusions(matrix: np.ndarray, names: Sequence[str]) -> list[tuple[float, str, str]]:
    """Return the most frequent confusions, by their share in the true class.

    Args:
        matrix (np.ndarray): ``(C, C)`` pixels by true class (row) and prediction.
        names (Sequence[str]): Names of the C classes.

    Returns:
        list[tuple[float, str, str]]: Percent of the true class, the true class, and what is predicted.
    """
    found = [
        (value, names[row], names[column])
        for row, values in enumerate(row_percent(matrix))
        for column, value in enumerate(values)
        if row != column and value
    ]
    return sorted(found, reverse=True)[:_TOP_CONFUSIONS]
