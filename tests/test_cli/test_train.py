"""What train.py resumes from, when the config has load_from."""

from pathlib import Path

import pytest
from mmengine.config import Config

from allspark_mmseg.cli import train


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a config with load_from as ``train.py CONFIG --work-dir WORK [--resume ...]`` does."""
    path = tmp_path / 'config.py'
    path.write_text("load_from = 'supervised.pth'\n")

    def call(*options: str) -> Config:
        command = ['train.py', str(path), '--work-dir', str(tmp_path / 'work'), *options]
        monkeypatch.setattr('sys.argv', command)
        return train.read_config(train.parse_args())

    return call


def test_a_new_run_starts_from_load_from(read):
    cfg = read()
    assert (cfg.load_from, cfg.resume) == ('supervised.pth', False)


@pytest.mark.parametrize('folder_exists', [False, True])
def test_resume_without_a_checkpoint_starts_from_load_from(read, tmp_path, folder_exists):
    if folder_exists:
        (tmp_path / 'work').mkdir()
    cfg = read('--resume')
    assert (cfg.load_from, cfg.resume) == ('supervised.pth', False)


def test_resume_takes_the_last_checkpoint_of_the_work_dir(read, tmp_path):
    checkpoint = Path(tmp_path, 'work', 'iter_8.pth')
    checkpoint.parent.mkdir()
    (checkpoint.parent / 'last_checkpoint').write_text(str(checkpoint))
    cfg = read('--resume')
    assert (cfg.load_from, cfg.resume) == (str(checkpoint), True)


def test_a_named_checkpoint_wins(read):
    cfg = read('--resume', 'other.pth')
    assert (cfg.load_from, cfg.resume) == ('other.pth', True)
