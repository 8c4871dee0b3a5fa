"""Curves and tables from MMEngine's logs."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools'))
import compare_runs


def write_log(folder: Path, start: str, *entries: dict) -> None:
    log = folder / start / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(json.dumps(entry) for entry in entries))


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one method, the second interrupted and resumed; a validation tells its epoch as step."""
    write_log(tmp_path / 'a', '1', {'iter': 10, 'loss': 1.0, 'step': 10}, {'mIoU': 20.0, 'step': 1},
              {'iter': 20, 'loss': 0.5, 'step': 20}, {'mIoU': 30.0, 'step': 2})  # fmt: skip
    write_log(
        tmp_path / 'b', '1', {'iter': 10, 'step': 10}, {'mIoU': 24.0, 'step': 1}, {'iter': 15, 'step': 15}
    )
    write_log(tmp_path / 'b', '2', {'iter': 20, 'step': 20}, {'mIoU': 22.0, 'step': 2})
    return tmp_path


def test_curves_are_told_by_iteration(runs):
    assert compare_runs.read_curve(runs / 'a', 'mIoU') == {10: 20.0, 20: 30.0}
    assert compare_runs.read_curve(runs / 'b', 'mIoU') == {10: 24.0, 20: 22.0}


def test_the_table_has_mean_and_deviation_of_last_and_best(runs, capsys):
    out = runs / 'docs' / 'curves.png'
    compare_runs.main([str(out), f'x={runs / "a"}', f'x={runs / "b"}', f'y={runs / "b"}'])
    printed = capsys.readouterr().out
    assert '| x | 2 | 20 | 26.00 ± 5.66 | 27.00 ± 4.24 |' in printed
    assert '| y | 1 | 20 | 22.00 | 24.00 |' in printed
    with Image.open(out) as picture:
        assert min(picture.size) > 400
        assert len(picture.convert('RGB').getcolors(2**24)) > 50


def test_what_is_missing_is_named(runs, capsys):
    for arguments, told in (
        ([f'x={runs / "a"}', '--metric', 'teacher/mIoU'], 'no teacher/mIoU found; its logs have'),
        ([f'x={runs / "nowhere"}'], 'no */vis_data/scalars.json'),
        ([str(runs / 'a')], 'expected NAME=WORK_DIR'),
    ):
        with pytest.raises(SystemExit):
            compare_runs.main([str(runs / 'out.png'), *arguments])
        assert told in capsys.readouterr().err.replace('there is ', '')
