"""tools/slurm_requeue.sh, with commands of Slurm that write down how they are called."""

import os
import subprocess

import pytest

from allspark_mmseg.engine.hooks.stop_signal import EXIT_CODE

from ..helpers.configs import ROOT


def run(folder, code, *arguments):
    for name, ends_with in (('srun', code), ('scontrol', 0)):
        command = folder / name
        command.write_text(
            f'#!/bin/sh\necho "{name} $* port=$MASTER_PORT" >> {folder}/calls\nexit {ends_with}\n'
        )
        command.chmod(0o755)
    variables = {
        'PATH': f'{folder}:{os.environ["PATH"]}',
        'SLURM_JOB_ID': '41234',
        'SLURM_CPUS_PER_TASK': '12',
        'SLURM_SUBMIT_DIR': str(folder),
    }
    script = ROOT / 'tools' / 'slurm_requeue.sh'
    done = subprocess.run(['bash', script, *arguments], env=os.environ | variables, check=False)
    calls = folder / 'calls'
    return done.returncode, calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize('code', [0, 1, EXIT_CODE])
def test_only_a_run_that_was_stopped_is_queued_again(tmp_path, code):
    returned, calls = run(tmp_path, code, 'config.py', '--amp')
    assert returned == code
    train = '-u -m allspark_mmseg train config.py --amp --launcher slurm --resume'
    requeue = ['scontrol requeue 41234 port=21234'] if code == EXIT_CODE else []
    assert calls == [f'srun --cpus-per-task=12 --wait=120 python {train} port=21234', *requeue]


def test_without_a_config_it_explains_itself(tmp_path):
    assert run(tmp_path, 0) == (2, [])


def test_all_options_stand_before_the_first_command():
    lines = (ROOT / 'tools' / 'slurm_requeue.sh').read_text().splitlines()
    options = [number for number, line in enumerate(lines) if line.startswith('#SBATCH')]
    first = next(number for number, line in enumerate(lines) if line and not line.startswith('#'))
    assert len(options) == 10 and max(options) < first, 'sbatch reads no options after a command'
    assert {'#SBATCH --requeue', '#SBATCH --open-mode=append'} <= {lines[number] for number in options}
