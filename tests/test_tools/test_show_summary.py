"""The scores of a run, as show_summary.py prints them."""

import json
import subprocess
import sys

from ..helpers.configs import ROOT

SUMMARY = {
    'supervised': {'mIoU': 40.31, 'iteration': 800, 'minutes': 2.04, 'network': 'student', 'last': 40.0},
    'AllSpark': {'mIoU': 46.0, 'iteration': 1700, 'minutes': 5.11, 'network': 'teacher', 'last': 45.9},
    'chosen': 'AllSpark',
    'gain': 5.69,
    'scores': [],
}


def show(folder) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / 'tools' / 'show_summary.py'), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_phases_gain_and_choice(tmp_path):
    (tmp_path / 'summary.json').write_text(json.dumps(SUMMARY))
    assert show(tmp_path).stdout.splitlines() == [
        'supervised   mIoU 40.31 (student at iteration 800), 2.0 minutes',
        'AllSpark     mIoU 46.00 (teacher at iteration 1700), 5.1 minutes',
        'gain         +5.69; chosen.pth is AllSpark.pth',
    ]


def test_missing_summary_is_named(tmp_path):
    done = show(tmp_path)
    assert done.returncode == 2
    assert f'{tmp_path}/summary.json does not exist' in done.stderr
