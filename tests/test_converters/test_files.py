"""Checkpoints are read without executing code, and written atomically."""

import os
from pathlib import Path

import pytest
import torch

from allspark_mmseg.converters.files import read_state_dict, write_checkpoint

from ..helpers.official_states import allspark_spec, official_file, state_of

TOOLS = ['allspark2mmseg', 'mmseg2allspark', 'mit2mmseg', 'unimatch2mmseg', 'unimatch_v2_to_mmseg']


class Code:
    """Content of a malicious file: unpickling it runs a command."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize('tool', TOOLS)
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_code_in_a_file_is_not_executed(convert, tmp_path, tool, zipped):
    payload = {'model': state_of(allspark_spec()), 'epoch': Code(f'touch {tmp_path / "executed"}')}
    torch.save(payload, tmp_path / 'best.pth', _use_new_zipfile_serialization=zipped)
    printed = convert(tool, tmp_path / 'best.pth', tmp_path / 'out.pth', refused=True)
    assert 'contains more than weights' in printed and 'system' in printed, printed
    assert [path.name for path in tmp_path.iterdir()] == ['best.pth']


@pytest.mark.parametrize('tool', TOOLS)
def test_unreadable_files_are_refused(convert, tmp_path, tool):
    source = official_file(tmp_path / 'best.pth', state_of(allspark_spec()))
    source.write_bytes(source.read_bytes()[:-1000])
    assert f'{source} ' in convert(tool, source, tmp_path / 'out.pth', refused=True)
    source.write_text('not a checkpoint')
    assert 'it is truncated, not a PyTorch' in convert(tool, source, tmp_path / 'out.pth', refused=True)
    printed = convert(tool, tmp_path / 'missing.pth', tmp_path / 'out.pth', refused=True)
    assert 'missing.pth not found' in printed
    assert [path.name for path in tmp_path.iterdir()] == ['best.pth']


@pytest.mark.parametrize(
    'content, message',
    [
        (torch.zeros(2), 'found a Tensor'),
        ({'model': {}}, 'found nothing'),
        ({'epoch': 3, 'net': {'a': torch.zeros(2)}}, "'epoch' is a int"),
        ({1: torch.zeros(2)}, '1 is a Tensor'),
    ],
)
def test_files_without_a_state_dict_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=f'a.pth: expected a state dict .*{message}'):
        read_state_dict(tmp_path / 'a.pth')


def test_the_source_is_not_overwritten(convert, tmp_path):
    source = official_file(tmp_path / 'best.pth', state_of(allspark_spec()))
    before = source.read_bytes()
    assert 'is the file to read' in convert('allspark2mmseg', source, source, refused=True)
    assert 'is a folder' in convert('allspark2mmseg', source, tmp_path, refused=True)
    assert source.read_bytes() == before


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def fail(self, obj, filepath):
        Path(filepath).write_bytes(obj[:2])
        raise OSError('disk full')

    monkeypatch.setattr('mmengine.fileio.LocalBackend.put', fail)
    with pytest.raises(OSError, match='disk full'):
        write_checkpoint({}, tmp_path / 'out.pth')
    assert list(tmp_path.iterdir()) == []
