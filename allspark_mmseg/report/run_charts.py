"""The charts of the values that one training logged."""

from collections.abc import Mapping

from .charts import HIDDEN, METRICS, Chart, Series, phase_marks, to_points
from .runs import Run

# beginning of the name in the log -> title, and how to read it; in this order on the page
_CLASS_CHARTS = {
    'pseudo.share/': (
        'Share of each class in the pseudo-labels',
        'A class that shrinks to 0 learns nothing more from unlabeled images. Hide the largest class to see '
        'the others.',
    ),
    'pseudo_quality/precision.': (
        'Precision of the pseudo-labels of each class',
        'Share of the pseudo-labels of a class that are correct, on the images with masks.',
    ),
    'pseudo_quality/coverage.': (
        'Coverage of the pseudo-labels of each class',
        'Share of the pixels of a class that get its pseudo-label.',
    ),
}
_PSEUDO = {
    'pseudo.confident': 'share of pixels, training crops',
    'pseudo_quality/confident': 'share of pixels, images with masks',
    'pseudo_quality/mean_precision': 'mean precision',
    'pseudo_quality/mean_coverage': 'mean coverage',
}


def run_charts(run: Run) -> list[Chart]:
    """Make the charts of the values that one training logged.

    Args:
        run (Run): The run.

    Returns:
        list[Chart]: Losses, pseudo-labels, values of each class, and all other values.
    """
    left = {name: curve for name, curve in run.curves.items() if name not in HIDDEN and len(curve) > 1}
    for name in list(left):
        if name.rsplit('/', 1)[-1] in (run.metric, *METRICS):
            del left[name]
    charts: list[Chart] = []

    def add(
        title: str, note: str, labels: Mapping[str, str], percent: bool = False, more: bool = False
    ) -> None:
        """Move the curves with these names (name in the log -> in the legend) to a chart."""
        series = [
            Series(label, to_points(left.pop(name)), color=color)
            for color, (name, label) in enumerate(labels.items())
            if name in left
        ]
        if series:
            charts.append(Chart(title, note, series, percent, phase_marks([run]), more=more))

    add('Losses', 'Weighted as in the total loss.', {name: name for name in left if 'loss' in name})
    note = 'Share of pixels that have one; mean precision and coverage over the classes.'
    add('Pseudo-labels', note, _PSEUDO, percent=True)
    for prefix, (title, note) in _CLASS_CHARTS.items():
        add(title, note, _by_class(run, prefix), percent=True)
    for prefix in sorted({name.partition('/')[0] for name in left if '/' in name}):
        labels = {name: name.partition('/')[2] for name in left if name.startswith(f'{prefix}/')}
        add(prefix, 'Logged for each class.', labels, more=True)
    for name in list(left):
        add(name, 'Logged by the training.', {name: name}, more=True)
    return charts


def _by_class(run: Run, prefix: str) -> dict[str, str]:
    """Return name in the log -> class, in the order of the classes, so that all charts have equal colors."""
    names = run.classes or [name[len(prefix) :] for name in run.curves if name.startswith(prefix)]
    return {f'{prefix}{name}': name for name in names}
