"""Runs of the dataset converters are atomic and can be interrupted."""

import os
import signal
import subprocess
import time
from pathlib import Path

import conversion
import numpy as np
import pytest

from tests.helpers.raw_data import (
    annotations,
    command,
    contents,
    pixels,
    run,
    write_cityscapes,
    write_coco,
)


def test_a_second_run_writes_only_missing_or_partial_files(camvid):
    source, root, names = camvid
    run('camvid', source, '--data-root', root)
    first = contents(root)
    deleted = root / f'images/train/{names[1]}.jpg'
    cut = [root / f'images/val/{names[0]}.jpg', root / f'annotations/train/{names[2]}.png']
    emptied = root / f'annotations/train/{names[0]}.png'
    leftover = root / f'annotations/train/.{names[3]}.png.12345.partial'
    before = {path: path.stat().st_mtime_ns for path in first}
    deleted.unlink()
    for path in cut:
        path.write_bytes(first[path][:-1])
    emptied.write_bytes(b'')
    leftover.write_bytes(b'half')
    printed = run('camvid', source, '--data-root', root)
    assert '4 files written, 6 were complete already' in printed
    assert contents(root) == first
    for path in first.keys() - {deleted, *cut, emptied}:
        assert path.stat().st_mtime_ns == before[path]
    leftover.write_bytes(b'half')
    assert '0 files written, 10 were complete already' in run('camvid', source, '--data-root', root)
    assert contents(root) == first


def children(process):
    path = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    return path.read_text().split() if path.is_file() else []


def is_running(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.parametrize('name', ['SIGINT', 'SIGKILL'])
def test_an_interrupted_run_leaves_no_partial_files_and_can_continue(tmp_path, name):
    labels = np.random.default_rng(0).integers(0, 34, (256, 512))
    outs = write_cityscapes(tmp_path, 1, labels)
    source = tmp_path / 'gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png'
    for index in range(1, 200):  # enough to be at work still when the signal arrives on a busy machine
        path = source.with_name(f'aachen_{index:06d}_000019_gtFine_labelIds.png')
        os.link(source, path)
        outs.append(path.with_name(path.name.replace('labelIds', 'labelTrainIds')))
    # where a shell runs the tests in the background, they and their children would ignore Ctrl-C
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command('cityscapes', '--data-root', tmp_path, '--workers', 2), stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, handler)
    while not any(path.exists() for path in outs):
        assert process.poll() is None
        time.sleep(0.002)
    workers = children(process)
    process.send_signal(getattr(signal, name))
    _, printed = process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline, 'the workers outlive their parent'
        time.sleep(0.01)
    done = [path for path in outs if path.exists()]
    assert 1 <= len(done) < len(outs)
    assert all(conversion.is_complete(path) and pixels(path).shape == (256, 512) for path in done)
    if name != 'SIGKILL':
        assert process.returncode == conversion.INTERRUPTED and printed.startswith('interrupted')
        assert not list(tmp_path.rglob('.*'))
    printed = run('cityscapes', '--data-root', tmp_path)
    assert f'{len(outs) - len(done)} files written, {len(done)} were complete already' in printed
    assert not list(tmp_path.rglob('.*')) and all(conversion.is_complete(path) for path in outs)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_a_failed_write_leaves_only_the_old_file(tmp_path, monkeypatch, suffix):
    path = tmp_path / f'mask{suffix}'
    path.write_bytes(b'old')

    def fail(*_):
        raise OSError('No space left on device')

    monkeypatch.setattr(conversion.os, 'replace', fail)
    with pytest.raises(OSError, match='No space'):
        conversion.write_image(path, np.zeros((2, 2), np.uint8))
    assert contents(tmp_path) == {path: b'old'}


def test_a_folder_that_cannot_be_written_is_an_error_without_traceback(tmp_path):
    root = write_coco(tmp_path, annotations((1, 2, 2)))
    (root / 'masks').write_text('a file where the folder should be')
    assert f"error: [Errno 17] File exists: '{root / 'masks'}'" in run('coco', '--data-root', root, status=1)


@pytest.mark.parametrize('tool', ['coco', 'cityscapes', 'camvid'])
def test_the_command_line_has_the_common_options(tool):
    assert '--data-root' in run(tool, '--help')
    source = ['CamVid'] if tool == 'camvid' else []
    assert '--workers is 0; expected 1 or more' in run(tool, *source, workers=0, status=2)
