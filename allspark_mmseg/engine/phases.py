"""The supervised phase of a run with two phases, and the changes of the runner for it."""

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

from mmengine.dist import is_distributed
from mmengine.hooks import CheckpointHook, EMAHook, LoggerHook
from mmengine.runner import Runner, ValLoop
from torch import nn

from ..methods import SemiSegmentor
from ..utils import require, unwrap_model
from .loops import PhaseTrainLoop, TeacherStudentValLoop

# an EpochBasedTrainLoop or an IterBasedTrainLoop; their common base class lacks the attributes of both
TrainLoop: TypeAlias = Any


class SupervisedPhase(PhaseTrainLoop):
    """The loop of the supervised phase. When it ends, it starts the loop of the semi-supervised phase."""

    start_next: Callable[[Runner], None]

    def run(self) -> nn.Module:
        """Run both phases.

        Returns:
            nn.Module: The model.
        """
        super().run()
        self.start_next(self.runner)
        return self.runner.train_loop.run()


def supervised_phase(
    runner: Runner, semi_loop: TrainLoop, max_iters: int, val_interval: int, batch_size: int | None
) -> SupervisedPhase:
    """Build the loop of the supervised phase. It draws from the labeled stream of the semi-supervised phase.

    Args:
        runner (Runner): The runner.
        semi_loop (EpochBasedTrainLoop or IterBasedTrainLoop): The loop of the semi-supervised phase.
        max_iters (int): Iterations of the phase.
        val_interval (int): Iterations between two validations.
        batch_size (int, optional): Images per step and process. By default the labeled images of
            ``semi_loop``.

    Returns:
        SupervisedPhase: The loop.
    """
    labeled = batch_size or semi_loop.dataloader.sampler.counts['labeled']
    loader = {
        **copy.deepcopy(dict(runner.cfg.train_dataloader)),
        'dataset': semi_loop.dataloader.dataset,
        'batch_size': labeled,
        'persistent_workers': False,  # the phase starts them once, and they end with it
        'sampler': dict(
            type='allspark_mmseg.LabeledStreamSampler',
            labeled=labeled,
            epoch_length=max_iters,
            seed=semi_loop.dataloader.sampler.seed,
        ),
    }
    loop = SupervisedPhase(runner, loader, max_iters, val_interval=val_interval)
    loop.next_loop = semi_loop
    return loop


def use_supervised_optimizer(runner: Runner, lr_mult: float, max_iters: int) -> None:
    """Give the runner a new optimizer, and a learning rate that decays with the power 0.9 to 0.

    Args:
        runner (Runner): The runner.
        lr_mult (float): Factor of the learning rate of the config.
        max_iters (int): Iterations until the learning rate is 0.
    """
    optimizer = copy.deepcopy(runner.cfg.optim_wrapper)
    optimizer.optimizer.lr *= lr_mult
    runner.param_schedulers = None  # scale_lr refuses schedulers that exist
    runner.optim_wrapper = runner.build_optim_wrapper(optimizer)
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    schedule = dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)
    runner.param_schedulers = runner.build_param_scheduler(schedule)


def find_semi_segmentor(runner: Runner) -> SemiSegmentor:
    """Return the method that the runner trains.

    Raises:
        ValueError: The model is not a semi-supervised method, or MMEngine's ``EMAHook`` averages it.
    """
    model = unwrap_model(runner.model)
    if not isinstance(model, SemiSegmentor):
        raise ValueError(
            f'WarmStartHook: model is a {type(model).__name__}, expected a semi-supervised method such as '
            'allspark_mmseg.AllSpark. Remove the hook to train on labeled images only.'
        )
    if any(isinstance(hook, EMAHook) for hook in runner.hooks):
        # it swaps its weights back before the validated ones could be stored
        raise ValueError(
            'WarmStartHook: the config has an EMAHook, whose averaged weights are validated but not stored. '
            'Remove it, and set teacher=dict(momentum=...) in the method, which averages the weights, too.'
        )
    return model


def check_phases(runner: Runner, length: int, ramp_up: int, patience: int | None) -> None:
    """Check the arguments of ``WarmStartHook`` against the run, and warn of a run without validation.

    Args:
        runner (Runner): The runner.
        length (int): Iterations of the semi-supervised phase.
        ramp_up (int): Iterations of the ramp-up.
        patience (int, optional): Validations without a new best value.

    Raises:
        ValueError: The ramp-up is longer than the phase, or ``patience`` is set without validation.
    """
    expected = f'at most the {length} iterations of train_cfg'
    require('WarmStartHook', 'ramp_up', ramp_up, ramp_up <= length, expected)
    if runner.val_loop is not None:
        return
    if patience is not None:
        raise ValueError(
            f'WarmStartHook: patience is {patience}, but the config has no validation. Set val_dataloader, '
            'val_evaluator and val_cfg, or set patience=None.'
        )
    runner.logger.warning(
        'WarmStartHook: the config has no validation. The second phase starts from the last weights of the '
        'first, and no network is chosen.'
    )


def is_val_step(loop: TrainLoop) -> bool:
    """Return whether a validation follows the latest iteration of a train loop."""
    if isinstance(loop, PhaseTrainLoop):
        return loop.is_val_step()
    step, interval, end = loop.epoch, loop.val_interval, loop.max_epochs
    if loop.iter - getattr(loop, 'start', 0) != step * len(loop.dataloader):
        return False  # inside an epoch
    return bool(step) and step >= loop.val_begin and (step % interval == 0 or step == end)


def checkpoint_folders(runner: Runner) -> dict[CheckpointHook, str | None]:
    """Return the folder of each CheckpointHook, as the config gives it."""
    return {hook: hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook)}


def log_by_iterations(runner: Runner) -> None:
    """Log both phases on one axis, the iterations of the run."""
    runner.log_processor.by_epoch = False
    for hook in runner.hooks:
        if isinstance(hook, LoggerHook):
            hook.log_metric_by_epoch = False


def validate_teacher_and_student(runner: Runner) -> None:
    """Validate both networks of a method with a teacher."""
    loop = runner.val_loop
    if find_semi_segmentor(runner).teacher is None or isinstance(loop, TeacherStudentValLoop | None):
        return
    if type(loop) is ValLoop:
        runner._val_loop = TeacherStudentValLoop(runner, loop.dataloader, loop.evaluator, fp16=loop.fp16)
        return
    runner.logger.warning(
        f'WarmStartHook: val_cfg has a {type(loop).__name__}, so only the network of predict_on is '
        'validated. A TeacherStudentValLoop validates student and teacher.'
    )


def wrap_model(runner: Runner, find_unused_parameters: bool | None = None) -> None:
    """Wrap the model again for distributed training, because the phases use different parameters.

    Args:
        runner (Runner): The runner.
        find_unused_parameters (bool, optional): By default as in the config.
    """
    if not is_distributed():
        return
    wrapper = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': runner.cfg.get('find_unused_parameters', False),
        **(runner.cfg.get('model_wrapper_cfg') or {}),
    }
    if find_unused_parameters is not None:
        wrapper['find_unused_parameters'] = find_unused_parameters
    runner.model = runner.wrap_model(wrapper, unwrap_model(runner.model))
