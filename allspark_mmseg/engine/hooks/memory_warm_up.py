"""When AllSpark's memory starts being read."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from ...methods.allspark import AllSpark
from ...registry import HOOKS
from .unwrapping import unwrapped


@HOOKS.register_module()
class MemoryWarmUpHook(Hook):
    """Let labelled images attend to AllSpark's memory after some epochs or iterations.

    Until then they attend to the unlabelled images of their batch, while the memory fills. The
    reference reads it from epoch 5 (Pascal) or 15 (Cityscapes).

    Args:
        epochs: epochs before the memory is read; for epoch-based training.
        iters: iterations before it is read; give exactly one of the two.

    Raises:
        ValueError: not exactly one is given, it is negative, or epochs are counted in an iteration-based
            training, which has none; the model is not an ``AllSpark``.
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
        model = unwrapped(runner.model)
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
        """Start reading once the time has come; tells so once."""
        ready = runner.epoch >= self.epochs if self.epochs is not None else runner.iter >= self.iters
        buffer = unwrapped(runner.model).memory_ready
        if ready != bool(buffer):
            buffer.fill_(ready)
            if ready:
                runner.logger.info(f'The semantic memory is read from iteration {runner.iter} on.')
