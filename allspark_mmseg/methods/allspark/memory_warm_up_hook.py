"""The start of reading AllSpark's memory."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from ...registry import HOOKS
from ...utils import unwrap_model
from .segmentor import AllSpark


@HOOKS.register_module()
class MemoryWarmUpHook(Hook):
    """Let labeled images attend to AllSpark's memory after some epochs or iterations.

    Before that, they attend to the unlabeled images of their batch while the memory fills. The reference reads
    the memory from epoch 5 (Pascal) or 15 (Cityscapes).

    Args:
        epochs (int, optional): Epochs before the memory is read, for epoch-based training.
        iters (int, optional): Iterations before the memory is read. Give exactly one of the two.

    Raises:
        ValueError: Not exactly one of the two is given; it is negative; ``epochs`` is given for iteration-based
            training; or the model is not an ``AllSpark``.
    """

    def __init__(self, *, epochs: int | None = None, iters: int | None = None):
        given = [number for number in (epochs, iters) if number is not None]
        if len(given) != 1 or given[0] < 0:
            raise ValueError(
                'MemoryWarmUpHook: give either epochs or iters, at least 0; '
                f'found epochs={epochs}, iters={iters}.'
            )
        self.epochs = epochs
        self.iters = iters

    def before_train(self, runner) -> None:
        """Check the hook against the model and the loop."""
        model = unwrap_model(runner.model)
        if not isinstance(model, AllSpark):
            raise ValueError(
                f'MemoryWarmUpHook: model is a {type(model).__name__}, expected allspark_mmseg.AllSpark; '
                'take the hook out of the config.'
            )
        if self.epochs is not None and not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                f'MemoryWarmUpHook: epochs={self.epochs}, but train_cfg is iteration-based and counts no '
                'epochs; give iters instead.'
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Start reading at the given epoch or iteration, and log it once."""
        ready = runner.iter >= self.iters if self.iters is not None else runner.epoch >= self.epochs
        buffer = unwrap_model(runner.model).memory_ready
        if ready != bool(buffer):
            buffer.fill_(ready)
            if ready:
                runner.logger.info(f'The semantic memory is read from iteration {runner.iter} on.')
