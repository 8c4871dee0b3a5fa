"""Training loops that resume exactly, and validation of student and teacher."""

from collections.abc import Iterator
from typing import Any, cast

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, ValLoop
from mmengine.runner.base_loop import BaseLoop
from torch import nn
from torch.utils.data import DataLoader

from ..methods import SemiSegmentor
from ..registry import LOOPS
from ..utils import require, unwrap_model


@LOOPS.register_module()
class PhaseTrainLoop(IterBasedTrainLoop):
    """Iteration-based training loop for one phase of a run.

    It differs from MMEngine's ``IterBasedTrainLoop`` in two points. It starts the workers of the data loader
    with the first iteration, so a later phase loads no images before it begins. After a resume it continues
    with the next images of the order, without loading the images before them; the sampler must have
    ``set_position``, as :class:`DualStreamSampler` has.

    Args:
        runner (Runner): The runner.
        dataloader (dict or DataLoader): The data loader of the phase.
        max_iters (int): Iterations of the phase, at least 1.
        val_begin (int): First iteration of the phase with validation.
        val_interval (int): Iterations between two validations. The last iteration of the phase is also
            followed by a validation.

    Raises:
        ValueError: ``max_iters`` or ``val_interval`` is below 1.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict | DataLoader,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
    ) -> None:
        for name, value in (('max_iters', max_iters), ('val_interval', val_interval)):
            require('PhaseTrainLoop', name, value, value >= 1, '1 or more')
        # not IterBasedTrainLoop.__init__, which starts the workers
        BaseLoop.__init__(self, runner, dataloader)
        self.start = 0  # iteration of the run at which the phase begins
        self.length = max_iters
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.stop_training = False
        self.next_loop: EpochBasedTrainLoop | IterBasedTrainLoop | None = None
        self._epoch, self._max_epochs = 0, 1
        self._iter, self._max_iters = 0, max_iters
        runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)

    @property
    def max_iters(self) -> int:
        """Iterations of the run, including the phases before and after this one."""
        return self.start + self.length + (self.next_loop.max_iters if self.next_loop else 0)

    @property
    def phase_iter(self) -> int:
        """Iterations of the phase so far."""
        return self._iter - self.start

    def run(self) -> nn.Module:
        """Train until the end of the phase, or until a hook sets ``stop_training``.

        Returns:
            nn.Module: The model.
        """
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        batches = self._batches()
        while self.phase_iter < self.length and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            if self.runner.val_loop is not None and self.is_val_step():
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def is_val_step(self, step: int | None = None) -> bool:
        """Return whether a validation follows an iteration.

        Args:
            step (int, optional): Its number in the phase, counted from 1. Default: the latest one.
        """
        step = self.phase_iter if step is None else step
        regular = step >= self.val_begin and step % self.val_interval == 0
        return step > 0 and (regular or step == self.length)

    def _batches(self) -> Iterator:
        """Yield batches without end, from the current position of the phase on."""
        sampler, skipped = _sampler_of(self.dataloader), self.phase_iter
        if hasattr(sampler, 'set_position'):
            sampler.set_position(skipped)
            skipped = 0
        while True:
            for batch in self.dataloader:
                if skipped:
                    skipped -= 1
                else:
                    yield batch
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(sampler.epoch + 1)


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """Epoch-based training loop that resumes inside an epoch.

    It differs from MMEngine's ``EpochBasedTrainLoop`` in one point. After a resume from a checkpoint inside
    an epoch (``CheckpointHook(by_epoch=False)``), it continues with the next images of the epoch. MMEngine
    begins the epoch again. The sampler must have ``set_position``, as :class:`DualStreamSampler` has.

    Args:
        runner (Runner): The runner.
        *args: Other positional arguments of ``EpochBasedTrainLoop``.
        **kwargs: Other keyword arguments of ``EpochBasedTrainLoop``.
    """

    start = 0  # iteration of the run at which the first epoch begins

    def run_epoch(self) -> None:
        """Train for the rest of an epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        length = len(self.dataloader)
        first = self._iter - self.start - self._epoch * length
        if first < length:
            for index, batch in enumerate(_batches_from(self.dataloader, self._epoch * length, first), first):
                self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


def _sampler_of(dataloader: DataLoader) -> Any:
    # DataLoader.sampler cannot be changed, so a DrawSampler is only there
    return getattr(dataloader.batch_sampler, 'sampler', dataloader.sampler)


def _batches_from(dataloader: DataLoader, epoch_start: int, skipped: int) -> Iterator:
    """Yield the batches of an epoch without the first ``skipped`` ones."""
    sampler = _sampler_of(dataloader)
    if skipped and hasattr(sampler, 'set_position'):
        sampler.set_position(epoch_start + skipped)
        skipped = 0
    for index, batch in enumerate(dataloader):
        if index >= skipped:
            yield batch


def resumable_loop(runner: Runner) -> EpochBasedTrainLoop | IterBasedTrainLoop:
    """Return the train loop of a runner, or one that replaces MMEngine's and resumes exactly.

    Args:
        runner (Runner): The runner. It has built its train loop.

    Returns:
        EpochBasedTrainLoop or IterBasedTrainLoop: The loop. A loop of another class is returned as it is.
    """
    loop = runner.train_loop
    if type(loop) is IterBasedTrainLoop and len(loop.dynamic_intervals) == 1:
        return PhaseTrainLoop(runner, loop.dataloader, loop.max_iters, loop.val_begin, loop.val_interval)
    if type(loop) is EpochBasedTrainLoop:
        loop.__class__ = ResumableEpochLoop  # it has no other state
    return loop


@LOOPS.register_module()
class TeacherStudentValLoop(ValLoop):
    """Validation loop that evaluates the student and the teacher.

    Metrics of the model that predicts (``predict_on``) keep their names, so ``save_best='mIoU'`` uses it.
    Metrics of the other model have the prefix ``student/`` or ``teacher/``. The loop takes twice the time of
    ``ValLoop``. In a supervised phase, only the student is evaluated. MMDetection has a loop of the same
    name.

    Args:
        runner (Runner): The runner. Its model is a :class:`SemiSegmentor` with a teacher.
        *args: Other positional arguments of ``ValLoop``.
        **kwargs: Other keyword arguments of ``ValLoop``.

    Raises:
        ValueError: The model has no teacher.
    """

    def __init__(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        model = unwrap_model(runner.model)
        if not isinstance(model, SemiSegmentor) or model.teacher is None:
            raise ValueError(
                f'TeacherStudentValLoop: the {type(model).__name__} has no teacher. Use '
                "val_cfg=dict(type='ValLoop'), or set teacher=dict(...) in the method."
            )
        super().__init__(runner, *args, **kwargs)

    def run(self) -> dict[str, float]:
        """Evaluate both models.

        Returns:
            dict[str, float]: Metrics of both models. Those of the model that predicts come first.
        """
        model = cast(SemiSegmentor, unwrap_model(self.runner.model))
        if model.supervised_only:
            return super().run()
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        predictor = model.predict_on
        other = 'student' if predictor == 'teacher' else 'teacher'
        try:
            model.predict_on = other
            other_metrics = {f'{other}/{name}': value for name, value in self._evaluate().items()}
        finally:
            model.predict_on = predictor
        # in this order, because save_best='auto' uses the first key
        metrics = self._evaluate() | other_metrics
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics

    def _evaluate(self) -> dict[str, float]:
        for index, batch in enumerate(self.dataloader):
            self.run_iter(index, batch)
        return self.evaluator.evaluate(len(self.dataloader.dataset))
