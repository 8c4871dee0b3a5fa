"""The real tools as a user starts them: subprocesses, two of them over gloo, on a few tiny images.

The tests with the marker ``cuda`` also run on a GPU, over NCCL.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mmseg
import pytest
import torch

from allspark_mmseg.engine import load_checkpoint_file

from .helpers.configs import ROOT
from .helpers.project import EPOCHS, METHOD_CONFIG, METHODS, write_project

# these tests share one training, so one worker of pytest-xdist runs them
ONE_TRAINING = pytest.mark.xdist_group('one_training')
# over gloo, or over NCCL with one or two GPUs
PROCESSES = 1 if torch.cuda.device_count() == 1 else 2
STEPS = 4 // PROCESSES  # per epoch: 9 unlabeled images, 2 a batch on each process
STOCK = Path(mmseg.__file__).parent / '.mim' / 'tools'


@pytest.fixture(scope='module')
def project(tmp_path_factory) -> Path:
    """A folder with data, a config and, after the first test, a work dir."""
    return write_project(tmp_path_factory.mktemp('project'))


def call(*command, expect: int = 0, **variables) -> str:
    """Run a command with this interpreter first on the PATH; return what it printed."""
    environment = {
        **os.environ,
        **variables,
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': str(ROOT),
    }
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == (expect == 0), output[-5000:]
    return output


def miou(output: str) -> list[float]:
    return [float(number) for number in re.findall(r'mIoU: ([\d.]+)', output)]


def iterations(output: str) -> list[tuple[int, int]]:
    return [(int(e), int(i)) for e, i in re.findall(r'Epoch\(train\) +\[(\d+)\]\[(\d+)/\d+\]', output)]


@pytest.fixture(scope='module')
def trained(project) -> str:
    """Two epochs: on GPUs by one launcher; otherwise on two machines, two launchers of one process each."""
    command = [ROOT / 'tools/dist_train.sh', project / 'config.py']
    options = ['--work-dir', project / 'work']
    if torch.cuda.is_available():
        return call(*command, PROCESSES, *options)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])

    def train(machine: int) -> str:
        return call(*command, 1, *options, NNODES='2', NODE_RANK=str(machine), PORT=port)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(train, range(2))
    assert not iterations(second), 'the second machine logs nothing'
    return first


@ONE_TRAINING
@pytest.mark.cuda
def test_distributed_training_shows_itself(project, trained):
    assert iterations(trained) == [(epoch, i + 1) for epoch in (1, 2) for i in range(STEPS)]
    assert ('SyncBN becomes BN' in trained) == (not torch.cuda.is_available())
    assert 'eta:' in trained and 'unsup.loss_ce' in trained and 'sup.decode.loss_ce' in trained
    assert re.search(r'pseudo\.share: sky [\d.]+%, road [\d.]+%, car', trained)
    assert re.search(r'memory\.filled: sky [\d.]+%', trained)
    assert f'The semantic memory is read from iteration {STEPS} on' in trained
    assert len(miou(trained)) >= EPOCHS
    assert list(project.glob('work/*/vis_data/events.out.tfevents*'))
    assert list(project.glob('work/*/vis_data/vis_image/pseudo_label_*.png'))


@ONE_TRAINING
@pytest.mark.cuda
def test_resume_goes_on_where_it_stopped(project, trained):
    output = call(
        ROOT / 'tools/dist_train.sh', project / 'config.py', PROCESSES, '--work-dir', project / 'work',
        '--resume', '--cfg-options', f'train_cfg.max_epochs={EPOCHS + 1}',
    )  # fmt: skip
    assert f'resumed epoch: {EPOCHS}, iter: {EPOCHS * STEPS}' in output
    assert iterations(output) == [(3, i + 1) for i in range(STEPS)]
    # what an older run left is a checkpoint of its own, complete and readable without executing it
    state = load_checkpoint_file(str(project / 'work' / 'epoch_3.pth'))['state_dict']
    assert state['memory_ready'] and state['student.decode_head.bottleneck.memory.written'].sum() > 0


@ONE_TRAINING
@pytest.mark.cuda
def test_evaluation_is_the_same_in_one_process_and_in_two(project, trained):
    checkpoint = project / 'work' / 'epoch_2.pth'
    one = call(
        'python', ROOT / 'tools/test.py', project / 'config.py', checkpoint, '--work-dir', project / 'test',
        '--show-dir', project / 'shown',
    )  # fmt: skip
    two = call(
        ROOT / 'tools/dist_test.sh',
        project / 'config.py',
        checkpoint,
        PROCESSES,
        '--work-dir',
        project / 'test2',
    )
    assert miou(one)[-1] == miou(two)[-1] == miou(trained)[-1]
    assert len(list((project / 'shown').rglob('*.png'))) == 3


def test_another_method_trains_in_two_processes_and_its_teacher_predicts(project):
    config, work = project / 's4former.py', project / 'work_s4former'
    config.write_text(METHOD_CONFIG.format(method=METHODS['s4former']))
    trained = call(ROOT / 'tools/dist_train.sh', config, 2, '--work-dir', work)
    assert iterations(trained) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    state = load_checkpoint_file(str(work / 'epoch_2.pth'))['state_dict']
    assert int(state['teacher.steps']) == 4
    for key, value in state.items():
        if key.startswith('student.') and key.endswith('weight'):
            assert not torch.equal(value, state[key.replace('student.', 'teacher.module.')]), key
    tested = call('python', ROOT / 'tools/test.py', config, work / 'epoch_2.pth', '--work-dir', work / 'test')
    assert miou(tested)[-1] == miou(trained)[-2], 'the teacher predicts; the metrics of the student follow'


TWO_PHASES = """
_base_ = './config.py'
custom_hooks = [
    dict(type='allspark_mmseg.MemoryWarmUpHook', epochs=1),
    dict(type='allspark_mmseg.WarmStartHook', max_iters=6, val_interval=2, ramp_up=2),
]
"""


def test_two_phases_in_two_processes_survive_a_kill(project):
    config, work = project / 'two_phases.py', project / 'work_two_phases'
    config.write_text(TWO_PHASES)
    train = [ROOT / 'tools/dist_train.sh', config, 2, '--work-dir', work]
    environment = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    environment['PATH'] = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    with subprocess.Popen(
        [str(part) for part in train],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as killed:
        deadline = time.monotonic() + 200
        while not (work / 'last_checkpoint').is_file() and time.monotonic() < deadline:
            assert killed.poll() is None, 'the run ended before it was killed'
            time.sleep(0.05)
        # torchrun starts the workers in sessions of their own
        workers = Path(f'/proc/{killed.pid}/task/{killed.pid}/children').read_text().split()
        assert len(workers) == 2
        for pid in (killed.pid, *map(int, workers)):
            os.kill(pid, signal.SIGKILL)
    output = call(*train, '--resume')
    (first,) = re.findall(r'resumed epoch: 0, iter: (\d+)', output)
    assert int(first) in (2, 4, 6)
    assert 'The supervised phase ended at iteration 6' in output
    summary = json.loads((work / 'summary.json').read_text())
    # the second phase has two epochs of two iterations
    assert [score['iteration'] for score in summary['scores']] == [2, 4, 6, 8, 10]
    assert [score['phase'] for score in summary['scores']] == ['supervised'] * 3 + ['AllSpark'] * 2
    tested = call(
        'python', ROOT / 'tools/test.py', work / 'chosen.py', work / 'chosen.pth', '--work-dir', work / 'test'
    )
    assert miou(tested)[-1] == pytest.approx(max(score['value'] for score in summary['scores']), abs=0.01)


@ONE_TRAINING
def test_truncated_checkpoint_is_named_and_the_previous_one_survives(project, trained, tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    complete = (project / 'work' / 'epoch_2.pth').read_bytes()
    newest = work / 'epoch_3.pth'
    (work / 'epoch_2.pth').write_bytes(complete)
    newest.write_bytes(complete[:5000])
    (work / 'last_checkpoint').write_text(str(newest))
    command = ['python', ROOT / 'tools/train.py', '--work-dir', work, '--resume', project / 'config.py']
    # the last one, as in MMSegmentation: the config is no value of --resume
    output = call(*command, expect=1)
    assert 'epoch_3.pth (5000 bytes) cannot be read: it is truncated' in output
    assert f'resume with --resume {work}/epoch_2.pth' in output
    assert (work / 'epoch_2.pth').read_bytes() == complete
    # one process here, two before
    assert 'resumed epoch: 2' in call(*command, '--resume', work / 'epoch_2.pth', '--allow-new-batch')


def test_stock_launchers_run_the_same_config(project, tmp_path):
    command = ['python', STOCK / 'train.py', project / 'config.py', '--work-dir', tmp_path / 'work']
    trained = call(*command, '--cfg-options', 'train_cfg.max_epochs=1')
    assert iterations(trained) == [(1, i + 1) for i in range(4)]
    tested = call(
        'python', STOCK / 'test.py', project / 'config.py', tmp_path / 'work' / 'epoch_1.pth',
        '--work-dir', tmp_path / 'test',
    )  # fmt: skip
    assert miou(tested)[-1] == miou(trained)[-1]


def test_arguments(project, tmp_path):
    output = call(
        'python', ROOT / 'tools/train.py', project / 'config.py', '--work-dir', tmp_path,
        '--cfg-options', 'auto_scale_lr.base_batch_size=6', '--auto-scale-lr', '--amp',
    )  # fmt: skip
    assert 'Scaling the original LR by 0.5' in output
