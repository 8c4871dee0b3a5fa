"""Curves and facts from MMEngine's logs."""

from datetime import timedelta

import pytest

from allspark_mmseg.report.logs import read_curve, read_curves, read_log_text

from ..helpers.work_dirs import write_entries, write_log


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one method, epochs of 12 steps logged each 5th, the second interrupted and resumed."""
    write_entries(
        tmp_path / 'a', '1',
        [{'epoch': 1, 'iter': 5, 'step': 5}, {'epoch': 1, 'iter': 10, 'step': 10}, {'mIoU': 20.0, 'step': 1},
        {'epoch': 2, 'iter': 17, 'step': 17}, {'epoch': 2, 'iter': 22}, {'mIoU': 30.0, 'step': 2}],
    )  # fmt: skip
    start = [{'epoch': 1, 'iter': 5, 'step': 5}, {'mIoU': 24.0, 'step': 1}, {'epoch': 2, 'iter': 17}]
    write_entries(tmp_path / 'b', '1', start)
    write_entries(tmp_path / 'b', '2', [{'epoch': 2, 'iter': 17, 'step': 17}, {'mIoU': 22.0, 'step': 2}])
    write_entries(tmp_path / 'by_iteration', '1', [{'iter': 10, 'step': 10}, {'mIoU': 9.0, 'step': 12}])
    return tmp_path


def test_curves_are_indexed_by_iteration(runs):
    assert read_curve(runs / 'a', 'mIoU') == {12: 20.0, 24: 30.0}
    assert read_curve(runs / 'b', 'mIoU') == {12: 24.0, 24: 22.0}
    assert read_curve(runs / 'by_iteration', 'mIoU') == {12: 9.0}


def test_a_training_that_began_again_replaces_the_first_one(tmp_path):
    write_entries(tmp_path, '1', [{'iter': 10, 'loss': 9.0}, {'iter': 20, 'loss': 8.0}])
    write_entries(tmp_path, '2', [{'iter': 10, 'loss': 3.0}])
    assert read_curve(tmp_path, 'loss') == {10: 3.0}


def test_an_incomplete_line_and_values_that_are_not_finite_are_skipped(tmp_path):
    write_entries(tmp_path, '1', [{'iter': 10, 'loss': 2.0, 'x': float('nan')}])
    log = tmp_path / '1' / 'vis_data' / 'scalars.json'
    log.write_text(log.read_text() + '\n{"iter": 20, "lo')
    assert read_curves(tmp_path) == {'loss': {10: 2.0}}


def test_missing_logs_and_metrics_are_reported(runs):
    with pytest.raises(ValueError, match=r'no teacher/mIoU found; its logs have \[.mIoU.\]'):
        read_curve(runs / 'a', 'teacher/mIoU')
    with pytest.raises(ValueError, match=r'there is no \*/vis_data/scalars.json'):
        read_curve(runs / 'nowhere', 'mIoU')


def test_facts_are_those_of_all_starts(tmp_path):
    end = 'INFO - The unlabeled images gained 2. chosen.pth is the student'
    write_log(
        tmp_path,
        '1',
        ['INFO - x', 'INFO - Iter(train) [ 50/200]', 'WARNING - Few pseudo-labels.', 'INFO - y'],
    )
    lines = ['INFO - The supervised phase ended at iteration 60. Then', 'INFO - Iter(train) [ 70/200]']
    write_log(
        tmp_path, '2', [*lines, 'WARNING - Few pseudo-labels.', 'WARNING - deprecated', end], timedelta()
    )
    write_log(tmp_path, '3', ['INFO - Iter(test) [1/1]'])  # a test is not part of the training
    facts = read_log_text(tmp_path)
    assert (facts.step, facts.total, facts.epoch, facts.boundary, facts.ended) == (70, 200, None, 60, True)
    assert facts.minutes == pytest.approx(3 + 4, abs=0.05) and facts.seconds_ago < 60
    assert list(dict.fromkeys(facts.warnings)) == ['Few pseudo-labels.'] and not facts.stopped
    stop = 'WARNING - Stopped by a signal after iteration 80. iter_80.pth is saved; the same command with'
    write_log(tmp_path, '4', ['INFO - Iter(train) [ 80/200]', stop], timedelta())
    assert read_log_text(tmp_path).stopped


def test_epochs_and_environment(tmp_path):
    write_log(tmp_path, '1', ['INFO - Epoch(train)  [3][100/120]  lr: 1'])
    log = tmp_path / '1' / '1.log'
    log.write_text(
        '    PyTorch: 2.13.0\n    PyTorch compiling details: PyTorch built\n - Config:\n' + log.read_text()
    )
    facts = read_log_text(tmp_path)
    assert (facts.epoch, facts.step, facts.total) == (3, 100, 120)
    assert facts.environment == {'PyTorch': '2.13.0'}
