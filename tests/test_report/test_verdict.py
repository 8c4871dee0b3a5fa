"""The verdict: sentences, and intervals against SciPy."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from scipy import stats

from allspark_mmseg.report.groups import Group
from allspark_mmseg.report.logs import LogText
from allspark_mmseg.report.runs import Run
from allspark_mmseg.report.verdict import difference_interval, judge, mean_interval


def run(
    before: float | None, after: float | None, method: str = 'AllSpark', log: LogText | None = None
) -> Run:
    model = {'type': method, 'segmentor': {}} if method != 'Supervised' else {'type': 'EncoderDecoder'}
    values = {'supervised': before, method: after} if method != 'Supervised' else {}
    summary = {
        name: {'mIoU': value, 'iteration': 1, 'network': 'student'}
        for name, value in values.items()
        if value is not None
    }
    curves = {'mIoU': {1: after}} if after is not None and before is None else {}
    summary = summary if before is not None else {}
    return Run(
        Path('folder'), '', Config({'model': model}), '', summary, curves, log or LogText(1, 1, ended=True)
    )


def group(name: str, *runs: Run) -> Group:
    return Group(name, list(runs))


def test_intervals_are_those_of_scipy():
    values = np.array([7.8, 8.2, 6.9, 9.0])
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert mean_interval(values.tolist()) == pytest.approx(expected)
    assert mean_interval([1.0]) is None and difference_interval([1.0], [2.0, 3.0]) is None
    low, high = difference_interval([1.0, 2.0, 3.0], [5.0, 6.0, 7.0])
    assert (low + high) / 2 == pytest.approx(4) and low < 4 - stats.t.ppf(0.975, 4) * (2 / 3) ** 0.5 + 1e-6


@pytest.mark.parametrize(
    ('pairs', 'tone', 'words'),
    [
        (
            [(40, 46)],
            'good',
            'The unlabeled images paid: A reached 46.0 mIoU, 6.0 above supervised training (40.0)',
        ),
        ([(40, 39)], 'bad', 'The unlabeled images did not pay: A reached 39.0 mIoU, 1.0 below'),
        (
            [(40, 40.5)],
            'open',
            'not certain whether the unlabeled images pay: A reached 40.5 mIoU, 0.5 above',
        ),
        (
            [(40, 46), (41, 46.5), (39, 45.2)],
            'good',
            'on average over 3 runs, 5.9 above supervised training (40.0)',
        ),
        ([(40, 44), (41, 40), (39, 42)], 'open', 'interval of the difference is -4.6 to +8.6'),
        ([(40, 38), (41, 39.1), (39, 36.9)], 'bad', 'The unlabeled images did not pay'),
    ],
)
def test_the_verdict_of_a_method_with_two_phases(pairs, tone, words):
    verdict = judge([group('A', *(run(before, after) for before, after in pairs))])
    assert verdict.tone == tone and words in verdict.sentence
    assert any('This is one training' in note for note in verdict.notes) is (len(pairs) == 1)
    assert verdict.after - verdict.before == pytest.approx(np.mean([b - a for a, b in pairs]))


def phases(run: Run, *supervised: float, control: bool = False) -> Run:
    scores = [dict(phase='supervised', iteration=i, value=value) for i, value in enumerate(supervised)]
    run.summary.update(scores=scores, control=control)
    return run


def test_longer_training_can_be_a_part_of_the_gain():
    verdict = judge([group('A', phases(run(40, 46), 38, 40))])
    assert verdict.tone == 'open'
    assert verdict.sentence == (
        'The second phase gained: A reached 46.0 mIoU, 6.0 above supervised training (40.0). The supervised '
        'phase was still improving when it ended.'
    )
    assert any('with --control' in note for note in verdict.notes)
    assert judge([group('A', phases(run(40, 46), 38, 40, 39))]).tone == 'good'
    assert judge([group('A', phases(run(40, 39), 38, 40))]).tone == 'bad'


def test_the_control_is_the_baseline():
    control = group('A, control', phases(run(40, 43), 40, control=True))
    verdict = judge([group('A', phases(run(40, 46), 38, 40)), control])
    assert verdict.tone == 'good' and verdict.group == 'A'
    assert 'A reached 46.0 mIoU, 3.0 above the control (43.0)' in verdict.sentence
    assert 'the same training without losses of unlabeled images, A, control' in verdict.notes[0]
    assert judge([control]).tone == 'none'


def test_the_best_method_leads():
    verdict = judge([group('A', run(40, 44)), group('B', run(40, 47)), group('C', run(40, 43))])
    assert verdict.group == 'B' and '7.0 above' in verdict.sentence


def test_a_method_without_phases_is_compared_with_supervised_runs():
    semi = [run(None, value, 'FixMatch') for value in (45.0, 46.0)]
    plain = [run(None, value, 'Supervised') for value in (40.0, 41.0)]
    verdict = judge([group('FixMatch', *semi), group('Supervised', *plain)])
    assert '5.0 above supervised training (40.5)' in verdict.sentence and verdict.interval is not None
    assert 'the separate runs Supervised' in verdict.notes[0]
    alone = judge([group('FixMatch', *semi)])
    assert alone.tone == 'none' and 'There is no supervised training to compare it with' in alone.sentence
    other = judge([group('Supervised', *plain)])
    assert 'There is no semi-supervised training' in other.sentence and other.after == 40.5


def test_a_training_in_progress_is_named():
    log = LogText(30, 40, seconds_ago=5)
    early = judge([group('A', run(40, None, log=log))])
    assert (
        early.sentence
        == 'A is still training, at iteration 30 of 40; the supervised phase reached 40.0 mIoU.'
    )
    later = judge([group('A', run(40, 46, log=log))])
    assert later.tone == 'open' and later.sentence.startswith('So far: the unlabeled images paid')
    assert 'folder is still training (iteration 30 of 40); its values can change.' in later.notes
