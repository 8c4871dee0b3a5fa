"""Real processes: a run that changes their number, one of two that dies, and two runs in one work dir.

The processes are forked from this one, which has imported everything.
"""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from allspark_mmseg.engine import load_checkpoint_file, lock_work_dir
from allspark_mmseg.registry import HOOKS
from benchmarks.kill_and_resume import start

from .helpers.project import write_project

# a step has 2 labeled and 4 unlabeled images
ONE_PROCESS = [
    '--cfg-options',
    'train_dataloader.batch_size=6',
    'train_dataloader.sampler.labeled=2',
    'train_dataloader.sampler.unlabeled=4',
]
SHORT = 'env_cfg.dist_cfg.timeout=8'  # seconds without an answer
BOUND = 240  # seconds; on an idle machine, the longest run below takes 12


@HOOKS.register_module(force=True)
class FaultHook(Hook):
    """Writes each step into a file, and sends a signal to the last process before a step.

    The step, the signal and the number of processes are in the environment: a config has no room for them.
    """

    priority = 'VERY_LOW'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        step, number = json.loads(os.environ.get('FAULT', '[null, null]'))
        rank, processes = (int(os.environ[name]) for name in ('RANK', 'WORLD_SIZE'))
        if runner.iter == step and rank == processes - 1:
            os.kill(os.getpid(), number)
        images = [
            hashlib.sha256(image.get(view).numpy().tobytes()).hexdigest()
            for image in data_batch['inputs']
            for view in sorted(image.keys())
        ]
        row = dict(
            step=runner.iter, epoch=runner.epoch, lr=runner.optim_wrapper.get_lr()['lr'][0], images=images
        )
        with Path(runner.work_dir, f'steps_{rank}.jsonl').open('a') as file:
            file.write(json.dumps(row) + '\n')


@pytest.fixture(scope='module')
def project(tmp_path_factory) -> Path:
    folder = write_project(tmp_path_factory.mktemp('project'))
    (folder / 'fast.py').write_text("""
_base_ = './config.py'
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
val_dataloader = None
val_cfg = None
val_evaluator = None
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1, save_best=None))
custom_hooks = [dict(type='allspark_mmseg.FaultHook'), _base_.custom_hooks[0]]
""")
    return folder


@pytest.fixture(autouse=True)
def _no_fault(monkeypatch):
    monkeypatch.delenv('FAULT', raising=False)


def wait(pids: list[int]) -> list[int]:
    """Return the exit codes, and fail if a process does not end."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + BOUND
    while len(codes) < len(pids) and time.monotonic() < deadline:
        for pid in set(pids) - codes.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    hanging = set(pids) - codes.keys()
    for pid in hanging:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert not hanging, 'a process did not end'
    return [codes[pid] for pid in pids]


def train(project: Path, name: str, processes: int, *options: str) -> list[int]:
    options = (*options, *(ONE_PROCESS if processes == 1 else ()))
    return wait(start(project / 'fast.py', project / name, processes, options))


def log(project: Path, name: str, rank: int = 0) -> str:
    return (project / name / f'rank_{rank}.log').read_text()


def steps(work_dir: Path) -> dict[int, dict]:
    """Each step of a run, with the images of all processes; after a resume, the later one counts."""
    found: dict[int, dict] = {}
    for path in sorted(work_dir.glob('steps_*.jsonl')):
        rows = {row['step']: row for row in map(json.loads, path.read_text().splitlines())}
        for step, row in rows.items():
            images = found.get(step, row | dict(images=[]))['images']
            found[step] = row | dict(images=sorted(images + row['images']))
    return found


@pytest.fixture(scope='module')
def whole(project) -> dict[int, dict]:
    """The steps of a run in one process that is not stopped."""
    assert train(project, 'whole', 1) == [0], log(project, 'whole')
    return steps(project / 'whole')


@pytest.mark.parametrize(('before', 'after'), [(1, 2), (2, 1)])
def test_another_number_of_processes_sees_the_same_images(project, whole, before, after, monkeypatch):
    name = f'{before}_to_{after}'
    monkeypatch.setenv('FAULT', json.dumps([2, signal.SIGTERM]))
    assert train(project, name, before) == [75] * before, log(project, name)
    first = steps(project / name)
    for path in (project / name).glob('steps_*'):
        path.unlink()
    monkeypatch.delenv('FAULT')
    assert train(project, name, after, '--resume') == [0] * after, log(project, name)
    assert sorted(first) == [0, 1, 2] and sorted(steps(project / name)) == [3]
    assert first | steps(project / name) == whole, 'images, learning rates and epochs'
    counters = ['memory_ready', 'student.decode_head.bottleneck.memory.written']
    ends = [load_checkpoint_file(project / run / 'iter_4.pth') for run in ('whole', name)]
    for counter in counters:
        assert ends[0]['state_dict'][counter].equal(ends[1]['state_dict'][counter]), counter
    for key in ('epoch', 'iter', 'seed'):
        assert ends[0]['meta'][key] == ends[1]['meta'][key], key


def test_another_batch_is_refused_with_both_numbers(project, whole):
    options = ['--resume', str(project / 'whole' / 'iter_4.pth')]
    pids = start(project / 'fast.py', project / 'other_batch', 1, options)
    assert wait(pids) == [1]
    last = log(project, 'other_batch').splitlines()[-1]
    assert last.startswith('train: ') and '6 images per step (1 processes), but this run has 3' in last
    assert f'Add {" ".join(ONE_PROCESS)} to continue with the same steps' in last


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
def test_the_others_end_if_one_process_dies_or_freezes(project, number, monkeypatch):
    """A frozen process is one whose machine is gone: no connection is closed."""
    name = signal.Signals(number).name
    monkeypatch.setenv('FAULT', json.dumps([2, number]))
    pids = start(project / 'fast.py', project / name, 2, ['--cfg-options', SHORT])
    try:
        assert wait(pids[:1]) == [1], log(project, name)
    finally:
        os.kill(pids[1], signal.SIGKILL)
        os.waitpid(pids[1], 0)
    last = log(project, name).splitlines()[-1]
    assert last.startswith('train: another process of the run has ended or does not answer'), last
    assert (project / name / 'iter_2.pth').is_file()


def fork(work) -> int:
    """Call ``work`` in a process of its own, which then waits for a signal; return its number."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with lock_work_dir(work):
                os.write(writer, b'1')
                if not os.fork():  # a worker of a data loader, which outlives the process
                    time.sleep(5)
                    os._exit(0)
                time.sleep(60)
        finally:
            os._exit(1)
    os.read(reader, 1)
    return pid


def test_two_runs_in_one_work_dir(project):
    owner = fork(project / 'locked')
    try:
        assert train(project, 'locked', 1) == [1]
        line = log(project, 'locked').splitlines()[-1]
        assert f'is used by another run (process {owner} on ' in line and 'set another --work-dir' in line
    finally:
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
    with lock_work_dir(project / 'locked'):
        pass  # SIGKILL has released it, although a child of the process lives on
