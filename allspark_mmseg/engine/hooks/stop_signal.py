"""Hook that saves a checkpoint when the process is asked to end."""

import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed
from mmengine.dist import is_distributed
from mmengine.hooks import CheckpointHook, Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner

from ...registry import HOOKS
from ..checkpoint import save_for_resume
from ..startup import end_process_group

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command can succeed later
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@HOOKS.register_module()
class StopSignalHook(Hook):
    """Finish the step, save a checkpoint, and leave with exit code 75 after SIGTERM or SIGINT (Ctrl-C).

    With gradient accumulation, a step has several iterations. Schedulers send SIGTERM before they take a
    machine away (Slurm: ``--signal``). ``--resume`` continues. A second signal ends the process at once. A
    signal during a validation of a single process ends the validation; the resumed run repeats it. With
    several processes, the validation is completed first.

    A signal to the whole process group (``timeout``, some schedulers) also ends the workers of the data
    loader. A single process then saves what the last step left.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def __init__(self) -> None:
        self.received = 0
        self.process = os.getpid()
        self.group: torch.distributed.ProcessGroup | None = None
        self.previous: dict[int, object] = {}

    def before_train(self, runner: Runner) -> None:
        """Begin to listen. The hook does nothing outside the main thread, where Python has no signals.

        Args:
            runner (Runner): The runner.
        """
        if self.previous:
            return
        self.process = os.getpid()
        if is_distributed() and torch.distributed.get_backend() != 'gloo':
            # on the CPU, so that no step waits for the accelerator
            self.group = torch.distributed.new_group(backend='gloo')
        try:
            self.previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        except ValueError:
            runner.logger.warning('StopSignalHook: not in the main thread; signals save no checkpoint.')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None) -> None:
        """Switch off PyTorch's signal handler, which raises an error inside a step if a worker ends.

        A signal to the group of processes can end a worker before this process receives it. The data loader
        also notices a dead worker when it waits for the next batch, which is between two steps.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The collated batch.
        """
        if self.previous:
            _switch_off_news_of_workers()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a worker of the data loader inherits the handler
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.received:
            os._exit(128 + number)
        self.received = number
        _switch_off_news_of_workers()  # also before the first step

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Save and leave if any process has received a signal.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The collated batch.
            outputs (dict, optional): Outputs of the training step.

        Raises:
            SystemExit: A signal was received.
        """
        if self._any_received(runner):
            self._save_and_leave(runner, runner.iter + 1)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: object = None
    ) -> None:
        """Save and leave during a validation of a single process.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch.
            data_batch (dict, optional): The collated batch.
            outputs (Sequence, optional): Predictions.

        Raises:
            SystemExit: A signal was received.
        """
        if self.previous and not is_distributed() and self._any_received(runner):
            self._save_and_leave(runner, runner.iter)

    def after_val(self, runner: Runner) -> None:
        """Save and leave after a validation of several processes.

        Args:
            runner (Runner): The runner.

        Raises:
            SystemExit: A signal was received.
        """
        if self.previous and self._any_received(runner):
            self._save_and_leave(runner, runner.iter)

    def save_without_workers(self, runner: Runner, error: BaseException) -> None:
        """Save and leave if the signal has ended the workers of the data loader between two steps.

        Args:
            runner (Runner): The runner.
            error (BaseException): What the training raised.

        Raises:
            SystemExit: A checkpoint is saved.
        """
        in_step = any(frame.name == 'run_iter' for frame in traceback.extract_tb(error.__traceback__))
        if self.received and not in_step and not is_distributed() and self._any_received(runner):
            self._save_and_leave(runner, runner.iter)

    def after_run(self, runner: Runner) -> None:
        """Stop listening.

        Args:
            runner (Runner): The runner.
        """
        for number, handler in self.previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self.previous = {}

    def _any_received(self, runner: Runner) -> bool:
        """Return whether a process has received a signal; all processes return the same.

        While gradients are being accumulated, the answer is False: the step of the optimizer is not complete.
        """
        if not runner.optim_wrapper.should_update():
            return False
        if not is_distributed():
            return bool(self.received)
        flag = torch.tensor(float(self.received))
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=self.group)
        return bool(flag)

    def _save_and_leave(self, runner: Runner, iteration: int) -> NoReturn:
        folder = next((hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        meta = dict(epoch=runner.epoch, iter=iteration)
        # also if the file exists: it can be of an earlier run in this work dir
        path = save_for_resume(runner, folder or runner.work_dir, f'iter_{iteration}.pth', meta)
        runner.logger.warning(
            f'Stopped by a signal after iteration {iteration}. {path} is saved; the same command with '
            '--resume continues.'
        )
        if is_distributed():
            torch.distributed.barrier(group=self.group)
        end_process_group()
        self.after_run(runner)  # in a notebook, the process goes on
        sys.exit(EXIT_CODE)


def _switch_off_news_of_workers() -> None:
    if hasattr(signal, 'SIGCHLD'):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
