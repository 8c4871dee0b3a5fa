"""Hook that puts a supervised phase before a semi-supervised training."""

import time
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from ...methods.loss_weights import linear_rampup
from ...registry import HOOKS
from ...utils import require
from ..checkpoint import save_for_resume
from ..earlier_run import set_aside_earlier_run
from ..loops import PhaseTrainLoop, resumable_loop
from ..phases import (
    SupervisedPhase,
    TrainLoop,
    check_phases,
    checkpoint_folders,
    find_semi_segmentor,
    log_by_iterations,
    supervised_phase,
    use_supervised_optimizer,
    validate_teacher_and_student,
    wrap_model,
)
from ..plain_checkpoint import check_supervised_weights, load_best_weights, plain_config
from ..scoreboard import CHOSEN, SUPERVISED, Scoreboard
from .best_network import BestNetworkHook

OWNER = 'WarmStartHook'


@HOOKS.register_module()
class WarmStartHook(BestNetworkHook):
    """Train on the labeled images until this has converged, then start the semi-supervised training.

    A run has two phases with one config, one command, one work dir and one log:

    1. The student is trained alone, as a plain segmentor, on the labeled stream. Only the startup check loads
       an unlabeled image. The phase ends after ``max_iters`` iterations, or when ``patience`` validations
       brought no new best value. With ``load_from``, this phase is omitted: the loaded weights are validated
       and take its place. If they lack a part of the network, such as AllSpark's bottleneck, the phase
       starts from them instead, because this part is random.
    2. The student and the teacher start from the best weights of phase 1. The optimizer and the learning
       rate start anew. The losses of the unlabeled images are multiplied by a factor that grows from 0 to 1
       in ``ramp_up`` iterations. ``train_cfg``, ``optim_wrapper`` and ``param_scheduler`` of the config are
       those of this phase.

    Pseudo-labels of an untrained network are noise, and the network learns the noise. The supervised phase
    also gives the score that the unlabeled images must beat: student and teacher are validated, the best
    network of each phase is stored as a plain checkpoint (``supervised.pth``, ``METHOD.pth``), and
    ``chosen.pth`` is the better one. ``chosen.py`` is its config. ``summary.json`` has the scores. Phase 2
    stops after ``give_up`` validations in a row without a value above the supervised score.

    Iterations are counted from the start of the run in the log, in the checkpoints and in ``summary.json``.

    .. code-block:: python

        custom_hooks = [dict(type='allspark_mmseg.WarmStartHook', max_iters=2000, val_interval=200)]

    Args:
        max_iters (int): Iterations of the supervised phase, at least 1.
        val_interval (int): Iterations between two validations in the supervised phase.
        patience (int, optional): Validations without a new best value that end the supervised phase. None:
            it always has ``max_iters`` iterations.
        batch_size (int, optional): Labeled images per step and process in the supervised phase. By default
            as in phase 2.
        lr_mult (float): Learning rate of the supervised phase, as a multiple of that of phase 2. In the
            supervised phase, it decays with the power 0.9 of the remaining iterations.
        ramp_up (int): Iterations of the linear ramp-up of the unlabeled losses.
        give_up (int, optional): Validations in a row without a value above the supervised one that end phase
            2. None: it always runs to its end.
        metric (str): Metric to compare; higher is better.
        control (bool): Train phase 2 without the losses of the unlabeled images, for comparison: a part of
            the gain of phase 2 is that of longer training. ``train --control`` sets it.

    Raises:
        ValueError: An argument is out of range. Before the first iteration: the model is not a
            semi-supervised method, ``ramp_up`` is longer than phase 2, ``patience`` is set without
            validation, the checkpoint in ``load_from`` has another network or other classes, or a checkpoint
            of a run without this hook is resumed.
    """

    # CheckpointHook (VERY_LOW) sets its folder in before_train, and a validation there needs it
    priority = 'LOWEST'

    def __init__(
        self,
        max_iters: int = 2000,
        val_interval: int = 200,
        patience: int | None = None,
        batch_size: int | None = None,
        lr_mult: float = 1.0,
        ramp_up: int = 0,
        give_up: int | None = 8,
        metric: str = 'mIoU',
        control: bool = False,
    ) -> None:
        for name, value, least in (
            ('max_iters', max_iters, 1),
            ('val_interval', val_interval, 1),
            ('patience', patience, 1),
            ('batch_size', batch_size, 1),
            ('ramp_up', ramp_up, 0),
            ('give_up', give_up, 1),
        ):
            require(OWNER, name, value, value is None or value >= least, f'{least} or more')
        require(OWNER, 'lr_mult', lr_mult, lr_mult > 0, 'a factor above 0')
        super().__init__(patience, give_up)
        self.max_iters = max_iters
        self.val_interval = val_interval
        self.batch_size = batch_size
        self.lr_mult = lr_mult
        self.ramp_up = ramp_up
        self.metric = metric
        self.control = control
        self.start = 0  # iteration of the run at which phase 2 begins
        self.resumed = False

    def before_run(self, runner: Runner) -> None:
        """Check the config and prepare the supervised phase. The runner has built phase 2.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: Model, validation and phases do not fit together.
        """
        # Runner.val() and Runner.test() build no train loop, and can follow a training
        if self.training or not isinstance(runner._train_loop, BaseLoop):
            return
        self.training = True
        self.model = find_semi_segmentor(runner)
        method = type(self.model).__name__
        self.board = Scoreboard(runner.work_dir, method, self.metric, self.control)
        self.semi_loop = resumable_loop(runner)
        self.semi_length = self.semi_loop.max_iters
        self.semi_optimizer = runner.optim_wrapper, runner.param_schedulers
        self.out_dirs = checkpoint_folders(runner)
        check_phases(runner, self.semi_length, self.ramp_up, self.patience)
        log_by_iterations(runner)
        validate_teacher_and_student(runner)
        if runner._load_from is not None and not runner._resume:
            runner._train_loop = self._place_semi_loop(start=0)
        else:
            self._enter_supervised_phase(runner)

    def _enter_supervised_phase(self, runner: Runner) -> None:
        loop = supervised_phase(runner, self.semi_loop, self.max_iters, self.val_interval, self.batch_size)
        loop.start_next = self.start_semi_phase
        runner._train_loop = loop
        use_supervised_optimizer(runner, self.lr_mult, self.max_iters)
        self.model.supervised_only = True
        if self.model.extended_heads:
            wrap_model(runner, find_unused_parameters=True)

    def start_semi_phase(self, runner: Runner) -> None:
        """Start phase 2 from the best weights of the supervised phase.

        Args:
            runner (Runner): The runner.
        """
        start, best = runner.iter, self.board.best(SUPERVISED)
        if best is not None:
            load_best_weights(runner, self.model.student, Path(runner.work_dir, f'{SUPERVISED}.pth'))
        if self.model.teacher is not None:
            self.model.teacher.copy_from(self.model.student)
        runner.optim_wrapper.zero_grad()  # of accumulation that the end of the phase cut off
        self._enter_semi_phase(runner, start)
        score = '' if best is None else f' with {self.metric} {best.value:.2f} of iteration {best.iteration}'
        runner.logger.info(
            f'The supervised phase ended at iteration {start}. The semi-supervised phase starts from its '
            f'{"last" if best is None else "best"} weights{score}.'
        )

    def _enter_semi_phase(self, runner: Runner, start: int) -> None:
        runner._train_loop = self._place_semi_loop(start)
        runner.optim_wrapper, runner.param_schedulers = self.semi_optimizer
        self.model.supervised_only = False
        unused = self.model.extended_heads and not self.model.trains_method_parameters
        wrap_model(runner, True if unused else None)
        for hook, out_dir in self.out_dirs.items():
            hook.out_dir = out_dir  # CheckpointHook appends to it at the start of each loop

    def _place_semi_loop(self, start: int) -> TrainLoop:
        """Let the iterations of phase 2 begin at ``start``."""
        loop, self.start = self.semi_loop, start
        loop.start = loop._iter = start
        if not isinstance(loop, PhaseTrainLoop):
            loop._max_iters = start + self.semi_length
        return loop

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the phase and the scores in the checkpoint.

        The teacher does not exist in the supervised phase. Without its keys, the weights of the student load
        into it.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint. It is changed in place.
        """
        # not supervised_only, which also holds while weights of load_from are validated
        supervised = isinstance(runner.train_loop, SupervisedPhase)
        checkpoint['meta']['warm_start'] = dict(
            supervised=supervised, start=self.start, scores=self.board.to_dicts()
        )
        if supervised:
            state = checkpoint['state_dict']
            for key in [key for key in state if key.startswith('teacher.')]:
                del state[key]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Return to the phase of a resumed checkpoint, or check weights that replace the supervised phase.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint.

        Raises:
            ValueError: The checkpoint is not from a run with this hook, or does not fit the network.
        """
        if not self.training:
            return
        if not runner._resume:
            if missing := check_supervised_weights(runner._load_from, checkpoint, self.model):
                runner.logger.warning(
                    f'{OWNER}: load_from {runner._load_from} has no weights of {len(missing)} tensors of the '
                    f'network, for example {missing[0]}. So the supervised phase is not omitted. It starts '
                    'from these weights.'
                )
                self._enter_supervised_phase(runner)
            return
        state = checkpoint['meta'].get('warm_start')
        if state is None:
            source = runner._load_from or f'in {runner.work_dir}'
            raise ValueError(
                f'{OWNER}: the checkpoint {source} is from a run without WarmStartHook, so it has '
                'no phase to resume. Start from its weights with load_from instead of --resume, in another '
                'work dir.'
            )
        self.resumed = True
        self.continue_scores(state['scores'])
        if not state['supervised']:
            self._enter_semi_phase(runner, state['start'])

    def before_train(self, runner: Runner) -> None:
        """Begin a phase. Weights that replace the supervised phase are validated.

        Args:
            runner (Runner): The runner.
        """
        supervised = self.model.supervised_only
        if runner.iter == 0 or self.resumed:
            self.started = time.monotonic()
            set_aside_earlier_run(runner)  # SafeCheckpointHook has done this, if the config has it
            if is_main_process():
                plain_config(runner.cfg).dump(Path(runner.work_dir, CHOSEN).with_suffix('.py'))
        if supervised:
            most = f'at most {self.max_iters} iterations on the labeled images'
            runner.logger.info(f'Supervised phase: {most}.')
        # gradient accumulation counts from the start of the phase
        length = self.max_iters if supervised else self.semi_length
        runner.optim_wrapper.initialize_count_status(runner.model, runner.iter - self.start, length)
        if runner.val_loop is None:
            return
        if not supervised and runner.iter == self.start and not self.board.of(SUPERVISED):
            self._validate_loaded_weights(runner)
        if self.resumed:
            self.repeat_validation(runner)
        self.resumed = False

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None) -> None:
        """Set the factor of the unlabeled losses."""
        scale = linear_rampup(runner.iter - self.start, self.ramp_up)
        self.model.unlabeled_scale = 0.0 if self.control else scale

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Save a checkpoint of the supervised phase if the run counts checkpoints by epochs."""
        if not (self.model.supervised_only and self.every_n_train_iters(runner, self.val_interval)):
            return
        if any(isinstance(hook, CheckpointHook) and hook.by_epoch for hook in runner.hooks):
            save_for_resume(runner, runner.work_dir, 'supervised_last.pth')

    def _validate_loaded_weights(self, runner: Runner) -> None:
        runner.logger.info(f'{runner._load_from} takes the place of the supervised phase. It is validated.')
        if self.model.teacher is not None:
            self.model.teacher.copy_from(self.model.student)
        self.model.supervised_only = True
        try:
            runner.val_loop.run()
        finally:
            self.model.supervised_only = False
