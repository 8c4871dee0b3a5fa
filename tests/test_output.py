"""Progress bars, and files that are complete or absent."""

import stat

import pytest

from allspark_mmseg.output import complete_file, progress


def test_progress_yields_all_items_and_shows_the_count(capsys):
    assert list(progress([3, 1, 2], 'reading')) == [3, 1, 2]
    assert 'reading' in capsys.readouterr().err


def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / 'new' / 'mask.png'
    with complete_file(target) as temporary:
        temporary.write_text('x')
        assert temporary.suffix == '.png' and not target.exists()
    assert target.read_text() == 'x' and list(target.parent.iterdir()) == [target]
    other = tmp_path / 'other'
    other.touch()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_an_interrupted_file_leaves_the_old_one(tmp_path):
    target = tmp_path / 'mask.png'
    target.write_text('old')
    with pytest.raises(KeyboardInterrupt), complete_file(target) as temporary:
        temporary.write_text('half')
        raise KeyboardInterrupt
    assert target.read_text() == 'old' and list(tmp_path.iterdir()) == [target]
