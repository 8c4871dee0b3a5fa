"""Checkpoints are written whole, and read without executing what they contain."""

import os
import pickle
import re
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, save_checkpoint

from allspark_mmseg.engine import (
    AtomicLocalBackend,
    find_last_checkpoint,
    load_checkpoint_file,
    use_safe_loading,
)


@pytest.fixture(autouse=True)
def _stock_loading_afterwards():
    stock = CheckpointLoader._schemes['']
    yield
    CheckpointLoader.register_scheme('', stock, force=True)


def mmengine_checkpoint(path, **more) -> dict:
    """What MMEngine's Runner stores: weights, optimizer, and the log's history as NumPy holds it."""
    buffer = HistoryBuffer([1.0, 0.5], [1, 1])
    buffer.update(0.25)
    checkpoint = dict(
        state_dict=dict(weight=torch.arange(6.0)),
        optimizer=dict(state={}, param_groups=[dict(lr=0.1, params=[0])]),
        meta=dict(iter=3, dataset_meta=dict(classes=('a', 'b'), palette=[[0, 0, 0], [1, 1, 1]])),
        message_hub=dict(
            log_scalars={'train/loss': buffer},
            runtime_info=dict(mIoU=np.float32(3.5), count=np.int64(4), flag=np.bool_(True)),
            resumed_keys={},
        ),
        **more,
    )
    torch.save(checkpoint, path)
    return checkpoint


def check_history(loaded: dict) -> None:
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    assert buffer.data[0].tolist() == [1.0, 0.5, 0.25]
    assert buffer.mean() == pytest.approx(1.75 / 3)
    assert buffer.statistics('current') == 0.25
    assert loaded['message_hub']['runtime_info'] == dict(mIoU=3.5, count=4, flag=True)


def test_mmengine_s_checkpoints_load_without_executing_them(tmp_path):
    stored = mmengine_checkpoint(tmp_path / 'epoch_1.pth')
    loaded = load_checkpoint_file(tmp_path / 'epoch_1.pth')
    assert torch.equal(loaded['state_dict']['weight'], stored['state_dict']['weight'])
    assert loaded['meta'] == stored['meta']
    check_history(loaded)


def test_mmengine_s_own_loader_reads_them_by_default(tmp_path):
    """MMEngine 0.10.7 with PyTorch >= 2.6, under MMSegmentation's own tools."""
    mmengine_checkpoint(tmp_path / 'epoch_1.pth')
    check_history(CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_1.pth'), map_location='cpu'))


def test_they_still_load_after_mmengine_s_own_loader_was_used(tmp_path):
    """The OneDL fork takes the names back that it allowed for its own loading (of downloads, for example)."""
    mmengine_checkpoint(tmp_path / 'epoch_1.pth')
    for _ in range(2):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_1.pth'), map_location='cpu')
        check_history(load_checkpoint_file(tmp_path / 'epoch_1.pth'))


def test_map_location(tmp_path):
    torch.save(dict(weight=torch.ones(2)), tmp_path / 'weights.pth')
    assert load_checkpoint_file(tmp_path / 'weights.pth', 'meta')['weight'].is_meta


class RunsACommand:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


def write_pickle(path, program: bytes) -> None:
    """A PyTorch file whose pickle is the program given."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', program)
        archive.writestr('archive/version', '3\n')
        archive.writestr('archive/byteorder', 'little')


def named(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f'{module}\n{name}\n'.encode()


def text(string: str) -> bytes:
    return pickle.BINUNICODE + len(string).to_bytes(4, 'little') + string.encode()


def attribute(of: bytes, name: str) -> bytes:
    return named('builtins', 'getattr') + of + text(name) + pickle.TUPLE2 + pickle.REDUCE


def overwrites_what_torch_calls(code: str) -> bytes:
    """Swap ``torch`` in the globals of a function that the unpickler may call for an object of its own.

    ``getattr`` reaches these globals, and by ``getattr.__self__`` the built-in functions; assigning to a
    dict and building a HistoryBuffer are allowed; ``_rebuild_parameter`` then calls exec for us.
    """

    def holder(name: str, value: bytes) -> bytes:
        made = named('mmengine.logging.history_buffer', 'HistoryBuffer') + pickle.EMPTY_TUPLE + pickle.NEWOBJ
        return made + pickle.EMPTY_DICT + text(name) + value + pickle.SETITEM + pickle.BUILD

    run = attribute(attribute(named('builtins', 'getattr'), '__self__'), 'exec')
    rebuild = named('torch._utils', '_rebuild_parameter')
    fake_torch = holder('nn', holder('Parameter', run))
    swap = attribute(rebuild, '__globals__') + text('torch') + fake_torch + pickle.SETITEM
    call = rebuild + text(code) + pickle.EMPTY_DICT + pickle.EMPTY_DICT + pickle.TUPLE3 + pickle.REDUCE
    pairs = text('swap') + swap + pickle.SETITEM + text('call') + call + pickle.SETITEM
    return b'\x80\x02' + pickle.EMPTY_DICT + pairs + pickle.STOP


def unexecuted(path, marker) -> None:
    with pytest.raises(ValueError) as error:
        load_checkpoint_file(path)
    assert not marker.exists(), 'the checkpoint was executed'
    assert str(path) in str(error.value)


@pytest.mark.parametrize('legacy', [False, True])
def test_an_object_that_runs_a_command_is_not_executed(tmp_path, legacy):
    path, marker = tmp_path / 'evil.pth', tmp_path / 'executed'
    content = dict(state_dict={}, meta=RunsACommand(marker))
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    unexecuted(path, marker)


@pytest.mark.parametrize('path_to_system', [('posix', 'system'), ('os', 'system'), ('builtins', 'eval')])
def test_functions_cannot_be_named(tmp_path, path_to_system):
    marker = tmp_path / 'executed'
    program = attribute(named(*path_to_system), '__call__')
    program += text(f'touch {marker}') + pickle.TUPLE1 + pickle.REDUCE + pickle.STOP
    write_pickle(tmp_path / 'evil.pth', b'\x80\x02' + program)
    unexecuted(tmp_path / 'evil.pth', marker)


@pytest.mark.parametrize('steps', [['__init__', '__globals__'], ['__init__', '__builtins__'], ['__class__']])
def test_getattr_reaches_nothing_but_the_history_s_methods(tmp_path, steps):
    target = named('mmengine.logging.history_buffer', 'HistoryBuffer')
    for step in steps:
        target = attribute(target, step)
    write_pickle(tmp_path / 'evil.pth', b'\x80\x02' + target + pickle.STOP)
    with pytest.raises(ValueError, match=r'evil\.pth'):
        load_checkpoint_file(tmp_path / 'evil.pth')


def test_getattr_cannot_be_turned_into_execution(tmp_path, monkeypatch):
    monkeypatch.setattr(torch._utils, 'torch', torch)  # put back afterwards, should the attack succeed
    marker = tmp_path / 'executed'
    write_pickle(tmp_path / 'evil.pth', overwrites_what_torch_calls(f"open({str(marker)!r}, 'w')"))
    try:
        load_checkpoint_file(tmp_path / 'evil.pth')
    except Exception as error:
        assert isinstance(error, ValueError) or marker.exists(), error
    assert not marker.exists(), 'the checkpoint was executed'


def test_a_missing_file_is_named_with_its_neighbors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'epoch_3\.pth not found.*no other checkpoint'):
        load_checkpoint_file(tmp_path / 'epoch_3.pth')
    for name in ('epoch_2', 'epoch_9', 'epoch_10'):
        mmengine_checkpoint(tmp_path / f'{name}.pth')
    with pytest.raises(FileNotFoundError) as error:
        load_checkpoint_file(tmp_path / 'epoch_3.pth')
    assert 'epoch_2.pth, epoch_9.pth, epoch_10.pth' in str(error.value)
    assert f'--resume {tmp_path / "epoch_10.pth"}' in str(error.value)


def test_weights_of_no_run_are_named_without_advice_for_runs(tmp_path):
    mmengine_checkpoint(tmp_path / 'epoch_2.pth')
    with pytest.raises(FileNotFoundError) as error:
        load_checkpoint_file(tmp_path / 'mit_b5.pth')
    assert str(error.value) == f'checkpoint {tmp_path / "mit_b5.pth"} not found.'


@pytest.mark.parametrize('place', ['core', '_core'])
def test_a_numpy_scalar_of_another_numpy_is_read(tmp_path, place):
    """NumPy 2 renamed the module that a file of the other version names."""
    content = pickle.dumps(np.float64(78.25), 2)
    content = re.sub(rb'numpy\._?core\.multiarray', f'numpy.{place}.multiarray'.encode(), content)
    assert f'numpy.{place}.multiarray'.encode() in content
    write_pickle(tmp_path / 'best.pth', content)
    assert load_checkpoint_file(tmp_path / 'best.pth') == 78.25


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named_with_its_neighbor(tmp_path, share):
    mmengine_checkpoint(tmp_path / 'epoch_1.pth')
    mmengine_checkpoint(tmp_path / 'epoch_2.pth')
    whole = (tmp_path / 'epoch_2.pth').read_bytes()
    (tmp_path / 'epoch_2.pth').write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError) as error:
        load_checkpoint_file(tmp_path / 'epoch_2.pth')
    assert f'checkpoint {tmp_path / "epoch_2.pth"} (' in str(error.value)
    assert f'--resume {tmp_path / "epoch_1.pth"}' in str(error.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=40).map(str.encode),
        st.binary(max_size=40).map(lambda tail: b'\x80\x02' + tail),
    )
)
def test_a_file_of_anything_else_is_named(tmp_path, content):
    (tmp_path / 'other.pth').write_bytes(content)
    with pytest.raises(ValueError, match=r'other\.pth \(\d+ bytes\) cannot be read'):
        load_checkpoint_file(tmp_path / 'other.pth')


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40))
def test_an_archive_of_anything_else_is_named(tmp_path, content):
    write_pickle(tmp_path / 'other.pth', b'\x80\x02' + content)
    try:
        loaded = load_checkpoint_file(tmp_path / 'other.pth')
    except ValueError as error:
        assert 'other.pth' in str(error)
    else:  # some bytes are a pickle of numbers or text
        assert not callable(loaded)


def test_the_reason_of_a_refusal_is_what_was_found(tmp_path):
    """Not PyTorch's advice to switch the safety off."""
    torch.save(dict(state_dict={}, meta=RunsACommand(tmp_path / 'executed')), tmp_path / 'evil.pth')
    with pytest.raises(ValueError) as error:
        load_checkpoint_file(tmp_path / 'evil.pth')
    assert 'system' in str(error.value)
    assert 'weights_only' not in str(error.value)
    assert '\x1b' not in str(error.value)


def test_mmengine_loads_by_it_once_told_to(tmp_path):
    use_safe_loading()
    mmengine_checkpoint(tmp_path / 'epoch_1.pth')
    check_history(CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_1.pth'), map_location='cpu'))
    torch.save(RunsACommand(tmp_path / 'executed'), tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=r'evil\.pth'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'evil.pth'), map_location='cpu')
    assert not (tmp_path / 'executed').exists()


def test_the_backend_is_found_by_name():
    assert isinstance(
        get_file_backend(backend_args=dict(backend='allspark_mmseg.atomic')), AtomicLocalBackend
    )


@pytest.mark.parametrize('old', [None, b'old'])
@pytest.mark.parametrize('broken', ['os.replace', 'write'])
def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch, old, broken):
    path = tmp_path / 'epoch_1.pth'
    if old is not None:
        path.write_bytes(old)

    def interrupted(*_):
        raise KeyboardInterrupt

    if broken == 'os.replace':
        monkeypatch.setattr(os, 'replace', interrupted)
    else:

        def half_written(self, obj, filepath):
            with open(filepath, 'wb') as file:
                file.write(obj[:2])
            raise OSError('No space left on device')

        monkeypatch.setattr('mmengine.fileio.LocalBackend.put', half_written)
    with pytest.raises((KeyboardInterrupt, OSError)):
        AtomicLocalBackend().put(b'new content', path)
    assert [file.name for file in tmp_path.iterdir()] == ([] if old is None else ['epoch_1.pth'])
    assert old is None or path.read_bytes() == old


def test_checkpoints_are_written_by_it(tmp_path):
    path = tmp_path / 'folder' / 'epoch_1.pth'
    for value in (1.0, 2.0):
        save_checkpoint(
            dict(weight=torch.tensor(value)), str(path), backend_args=dict(backend='allspark_mmseg.atomic')
        )
        assert load_checkpoint_file(path)['weight'] == value
    assert [file.name for file in path.parent.iterdir()] == ['epoch_1.pth']


def test_a_full_disk_says_how_much_is_missing(tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'old')
    # a device that is always full, in place of the temporary file
    temporary = tmp_path / f'epoch_1.pth.{os.getpid()}.tmp'
    temporary.symlink_to('/dev/full')
    monkeypatch.setattr('shutil.disk_usage', lambda folder: SimpleNamespace(free=500_000))
    with pytest.raises(
        OSError, match=r'epoch_1\.pth needs 2\.0 MB, but its disk has 0\.5 MB free: 1\.5 MB are'
    ):
        AtomicLocalBackend().put(b'x' * 2_000_000, path)
    assert path.read_bytes() == b'old' and not temporary.is_symlink()


POINTERS = {  # content of last_checkpoint, other files -> what --resume continues from
    'there': ('epoch_2.pth', ['epoch_2.pth', 'epoch_3.pth'], 'epoch_2.pth'),
    'moved with its folder': ('elsewhere/epoch_2.pth', ['epoch_2.pth'], 'epoch_2.pth'),
    'gone': ('epoch_4.pth', ['epoch_2.pth', 'epoch_3.pth', 'epoch_10.pth'], 'epoch_3.pth'),
    'empty after a full disk': (
        '',
        ['epoch_2.pth', 'epoch_10.pth', 'best_mIoU_epoch_11.pth'],
        'epoch_10.pth',
    ),
}


@pytest.mark.parametrize('case', POINTERS)
def test_last_checkpoint_that_names_a_file_that_is_not_there(tmp_path, case):
    content, files, expected = POINTERS[case]
    for name in files:
        (tmp_path / name).touch()
    (tmp_path / 'last_checkpoint').write_text(content and str(tmp_path / content))
    assert find_last_checkpoint(tmp_path) == tmp_path / expected


def test_a_run_without_checkpoints_has_no_last_one(tmp_path):
    assert find_last_checkpoint(tmp_path / 'no folder') is None
    (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    with pytest.raises(FileNotFoundError, match=r'names epoch_1\.pth, which is not there.*omit --resume'):
        find_last_checkpoint(tmp_path)
