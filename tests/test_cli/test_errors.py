"""Which errors of train and test are one sentence, and which have a traceback."""

import pytest

from allspark_mmseg.cli.errors import one_sentence
from allspark_mmseg.engine import WarmStartHook, load_checkpoint_file
from allspark_mmseg.engine.scoreboard import Scoreboard


def test_a_check_of_this_package_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as stopped, one_sentence('train'):
        WarmStartHook(max_iters=0)
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith('train: WarmStartHook: max_iters is 0, expected 1 or more')


def test_the_quotes_of_a_key_error_are_removed(capsys, tmp_path):
    (tmp_path / 'broken.pth').write_bytes(b'PK')
    with pytest.raises(SystemExit), one_sentence('test'):
        load_checkpoint_file(str(tmp_path / 'broken.pth'))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('test: ') and 'broken.pth' in line


@pytest.mark.parametrize('error', [ValueError('of another package'), KeyError('name')])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)), one_sentence('train'):
        raise error


def test_a_fault_in_this_package_keeps_its_traceback(tmp_path):
    """It is raised in a file of the package, but no ``raise`` explains it."""
    with pytest.raises((KeyError, TypeError)), one_sentence('train'):
        Scoreboard(tmp_path, 'X').load([{}])
