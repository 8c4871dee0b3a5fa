"""The scores of a run, as show_summary.py prints them."""

import json

import pytest
from show_summary import main

SUMMARY = {
    'supervised': {'mIoU': 40.31, 'iteration': 800, 'minutes': 2.04, 'network': 'student', 'last': 40.0},
    'AllSpark': {'mIoU': 46.0, 'iteration': 1700, 'minutes': 5.11, 'network': 'teacher', 'last': 45.9},
    'chosen': 'AllSpark',
    'gain': 5.69,
    'scores': [],
}


def test_phases_gain_and_choice(tmp_path, capsys):
    (tmp_path / 'summary.json').write_text(json.dumps(SUMMARY))
    main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        'supervised   mIoU 40.31 (student at iteration 800), 2.0 minutes',
        'AllSpark     mIoU 46.00 (teacher at iteration 1700), 5.1 minutes',
        'gain         +5.69; chosen.pth is AllSpark.pth',
    ]


def test_missing_summary_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code == 2
    assert f'{tmp_path}/summary.json does not exist' in capsys.readouterr().err


def test_longer_training_is_named(tmp_path, capsys):
    scores = [dict(phase='supervised', iteration=i, value=40.0 + i) for i in range(2)]
    (tmp_path / 'summary.json').write_text(json.dumps(SUMMARY | dict(scores=scores)))
    main([str(tmp_path)])
    assert 'longer training can be a part of it; train --control' in capsys.readouterr().out.splitlines()[-1]
