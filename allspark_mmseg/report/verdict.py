"""The verdict of a report: whether the unlabeled images pay, with the interval over the seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean

from scipy.stats import t, ttest_ind

from .groups import Group

CONFIDENCE = 0.95
# a smaller gain of a single training can come from its seed
SINGLE_GAIN = 1.0


@dataclass
class Verdict:
    """The first thing that a report says.

    Attributes:
        tone (str): ``'good'``, ``'bad'``, ``'open'`` (not certain) or ``'none'`` (nothing to compare).
        sentence (str): The verdict.
        notes (list[str]): What limits it.
        before (float, optional): Mean of the supervised values, in percent.
        after (float, optional): Mean of the best values, in percent.
        interval (tuple[float, float], optional): Of the gain, see :func:`mean_interval`.
        group (str): Name of the runs that the verdict is about.
        metric (str): Name of the metric.
    """

    tone: str
    sentence: str
    notes: list[str] = field(default_factory=list)
    before: float | None = None
    after: float | None = None
    interval: tuple[float, float] | None = None
    group: str = ''
    metric: str = 'mIoU'


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the confidence interval of the mean of normally distributed values (Student's t).

    Args:
        values (Sequence[float]): At least two values for an interval.

    Returns:
        tuple[float, float], optional: The 95 % interval, or None for fewer than two values.
    """
    if len(values) < 2:
        return None
    center, spread = mean(values), _standard_error(values)
    margin = spread * float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return center - margin, center + margin


def _standard_error(values: Sequence[float]) -> float:
    center = mean(values)
    return (sum((value - center) ** 2 for value in values) / (len(values) - 1) / len(values)) ** 0.5


def difference_interval(first: Sequence[float], last: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of ``mean(last) - mean(first)`` of separate runs (Welch).

    Args:
        first (Sequence[float]): At least two values for an interval.
        last (Sequence[float]): At least two values for an interval.

    Returns:
        tuple[float, float], optional: The interval, or None if there are too few values.
    """
    if min(len(first), len(last)) < 2:
        return None
    interval = ttest_ind(last, first, equal_var=False).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def judge(groups: Sequence[Group]) -> Verdict:
    """Compare supervised and semi-supervised training.

    The runs with the highest mean are compared with the runs of ``train --control``; or else with their own
    supervised phase, or with a group of supervised runs.

    Args:
        groups (Sequence[Group]): The groups of runs.

    Returns:
        Verdict: The verdict.
    """
    semi = [group for group in groups if group.semi_supervised and group.values('best')]
    controls = [group for group in semi if group.control]
    semi = [group for group in semi if not group.control]
    if not semi:
        return _without_comparison(groups)
    lead = max(semi, key=lambda group: group.mean_best)
    gains = lead.values('gain')
    longer = False
    if controls:
        other = max(controls, key=lambda group: group.mean_best)
        before, after = other.values('best'), lead.values('best')
        interval = difference_interval(before, after)
        baseline = f'the same training without losses of unlabeled images, {other.name}'
    elif gains:
        longer = any(run.still_improving for run in lead.runs)
        pairs = [run for run in lead.runs if run.gain is not None]
        before = [run.supervised.value for run in pairs if run.supervised]
        after = [run.best.value for run in pairs if run.best]
        interval, baseline = mean_interval(gains), 'its supervised phase'
    else:
        others = [group for group in groups if not group.semi_supervised and group.values('best')]
        if not others:
            return _without_comparison(groups)
        other = max(others, key=lambda group: group.mean_best)
        before, after = other.values('best'), lead.values('best')
        interval, baseline = difference_interval(before, after), f'the separate runs {other.name}'
    verdict = _compare(lead, before, after, interval, 'the control' if controls else 'supervised training')
    if longer and verdict.tone == 'good':
        verdict.tone = 'open'
        gained = verdict.sentence.replace('The unlabeled images paid', 'The second phase gained')
        verdict.sentence = f'{gained} The supervised phase was still improving when it ended.'
        verdict.notes.append(
            'A part of the gain can be that of longer training. Run the same train command with --control, '
            'which repeats the second phase without losses of unlabeled images, and add its work dir.'
        )
    if any(run.state == 'training' for run in lead.runs):
        verdict.tone = 'open'
        verdict.sentence = f'So far: {verdict.sentence[0].lower()}{verdict.sentence[1:]}'
    verdict.notes += _limits(lead, len(after), baseline)
    verdict.notes += _unfinished(groups)
    return verdict


def _compare(
    lead: Group,
    before: Sequence[float],
    after: Sequence[float],
    interval: tuple[float, float] | None,
    baseline: str,
) -> Verdict:
    metric, first, last = lead.runs[0].metric, mean(before), mean(after)
    gain = last - first
    seeds = f' on average over {len(after)} runs' if len(after) > 1 else ''
    reached = f'{lead.name} reached {last:.1f} {metric}{seeds}'
    if interval is None:
        certain = gain <= 0 or gain >= SINGLE_GAIN
    else:
        certain = interval[0] > 0 or interval[1] < 0
    if certain and gain > 0:
        tone, sentence = 'good', f'The unlabeled images paid: {reached}, {gain:.1f} above'
    elif certain:
        tone, sentence = 'bad', f'The unlabeled images did not pay: {reached}, {-gain:.1f} below'
    else:
        side = 'above' if gain > 0 else 'below'
        tone, sentence = (
            'open',
            f'It is not certain whether the unlabeled images pay: {reached}, {abs(gain):.1f} {side}',
        )
    sentence += f' {baseline} ({first:.1f})'
    if interval:
        sentence += f'; the 95 % interval of the difference is {interval[0]:+.1f} to {interval[1]:+.1f}'
    return Verdict(tone, f'{sentence}.', [], first, last, interval, lead.name, metric)


def _limits(lead: Group, count: int, baseline: str) -> list[str]:
    notes = [
        f'{lead.name} is compared with {baseline}. Each value is the best validation of a training, on the '
        'images that also chose the checkpoint.'
    ]
    if count == 1:
        notes.append(
            'This is one training. With another seed, the result can differ by a point or more: add the work '
            'dirs of two more seeds to see an interval.'
        )
    if count == 2:
        notes.append('The interval of two runs is wide. A third one makes it much narrower.')
    return notes


def _unfinished(groups: Sequence[Group]) -> list[str]:
    words = dict(training='is still training', stopped='stopped before its end')
    return [
        f'{run.work_dir} {words[run.state]} ({run.position}); its values can change.'
        for group in groups
        for run in group.runs
        if run.state in words
    ]


def _without_comparison(groups: Sequence[Group]) -> Verdict:
    """Return the verdict where supervised and semi-supervised training cannot be compared yet."""
    lead = max(groups, key=lambda group: group.mean_best)
    run, values, notes = lead.runs[0], lead.values('best'), _unfinished(groups)
    if not values:
        supervised = lead.values('supervised')
        found = f'; the supervised phase reached {mean(supervised):.1f} {run.metric}' if supervised else ''
        state = 'is still training' if run.state == 'training' else 'has no result yet'
        verdict = Verdict('none', f'{lead.name} {state}, at {run.position}{found}.', notes)
        verdict.before = mean(supervised) if supervised else None
    else:
        over = f' on average over {len(values)} runs' if len(values) > 1 else ''
        missing = 'supervised' if lead.semi_supervised else 'semi-supervised'
        verdict = Verdict(
            'none',
            f'{lead.name} reached {mean(values):.1f} {run.metric}{over}. There is no {missing} training to '
            'compare it with.',
            [f'Add the work dir of a {missing} run on the same data to see whether unlabeled images pay.'],
        )
        verdict.notes += notes
        verdict.after = mean(values)
    verdict.group, verdict.metric = lead.name, run.metric
    return verdict
