"""Real processes that die: a run that was killed and resumed equals one that was never killed.

Most are forked from this one, which has imported everything.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from allspark_mmseg.engine.hooks.stop_signal import EXIT_CODE
from benchmarks import kill_and_resume
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
def test_three_kills_change_no_bit(project, method, processes, capfd):
    arguments = [project / f'{method}.py', project / f'work_{method}', '--processes', *processes]
    assert kill_and_resume.main([*map(str, arguments), '--kills', '3']) == 0
    results = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [str(result['processes']) for result in results] == processes
    for result in results:
        assert result['kills'] == 3 and not result['differences'], result


def train(
    project: Path, work: Path, *options: str, stop_at: str | None = None, group: bool = False
) -> tuple[int, str]:
    """Train in a process of its own, and return its exit code and its output.

    The process, or its group with the workers of the data loader, gets SIGTERM after the line ``stop_at``.
    """
    log = work / 'rank_0.log'
    log.unlink(missing_ok=True)
    (pid,) = kill_and_resume.start(project / 'config.py', work, 1, options)
    deadline = time.monotonic() + 120
    while stop_at and not (log.is_file() and stop_at in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    if stop_at:
        (os.killpg if group else os.kill)(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), log.read_text()


@pytest.mark.parametrize('workers', [0, 2])
def test_sigterm_saves_a_checkpoint_and_the_same_command_resumes(project, workers):
    """With workers, the signal goes to the whole process group."""
    whole, work = project / f'not_stopped_{workers}', project / f'stopped_{workers}'
    options = (
        '--cfg-options',
        'default_hooks.checkpoint.interval=100',
        f'train_dataloader.num_workers={workers}',
    )
    code, output = train(project, whole, *options)
    assert code == 0, output[-3000:]
    # the first iteration of four
    code, output = train(project, work, *options, stop_at='[1][1/4]', group=workers > 0)
    assert code == EXIT_CODE, output[-3000:]
    assert 'Stopped by a signal after iteration' in output and '--resume continues' in output
    code, output = train(project, work, '--resume', *options)
    assert code == 0, output[-3000:]
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
