"""Kill training runs at random moments, resume them, and compare the result with a run that was never killed.

    python -m benchmarks.kill_and_resume CONFIG WORK_DIR [--processes 1 2] [--kills 20] [--seed 0]

Each run is a process, or several over gloo, that ends by SIGKILL: in a step, in a validation, or while a
checkpoint is written. The last checkpoint (weights, teacher, memory, prototypes, optimizer) and the logged
losses must be equal to the bit. This process imports the packages once and forks the runs, which saves the
time of many starts. The result is printed as a line of JSON for each number of processes.
"""

import argparse
import json
import os
import random
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from allspark_mmseg.cli import train
from allspark_mmseg.engine import load_checkpoint_file
from allspark_mmseg.registry import HOOKS

MOMENTS = ('step', 'validation', 'checkpoint')
TIMES = ('time', 'data_time', 'memory')  # logged values that differ between two equal runs
CONFIG = """_base_ = {config!r}
custom_hooks = [dict(type='allspark_mmseg.KillHook', **{kill!r}), *_base_.get('custom_hooks', [])]
"""


@HOOKS.register_module(force=True)
class KillHook(Hook):
    """Send SIGKILL to all processes of the run, shortly after an event.

    Args:
        moment (str): One of ``MOMENTS``.
        count (int): The event, counted from 0 in this process.
        delay (float): Seconds after the event.
    """

    priority = 'VERY_HIGH'

    def __init__(self, moment: str, count: int, delay: float) -> None:
        self.moment, self.count, self.delay = moment, count, delay

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count a step."""
        self._count('step')

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count a batch of a validation."""
        self._count('validation')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Count a checkpoint."""
        self._count('checkpoint')

    def _count(self, moment: str) -> None:
        if moment == self.moment:
            if self.count == 0:
                threading.Timer(self.delay, os.killpg, (os.getpgid(0), signal.SIGKILL)).start()
            self.count -= 1


def run(
    config: Path, work_dir: Path, processes: int, kill: dict[str, Any] | None = None, resume: bool = False
) -> bool:
    """Train in processes of their own until they end.

    Args:
        config (Path): The config.
        work_dir (Path): The work dir.
        processes (int): Number of processes.
        kill (dict, optional): Arguments of :class:`KillHook`. None: the run is not killed.
        resume (bool): Whether to resume.

    Returns:
        bool: Whether the run reached its end. A run that is not killed as planned reaches it, too.

    Raises:
        RuntimeError: A process failed.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    if kill is not None:
        killing = work_dir / f'{config.stem}_killed.py'
        killing.write_text(CONFIG.format(config=str(config.resolve()), kill=kill))
        config = killing
    pids = start(config, work_dir, processes, ['--resume'] if resume else [])
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(code not in (0, -signal.SIGKILL) for code in codes):
        logs = ''.join(path.read_text()[-1000:] for path in sorted(work_dir.glob('rank_*.log')))
        raise RuntimeError(f'exit codes {codes}; {work_dir}/rank_*.log end with:\n{logs}')
    return not any(codes)


def start(config: Path, work_dir: Path, processes: int = 1, options: Sequence[str] = ()) -> list[int]:
    """Start a training in processes of their own, with a log file for each in the work dir.

    Args:
        config (Path): The config.
        work_dir (Path): The work dir.
        processes (int): Number of processes.
        options (Sequence[str]): Other arguments of the command ``train``.

    Returns:
        list[int]: Numbers of the processes, which form one process group.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    arguments = [str(config), '--work-dir', str(work_dir), *options]
    arguments += ['--launcher', 'pytorch'] if processes > 1 else []
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    pids: list[int] = []
    for rank in range(processes):
        pid = os.fork()
        if not pid:
            _train(arguments, rank, processes, port, work_dir / f'rank_{rank}.log')
        os.setpgid(pid, pids[0] if pids else pid)
        pids.append(pid)
    return pids


def _train(arguments: list[str], rank: int, processes: int, port: int, log: Path) -> None:
    """Train in this forked process, and end it."""
    code = 1
    try:
        with log.open('w') as file:
            os.dup2(file.fileno(), sys.stdout.fileno())
            os.dup2(file.fileno(), sys.stderr.fileno())
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(processes),
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port),
        )
        train.main(arguments)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def read_losses(work_dir: Path) -> dict[int, dict[str, float]]:
    """Read the logged values of each iteration; after a resume, the later ones count.

    Args:
        work_dir (Path): The work dir.

    Returns:
        dict[int, dict[str, float]]: Iteration -> name -> value, without times.
    """
    values: dict[int, dict[str, float]] = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if 'loss' in row:
                values[row['iter']] = {key: value for key, value in row.items() if key not in TIMES}
    return values


def differences(one: Any, other: Any, name: str = '') -> list[str]:
    """Compare two nested structures of tensors and values bit for bit.

    Args:
        one (object): The first.
        other (object): The second.
        name (str): Name of the structure for the result.

    Returns:
        list[str]: Names of what differs.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f'{name}: keys {sorted(map(str, one.keys() ^ other.keys()))}']
        return [text for key in one for text in differences(one[key], other[key], f'{name}.{key}')]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [text for key, pair in pairs for text in differences(*pair, f'{name}.{key}')]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one.nan_to_num(), other.nan_to_num()) else [name]
    return [] if one == other else [name]


def last_checkpoint(work_dir: Path) -> dict[str, Any]:
    """Read what must be equal from the last checkpoint of a run."""
    checkpoint = load_checkpoint_file(Path((work_dir / 'last_checkpoint').read_text()), map_location='cpu')
    names = ('state_dict', 'optimizer', 'param_schedulers')
    return {name: checkpoint[name] for name in names if name in checkpoint}


def kill_and_resume(
    config: Path, work_dir: Path, processes: int, kills: int, generator: random.Random
) -> dict[str, Any]:
    """Compare a run that was killed several times with one that was never killed.

    Args:
        config (Path): The config. It logs each iteration and saves checkpoints.
        work_dir (Path): Folder of the work dirs.
        processes (int): Number of processes.
        kills (int): Number of kills. The moments take turns.
        generator (random.Random): Draws the event and the delay of each kill.

    Returns:
        dict: ``processes``, ``kills`` that took place, and ``differences``.
    """
    whole, killed = (work_dir / f'{name}_{processes}' for name in ('whole', 'killed'))
    run(config, whole, processes)
    done = 0
    for number in range(kills):
        moment = MOMENTS[number % len(MOMENTS)]
        kill = {'moment': moment, 'count': generator.randrange(3), 'delay': generator.uniform(0, 0.02)}
        ended = run(config, killed, processes, kill, resume=number > 0)
        done += not ended
        if ended:
            break
    run(config, killed, processes, resume=True)
    found = differences(last_checkpoint(whole), last_checkpoint(killed))
    found += differences(read_losses(whole), read_losses(killed), 'log')
    return {'processes': processes, 'kills': done, 'differences': found}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments (list[str], optional): The command line; by default that of the process.

    Returns:
        int: 1 if a run differs.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path)
    parser.add_argument('work_dir', type=Path)
    parser.add_argument('--processes', type=int, nargs='+', default=[1])
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(arguments)
    generator, failed = random.Random(args.seed), False
    for processes in args.processes:
        result = kill_and_resume(args.config, args.work_dir, processes, args.kills, generator)
        print(json.dumps(result), flush=True)
        failed |= bool(result['differences']) or not result['kills']
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
