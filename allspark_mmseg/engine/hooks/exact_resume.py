"""Hook that makes a resumed run end with the weights of a run that was never stopped."""

from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor
from torch.utils.data import DataLoader

from ... import __version__
from ...datasets.draws import draw_from, seed_generators
from ...registry import HOOKS
from ...utils import unwrap_model
from ..loops import PhaseTrainLoop, ResumableEpochLoop, resumable_loop
from ..phases import is_val_step
from .best_network import BestNetworkHook

KEY = 'exact_resume'  # of the checkpoint
FORMAT = 1  # grows when an older version could not continue from the checkpoints
_STEP = 2  # in place of the stream, 0 or 1, in the keys of images: (seed, epoch, stream, position)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Seed each step by (seed, process, iteration), and continue a run exactly where it stopped.

    MMEngine resumes with other random numbers, at the beginning of an epoch. With this hook, a run that was
    killed and resumed has the same weights, bit for bit, as one that was never killed, where the kernels of
    the device add in a fixed order (on CUDA with ``randomness=dict(deterministic=True)`` only):

    * At the start of each step, the generators of Python, NumPy and PyTorch (CPU and CUDA) are seeded
      with a function of (seed, process, iteration). So a checkpoint needs no generator states, and a resume
      with another number of processes is defined.
    * The random numbers of an image follow from its draw, see :class:`SemiDataset`. Stock samplers yield
      draws through :class:`DrawSampler`.
    * MMEngine's training loops are replaced by :class:`PhaseTrainLoop` and :class:`ResumableEpochLoop`, which
      continue inside an epoch.
    * Gradients that are being accumulated are stored in the checkpoint, for each process.
    * A validation that a kill has cut off is repeated.

    A resume with another number of images per step over all processes is refused, because the steps, the
    learning rate and the order of the images would differ.

    Args:
        allow_new_batch (bool): Accept another number of images per step. ``tools/train.py --allow-new-batch``
            sets it.
    """

    priority = 'VERY_HIGH'  # the other hooks draw random numbers

    def __init__(self, allow_new_batch: bool = False) -> None:
        self.allow_new_batch = allow_new_batch
        self.seed = 0
        self.state: dict[str, Any] | None = None  # of the checkpoint of a resume, until the loop begins
        self.validate_first = False
        self.gradients: list[dict[str, Tensor]] = []

    def before_run(self, runner: Runner) -> None:
        """Replace the train loop. ``Runner.val()`` and ``Runner.test()`` have none.

        Args:
            runner (Runner): The runner.
        """
        # MMEngine adds the rank to the seed of each process
        self.seed = runner.seed - (get_rank() if runner._randomness_cfg.get('diff_rank_seed') else 0)
        if isinstance(runner._train_loop, BaseLoop):
            runner._train_loop = resumable_loop(runner)
            self._set_seed_of_order(runner)  # WarmStartHook copies it

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what a resume needs until the loop begins, because another hook can change the loop.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint.

        Raises:
            ValueError: A newer version of this package has written the checkpoint.
        """
        if not runner._resume or not isinstance(runner._train_loop, BaseLoop):
            return
        self.state = checkpoint.get(KEY)
        if self.state is not None:
            _check_version(runner, self.state)
        else:
            runner.logger.warning(
                f'{type(self).__name__}: the checkpoint is from a run without this hook. The resumed run '
                'continues with other random numbers.'
            )

    def before_train(self, runner: Runner) -> None:
        """Continue where the checkpoint was made.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: A step of the run had another number of images, or the processes have resumed from
                different checkpoints.
        """
        state, self.state = self.state, None
        _check_same_iteration(runner)
        if state is not None:
            self._check_images(runner, state)
            self.seed = state['seed']
            _continue_epoch(runner, state)
            self._restore_gradients(runner, state['gradients'])
            # WarmStartHook repeats a validation by itself
            has_scores = any(isinstance(hook, BestNetworkHook) for hook in runner.hooks)
            loop = runner.train_loop
            self.validate_first = not has_scores and runner.val_loop is not None and is_val_step(loop)
            if runner.iter >= loop.max_iters:
                runner.logger.warning(
                    f'The run in {runner.work_dir} is complete: {runner.iter} of {loop.max_iters} '
                    'iterations. To train again, for example with more labeled images, omit --resume. The '
                    'networks of this run are then kept in the folder of its log.'
                )
        self._set_seed_of_order(runner)

    def _set_seed_of_order(self, runner: Runner) -> None:
        draw_from(runner.train_loop.dataloader)
        sampler = runner.train_loop.dataloader.sampler
        if hasattr(sampler, 'seed'):
            sampler.seed = self.seed

    def before_train_epoch(self, runner: Runner) -> None:
        """Repeat a validation that was cut off. In ``before_train``, other hooks are not ready for it.

        Args:
            runner (Runner): The runner.
        """
        if self.validate_first:
            self.validate_first = False
            runner.val_loop.run()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None) -> None:
        """Seed the generators of the step.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The collated batch.
        """
        seed_generators(self.seed, get_rank(), _STEP, runner.iter)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(torch.initial_seed())

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Collect the gradients of all processes if a checkpoint follows while they are being accumulated.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The collated batch.
            outputs (dict, optional): Outputs of the training step.
        """
        self.gradients = []
        if runner.optim_wrapper.should_update() or not self.can_save(runner, batch_idx):
            return
        parameters = unwrap_model(runner.model).named_parameters()
        gradients = {name: value.grad.cpu() for name, value in parameters if value.grad is not None}
        self.gradients = all_gather_object(gradients)

    def can_save(self, runner: Runner, batch_idx: int) -> bool:
        """Return whether a checkpoint can follow the current step, on every process alike.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
        """
        loop = runner.train_loop
        if isinstance(loop, PhaseTrainLoop):
            # a validation can be followed by a checkpoint of the best network
            ends = loop.is_val_step(loop.phase_iter + 1)
        else:
            ends = batch_idx + 1 == len(loop.dataloader) or self.is_last_train_iter(runner)
        return ends or any(
            isinstance(hook, CheckpointHook)
            and not hook.by_epoch
            and self.every_n_train_iters(runner, hook.interval)
            for hook in runner.hooks
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store what the resume needs.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint. It is changed in place.
        """
        checkpoint[KEY] = {
            'format': FORMAT,
            'version': __version__,
            'seed': self.seed,
            'images': _images_per_step(runner),
            'processes': get_world_size(),
            'start': getattr(runner.train_loop, 'start', 0),
            'steps': _steps_per_epoch(runner),
            'gradients': self.gradients,
        }

    def _check_images(self, runner: Runner, state: dict[str, Any]) -> None:
        images = _images_per_step(runner)
        if images == state['images'] or self.allow_new_batch or None in (images, state['images']):
            return
        raise ValueError(
            f'{type(self).__name__}: the checkpoint is from a run with {state["images"]} images per step '
            f'({state["processes"]} processes), but this run has {images} ({get_world_size()} processes). '
            f'{_advise(runner.train_loop, state["images"])}, or add --allow-new-batch to continue with other '
            'steps.'
        )

    def _restore_gradients(self, runner: Runner, gradients: list[dict[str, Tensor]]) -> None:
        if not gradients:
            return
        # with another number of processes, each continues with the mean, to which DDP would reduce them
        mine = gradients[get_rank()] if len(gradients) == get_world_size() else _mean(gradients)
        for name, parameter in unwrap_model(runner.model).named_parameters():
            if name in mine:
                parameter.grad = mine[name].to(parameter)


def _check_version(runner: Runner, state: dict[str, Any]) -> None:
    if state.get('format', 0) > FORMAT:
        raise ValueError(
            f'the checkpoint {runner._load_from or f"in {runner.work_dir}"} is from allspark_mmseg '
            f'{state.get("version")}, whose checkpoints this version, {__version__}, cannot continue. Update '
            'allspark_mmseg, or start from the weights with load_from instead of --resume.'
        )


def _check_same_iteration(runner: Runner) -> None:
    iterations = all_gather_object(runner.iter)
    if len(set(iterations)) > 1:
        raise ValueError(
            f'the processes have resumed at different iterations: {iterations}. Their file systems show '
            'different checkpoints; name one with --resume FILE.'
        )


def _advise(loop: Any, images: int) -> str:
    """Return how to get a number of images per step."""
    # the config has the settings of the second phase; the first one draws its labeled images
    loader: DataLoader = (getattr(loop, 'next_loop', None) or loop).dataloader
    counts, batch_size = getattr(loader.sampler, 'counts', {}), loader.batch_size or 1
    sizes = {'batch_size': batch_size} | {f'sampler.{name}': count for name, count in counts.items()}
    first = loop.dataloader.batch_size or 1
    total = first * get_world_size()
    own_batch = first != (batch_size if loader is loop.dataloader else counts['labeled'])
    if own_batch or any(size * images % total for size in sizes.values()):
        return 'Set the batch sizes so that a step has as many images as before'
    options = (f'train_dataloader.{name}={size * images // total}' for name, size in sizes.items())
    return f'Add --cfg-options {" ".join(options)} to continue with the same steps'


def _images_per_step(runner: Runner) -> int | None:
    """Return the number over all processes, or None for a batch sampler without one."""
    loader = runner.train_loop.dataloader
    batch_size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
    return None if batch_size is None else batch_size * get_world_size()


def _steps_per_epoch(runner: Runner) -> int | None:
    loop = runner.train_loop
    return len(loop.dataloader) if isinstance(loop, ResumableEpochLoop) else None


def _continue_epoch(runner: Runner, state: dict[str, Any]) -> None:
    """Continue at the same place of the epoch, also if an epoch has another number of steps now.

    The number changes with the images per step. It can change with the number of processes, if a sampler
    rounds it for each process.
    """
    loop, before = runner.train_loop, state.get('steps')
    if not isinstance(loop, ResumableEpochLoop) or before is None:
        return
    now = len(loop.dataloader)
    done = loop.iter - state['start'] - loop.epoch * before
    same = state['images'] == _images_per_step(runner)
    place = min(done, now) if same else done * now // before
    start = loop.iter - loop.epoch * now - place
    loop._max_iters += start - loop.start
    loop.start = start


def _mean(gradients: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Average the gradients of the processes; all have the same names."""
    return {name: torch.stack([each[name] for each in gradients]).mean(0) for name in gradients[0]}
