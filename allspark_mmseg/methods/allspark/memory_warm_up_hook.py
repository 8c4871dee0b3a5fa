"""The end of AllSpark's warm-up."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...registry import HOOKS
from ...utils import unwrap_model
from .segmentor import AllSpark


@HOOKS.register_module()
class MemoryWarmUpHook(Hook):
    """Let labeled images attend to AllSpark's memory after some epochs or iterations.

    During the warm-up they attend to the unlabeled images of their batch while the memory fills. In the
    reference the warm-up lasts 5 epochs (Pascal VOC) or 15 (Cityscapes).

    Args:
        epochs (int, optional): Epochs of the warm-up, for epoch-based training.
        iters (int, optional): Iterations of the warm-up, counted from the start of the semi-supervised
            phase. Give exactly one of the two.

    Raises:
        ValueError: Not exactly one of the two is given, or it is negative. Before training: ``epochs`` is
            given for iteration-based training, or the model is not an ``AllSpark``.
    """

    def __init__(self, *, epochs: int | None = None, iters: int | None = None) -> None:
        given = [number for number in (epochs, iters) if number is not None]
        if len(given) != 1 or given[0] < 0:
            raise ValueError(
                f'MemoryWarmUpHook: epochs is {epochs} and iters is {iters}, expected '
                'either epochs or iters, at least 0.'
            )
        self.epochs = epochs
        self.iters = iters

    def before_train(self, runner: Runner) -> None:
        """Check the hook against the model and the training loop."""
        model = unwrap_model(runner.model)
        if not isinstance(model, AllSpark):
            raise ValueError(
                f'MemoryWarmUpHook: model is a {type(model).__name__}, expected allspark_mmseg.AllSpark; '
                'remove the hook from the config.'
            )
        loop = getattr(runner.train_loop, 'next_loop', None) or runner.train_loop
        if self.epochs is not None and not isinstance(loop, EpochBasedTrainLoop):
            raise ValueError(
                f'MemoryWarmUpHook: epochs={self.epochs}, but train_cfg is iteration-based and counts no '
                'epochs; give iters instead.'
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Start to read the memory at the given epoch or iteration, and log it once."""
        model = unwrap_model(runner.model)
        if model.supervised_only:
            return
        if self.iters is not None:
            ready = runner.iter - getattr(runner.train_loop, 'start', 0) >= self.iters
        else:
            ready = runner.epoch >= self.epochs
        if ready != model.reads_memory:
            model.reads_memory = ready
            if ready:
                runner.logger.info(f'The semantic memory is read from iteration {runner.iter} on.')
