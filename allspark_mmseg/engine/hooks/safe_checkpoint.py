"""Hook that saves checkpoints, and never leaves a run without a good one."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import CheckpointHook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner

from ...registry import HOOKS
from ...utils import join_first, unwrap_model
from ..checkpoint import ATOMIC_BACKEND
from ..earlier_run import set_aside_earlier_run

# what CheckpointHook knows about the files that it has written
_OWN = ('last_ckpt', 'keep_ckpt_ids', 'best_ckpt_path', 'best_ckpt_path_dict')
_SHARED = ('last_ckpt', 'keep_ckpt_ids', 'best_ckpt', 'best_score')  # beginnings of keys of the message hub


class NonFiniteWeightsError(RuntimeError):
    """A checkpoint would have weights that are NaN or infinite."""


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, for full disks and for weights that are not finite.

    It has the same arguments, and differs in four points:

    * Files are complete or absent under their name: the default of ``backend_args`` is
      :class:`AtomicLocalBackend`.
    * If a checkpoint cannot be written, the log says why, and the training continues. The next attempt is at
      the next regular time. If the last attempt of the run fails, the run ends with an error.
    * A checkpoint with weights that are NaN or infinite is not written.
    * The only checkpoint, and the best one, are removed after the new one is complete. ``CheckpointHook``
      removes them before.
    """

    file_backend: Any
    best_ckpt_path: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{'backend_args': dict(backend=ATOMIC_BACKEND), **kwargs})
        self.outdated: list[str] = []  # to be removed when the new file is complete
        self.failure = ''  # of the last attempt

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder; files of an earlier run are set aside.

        Args:
            runner (Runner): The runner.
        """
        set_aside_earlier_run(runner)
        super().before_train(runner)
        self.file_backend = _LateRemoval(self.file_backend, self)
        self._forget_other_runs()

    def _forget_other_runs(self) -> None:
        """Leave the best checkpoint of a run alone that is continued in another work dir; its score stays."""

        def is_own(path: str | None) -> bool:
            return path is not None and Path(path).resolve().is_relative_to(Path(self.out_dir).resolve())

        if hasattr(self, 'best_ckpt_path') and not is_own(self.best_ckpt_path):
            self.best_ckpt_path = None
        several = getattr(self, 'best_ckpt_path_dict', {})
        several.update({key: None for key, path in several.items() if not is_own(path)})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse weights that are NaN or infinite, also if another hook saves them.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint.

        Raises:
            NonFiniteWeightsError: A parameter or a running statistic of a normalization is not finite.
        """
        parameters = {name for name, _ in unwrap_model(runner.model).named_parameters()}
        # other buffers can be NaN by design, for example statistics that do not exist yet
        bad = [
            name
            for name, value in checkpoint['state_dict'].items()
            if (name in parameters or name.endswith(('.running_mean', '.running_var')))
            and not torch.isfinite(value).all()
        ]
        if bad:
            raise NonFiniteWeightsError(
                f'{len(bad)} tensors of the model are NaN or infinite, so it is not saved: '
                f'{join_first(bad, limit=3)}'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Save a checkpoint if it is time.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The collated batch.
            outputs (dict, optional): Outputs of the training step.
        """
        save = super().after_train_iter
        self._try(runner, lambda: save(runner, batch_idx, data_batch, outputs))

    def after_train_epoch(self, runner: Runner) -> None:
        """Save a checkpoint if it is time.

        Args:
            runner (Runner): The runner.
        """
        save = super().after_train_epoch
        self._try(runner, lambda: save(runner))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save the best checkpoint.

        Args:
            runner (Runner): The runner.
            metrics (dict, optional): Metrics of the validation.
        """
        save = super().after_val_epoch
        self._try(runner, lambda: save(runner, metrics or {}))

    def after_run(self, runner: Runner) -> None:
        """End the run with an error if its last checkpoint could not be saved.

        Args:
            runner (Runner): The runner.

        Raises:
            RuntimeError: It could not be saved.
        """
        if self.failure:
            raise RuntimeError(
                f'the last checkpoint of the run could not be saved: {self.failure}. The last good one is '
                f'{last_good(runner)}; the same command with --resume continues from it.'
            )

    def _try(self, runner: Runner, save: Callable[[], None]) -> None:
        last = self.last_ckpt
        own = {name: copy.copy(getattr(self, name)) for name in _OWN if hasattr(self, name)}
        shared = _shared_state(runner)
        try:
            save()
        except (OSError, NonFiniteWeightsError) as error:
            self.failure = str(error)
            for name, value in own.items():
                setattr(self, name, value)
            for name in _shared_state(runner).keys() - shared.keys():
                del runner.message_hub.runtime_info[name]
            runner.message_hub.runtime_info.update(shared)
            runner.logger.error(
                f'A checkpoint could not be saved: {error}. The training continues and tries again at the '
                f'next checkpoint. The last good one is {last_good(runner)}.'
            )
        else:
            if self.last_ckpt != last:
                self.failure = ''
            for path in set(self.outdated) - self.best_files():  # a validation was repeated
                self.file_backend.backend.remove(path)
        self.outdated = []

    def best_files(self) -> set[str | None]:
        """Return the best checkpoint of each metric."""
        several = getattr(self, 'best_ckpt_path_dict', {})
        return {getattr(self, 'best_ckpt_path', None), *several.values()}


class _LateRemoval:
    """A file backend that keeps the last of the regular checkpoints, and the best, until it is replaced."""

    def __init__(self, backend: Any, hook: SafeCheckpointHook) -> None:
        self.backend = backend
        self.hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        """Remove a file now if another regular checkpoint remains, otherwise later."""
        if path not in self.hook.best_files() and self.hook.keep_ckpt_ids:
            self.backend.remove(path)
        else:
            self.hook.outdated.append(path)


def last_good(runner: Runner) -> str:
    """Return the last checkpoint that this run has written, for a message."""
    return runner.message_hub.runtime_info.get('last_ckpt') or 'none'


def _shared_state(runner: Runner) -> dict[str, Any]:
    information = runner.message_hub.runtime_info
    return {name: value for name, value in information.items() if name.startswith(_SHARED)}
