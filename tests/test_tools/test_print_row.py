"""tools/print_row.py lists the published rows and prints their commands."""

import shlex
import subprocess
import sys

import pytest
from mmengine.config import DictAction

from ..helpers.configs import ROOT, read_rows


def call(*arguments: str, expect: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'print_row.py', *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout + done.stderr


def test_all_rows_are_listed():
    lines = call().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(read_rows())
    (line,) = (line for line in lines if line.startswith('unimatch_v2_voc_92_dinov2-b14 '))
    assert line.split() == ['unimatch_v2_voc_92_dinov2-b14', '92', '86.3', 'paper']


def test_an_unknown_row_is_an_error():
    assert "contains 'nonsense'" in call('nonsense', expect=1)


@pytest.mark.parametrize('name', ['voc_92', 'unimatch_voc_92_r50-d16', 'css_voc_92_r101-d8_baseline'])
def test_the_command_of_a_row_names_its_config_and_options(name):
    row = read_rows()[name]
    make, train, test = call(name).replace('\\\n', '').splitlines()
    assert 'make_splits.py voc --reference https://' in make
    for command in (train, test):
        words = shlex.split(command)
        assert f'configs/{row.config}.py' in words
        given = words[words.index('--cfg-options') + 1 :] if row.options else []
        assert given == [f'{key}={value}' for key, value in row.options.items()]
    assert f'tools/dist_train.sh configs/{row.config}.py {row.meta["GPUs"]} ' in train


def test_a_printed_option_means_the_same_as_in_the_metafile():
    """The command line parses strings: None and 50 must not stay words."""
    rows = [row for row in read_rows().values() if row.options]
    assert rows
    for row in rows:
        for value in row.options.values():
            assert DictAction._parse_iterable(str(value)) == value, row.name
