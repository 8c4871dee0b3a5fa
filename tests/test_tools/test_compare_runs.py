"""Curves and tables from MMEngine's logs."""

import json
from pathlib import Path

import compare_runs
import pytest
from PIL import Image


def write_log(folder: Path, start: str, *entries: dict) -> None:
    log = folder / start / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(json.dumps(entry) for entry in entries))


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one method, epochs of 12 steps logged each 5th, the second interrupted and resumed."""
    write_log(
        tmp_path / 'a', '1',
        {'epoch': 1, 'iter': 5, 'step': 5}, {'epoch': 1, 'iter': 10, 'step': 10}, {'mIoU': 20.0, 'step': 1},
        {'epoch': 2, 'iter': 17, 'step': 17}, {'epoch': 2, 'iter': 22, 'step': 22}, {'mIoU': 30.0, 'step': 2},
    )  # fmt: skip
    write_log(
        tmp_path / 'b',
        '1',
        {'epoch': 1, 'iter': 5, 'step': 5},
        {'mIoU': 24.0, 'step': 1},
        {'epoch': 2, 'iter': 17},
    )
    write_log(tmp_path / 'b', '2', {'epoch': 2, 'iter': 17, 'step': 17}, {'mIoU': 22.0, 'step': 2})
    write_log(tmp_path / 'by_iteration', '1', {'iter': 10, 'step': 10}, {'mIoU': 9.0, 'step': 12})
    return tmp_path


def test_curves_are_indexed_by_iteration(runs):
    assert compare_runs.read_curve(runs / 'a', 'mIoU') == {12: 20.0, 24: 30.0}
    assert compare_runs.read_curve(runs / 'b', 'mIoU') == {12: 24.0, 24: 22.0}
    assert compare_runs.read_curve(runs / 'by_iteration', 'mIoU') == {12: 9.0}


def test_the_table_has_mean_and_deviation_of_last_and_best(runs, capsys):
    out = runs / 'docs' / 'curves.png'
    compare_runs.main([str(out), f'x={runs / "a"}', f'x={runs / "b"}', f'y={runs / "b"}'])
    printed = capsys.readouterr().out
    assert '| x | 2 | 24 | 26.00 ± 5.66 | 27.00 ± 4.24 |' in printed
    assert '| y | 1 | 24 | 22.00 | 24.00 |' in printed
    with Image.open(out) as picture:
        assert min(picture.size) > 400
        assert len(picture.convert('RGB').getcolors(2**24)) > 50


def test_each_metric_has_its_own_panel(runs, capsys):
    write_log(
        runs / 'c', '1', {'epoch': 1, 'iter': 5, 'step': 5, 'loss': 3.0}, {'mIoU': 20.0, 'step': 1},
        {'epoch': 2, 'iter': 17, 'step': 17, 'loss': 1.0}, {'mIoU': 30.0, 'step': 2},
    )  # fmt: skip
    assert compare_runs.read_curve(runs / 'c', 'loss') == {5: 3.0, 17: 1.0}
    out = runs / 'panels.png'
    arguments = [str(out), f'x={runs / "a"}', f'z={runs / "c"}', '--metric', 'mIoU', 'loss']
    compare_runs.main(arguments)
    printed = capsys.readouterr().out
    assert '| z | 1 | 17 | 1.00 | 1.00 |' in printed and printed.count('| x |') == 1
    with Image.open(out) as picture:
        assert picture.width > 2.5 * picture.height


def test_missing_logs_and_metrics_are_reported(runs, capsys):
    for arguments, message in (
        ([f'x={runs / "a"}', '--metric', 'teacher/mIoU'], 'no teacher/mIoU found; its logs have'),
        ([f'x={runs / "a"}', '--metric', 'mIoU', 'loss'], 'no run logs loss'),
        ([f'x={runs / "nowhere"}'], 'no */vis_data/scalars.json'),
        ([str(runs / 'a')], 'expected NAME=WORK_DIR'),
    ):
        with pytest.raises(SystemExit):
            compare_runs.main([str(runs / 'out.png'), *arguments])
        assert message in capsys.readouterr().err.replace('there is ', '')
