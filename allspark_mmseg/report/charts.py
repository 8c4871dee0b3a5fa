"""Charts as data for the page's script, and those that compare the runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..engine.scoreboard import SUPERVISED
from .groups import Group
from .logs import Curve
from .runs import Run

# logged values that no chart shows
HIDDEN = ('lr', 'base_lr', 'time', 'data_time', 'memory')
METRICS = ('aAcc', 'mAcc')
_MAX_POINTS = 400


@dataclass
class Series:
    """A curve.

    Attributes:
        name (str): Name in the legend.
        points (list): ``[iteration, value]``, or ``[iteration, mean, lowest, highest]`` over several runs.
        dashed (bool): Whether the line is dashed.
        color (int, optional): Number of its color; by default its place in the chart.
    """

    name: str
    points: list[list[float]]
    dashed: bool = False
    color: int | None = None


@dataclass
class Chart:
    """A chart of the page.

    Attributes:
        title (str): What it shows.
        note (str): How to read it.
        series (list[Series]): The curves.
        percent (bool): Whether the values are shares in [0, 1], which are shown in percent.
        marks (list): ``[iteration, text]`` of vertical lines.
        unit (str): Unit of the values.
        more (bool): Whether the chart is folded at first.
    """

    title: str
    note: str
    series: list[Series]
    percent: bool = False
    marks: list[list[Any]] = field(default_factory=list)
    unit: str = ''
    more: bool = False

    @property
    def alt(self) -> str:
        """The content in words: the last value of each of the first curves."""
        shown = [
            f'{each.name} {each.points[-1][1] * (100 if self.percent else 1):.3g}'
            + ('%' if self.percent else '')
            for each in self.series[:12]
        ]
        return f'{self.title}. Last values: {", ".join(shown)}.'

    def to_dict(self) -> dict[str, Any]:
        """Return what the page's script reads."""
        return {**asdict(self), 'alt': self.alt}


def to_points(curve: Curve) -> list[list[float]]:
    """Return the points of a curve. Of a long one, evenly spaced points and the last one."""
    items = list(curve.items())
    step = max(1, -(-len(items) // _MAX_POINTS))
    kept = items[::step] if (len(items) - 1) % step == 0 else [*items[::step], items[-1]]
    return [[iteration, float(f'{value:.5g}')] for iteration, value in kept]


def mean_points(curves: Sequence[Curve]) -> list[list[float]]:
    """Return mean, lowest and highest value of several curves, where all of them have one.

    Args:
        curves (Sequence[dict]): Iteration -> value.

    Returns:
        list[list[float]]: ``[iteration, mean, lowest, highest]``; of a single curve ``[iteration, value]``.
    """
    if len(curves) < 2:
        return to_points(curves[0]) if curves else []
    common = sorted(set.intersection(*map(set, curves)))
    values = {step: [curve[step] for curve in curves] for step in common}
    kept = to_points({step: sum(each) / len(each) for step, each in values.items()})
    return [[step, value, min(values[int(step)]), max(values[int(step)])] for step, value in kept]


def phase_marks(runs: Sequence[Run]) -> list[list[Any]]:
    """Return a mark at the end of the supervised phase of each run; equal ones once."""
    steps = sorted({run.log.boundary for run in runs if run.log.boundary})
    return [[step, '+ unlabeled images'] for step in steps]


def run_scores(run: Run) -> dict[str, Curve]:
    """Return the validation curves of a run: of the supervised phase, of the student and of the teacher."""
    if not run.summary:
        return {f'{run.name} {network}'.strip(): curve for network, curve in run.scores().items()}
    curves: dict[str, Curve] = {}
    for score in run.summary.get('scores', []):
        supervised = score['phase'] == SUPERVISED
        name = 'supervised phase' if supervised else f'{run.name} {score["network"]}'
        curves.setdefault(name, {})[score['iteration']] = score['value']
    return curves


def score_chart(groups: Sequence[Group]) -> Chart | None:
    """Make the chart of the validation metric of all groups.

    Args:
        groups (Sequence[Group]): The groups of runs; of several runs it shows mean and range.

    Returns:
        Chart, optional: The chart, or None if no run was validated.
    """
    series = []
    for color, group in enumerate(groups):
        scores = [run_scores(run) for run in group.runs]
        for name in dict.fromkeys(name for each in scores for name in each):
            points = mean_points([each[name] for each in scores if name in each])
            label = f'{group.name}: {name}' if len(groups) > 1 and not name.startswith(group.name) else name
            if points:
                shade = color if len(groups) > 1 else None
                series.append(Series(label, points, name.endswith('student'), shade))
    if not series:
        return None
    runs = [run for group in groups for run in group.runs]
    metric = runs[0].metric
    several = ' Line: mean of the runs. Band: lowest to highest.' if len(runs) > len(groups) else ''
    note = f'{metric} on the validation images, in percent.{several}'
    return Chart(f'{metric} during training', note, series, marks=phase_marks(runs), unit='%')


def comparison_charts(groups: Sequence[Group]) -> list[Chart]:
    """Make charts of all groups: the validation metric, and the other values that several runs logged.

    Args:
        groups (Sequence[Group]): The groups of runs.

    Returns:
        list[Chart]: The charts. Values of a single class are not among them.
    """
    scores = score_chart(groups)
    charts = [scores] if scores else []
    runs = [run for group in groups for run in group.runs]
    counts = Counter(name for run in runs for name, curve in run.curves.items() if len(curve) > 1)
    for name in sorted(counts):
        if counts[name] < 2 or '/' in name or name in (*HIDDEN, *METRICS, runs[0].metric):
            continue
        series = []
        for color, group in enumerate(groups):
            points = mean_points([run.curves[name] for run in group.runs if name in run.curves])
            if points:
                series.append(Series(group.name, points, color=color))
        charts.append(Chart(name, 'Logged by the training.', series, marks=phase_marks(runs)))
    return charts
