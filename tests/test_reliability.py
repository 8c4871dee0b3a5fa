"""Real processes that die: a run that was killed and resumed equals one that was never killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from allspark_mmseg.engine.hooks.stop_signal import EXIT_CODE
from benchmarks.kill_and_resume import differences, last_checkpoint, read_losses

from .helpers.configs import ROOT
from .helpers.project import METHODS, write_project

ENVIRONMENT = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'ignore'}
OFTEN = 'checkpoint=dict(by_epoch=False, interval=1), '


@pytest.fixture(scope='module')
def project(tmp_path_factory) -> Path:
    """Two epochs of two iterations, a checkpoint after each iteration, a validation after each epoch."""
    folder = tmp_path_factory.mktemp('project')
    write_project(folder, css=METHODS['css'], unimatch_v2=METHODS['unimatch_v2'])
    config = folder / 'config.py'
    text = config.read_text()
    assert text.count('default_hooks = dict(') == 1
    config.write_text(text.replace('default_hooks = dict(', f'default_hooks = dict({OFTEN}'))
    return folder


@pytest.mark.parametrize(
    ('method', 'processes'), [('config', ['1', '2']), ('unimatch_v2', ['1']), ('css', ['2'])]
)
def test_three_kills_change_no_bit(project, method, processes):
    command = [sys.executable, '-m', 'benchmarks.kill_and_resume', project / f'{method}.py']
    arguments = [project / f'work_{method}', '--processes', *processes, '--kills', '3']
    done = subprocess.run(
        [*map(str, command + arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [str(result['processes']) for result in results] == processes, done.stderr[-3000:]
    for result in results:
        assert result['kills'] == 3 and not result['differences'], result


def start(project: Path, work: Path, *options: str) -> subprocess.Popen:
    command = [
        sys.executable,
        ROOT / 'tools' / 'train.py',
        project / 'config.py',
        '--work-dir',
        work,
        *options,
    ]
    return subprocess.Popen(
        list(map(str, command)), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_sigterm_saves_a_checkpoint_and_the_same_command_resumes(project):
    whole, work = project / 'not_stopped', project / 'stopped'
    options = ('--cfg-options', 'default_hooks.checkpoint.interval=100')
    with start(project, whole, *options) as process:
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output[-3000:]
    with start(project, work, *options) as process:
        for line in process.stdout:
            if '[1][1/4]' in line:  # the first iteration of four
                process.send_signal(signal.SIGTERM)
                break
        rest = process.communicate(timeout=120)[0]
    assert process.returncode == EXIT_CODE, rest[-3000:]
    assert 'Stopped by a signal after iteration' in rest and '--resume continues' in rest
    with start(project, work, '--resume', *options) as process:
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output[-3000:]
    assert not differences(last_checkpoint(whole), last_checkpoint(work))
    assert not differences(read_losses(whole), read_losses(work))


def test_a_second_signal_ends_the_process_at_once(project, tmp_path):
    hang = tmp_path / 'hang.py'
    hang.write_text(f"""
_base_ = {str(project / 'config.py')!r}
custom_imports = dict(imports=['slow_step'])
custom_hooks = [dict(type='SlowStep')]
""")
    (tmp_path / 'slow_step.py').write_text("""
import time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class SlowStep(Hook):
    priority = 'VERY_HIGH'
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        print('step begins', flush=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.05)
""")
    command = [sys.executable, ROOT / 'tools' / 'train.py', hang, '--work-dir', tmp_path / 'work']
    environment = ENVIRONMENT | {'PYTHONPATH': f'{ROOT}:{tmp_path}'}
    with subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            if 'step begins' in line:
                break
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, 'the first signal waits for the step'
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT
    assert not list((tmp_path / 'work').glob('*.pth'))
