"""Per-class health of a semi-supervised run, in the log."""

from mmengine.dist import master_only
from mmengine.hooks import Hook

from ...methods import AllSpark, SemiSegmentor
from ...registry import HOOKS
from .unwrapping import unwrapped


@HOOKS.register_module()
class ClassStatisticsHook(Hook):
    """Log the share of pixels of each pseudo-class, and how full AllSpark's memory is, class by class.

    One line in the log; a scalar for each class in the visualizer's backends (``pseudo.share/NAME`` and
    ``memory.filled/NAME``, both in [0, 1]).

    Args:
        interval: iterations between two lines.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, interval: int = 200):
        self.interval = interval

    @master_only
    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Log every ``interval`` iterations."""
        model = unwrapped(runner.model)
        if not isinstance(model, SemiSegmentor) or not self.every_n_train_iters(runner, self.interval):
            return
        names = runner.train_dataloader.dataset.metainfo['classes']
        statistics = {'pseudo.share': model.pseudo_share.tolist()}
        if isinstance(model, AllSpark):
            statistics['memory.filled'] = model.memory.filled.tolist()
        for what, values in statistics.items():
            by_class = dict(zip(names, values, strict=True))
            listed = ', '.join(f'{name} {value:.1%}' for name, value in by_class.items())
            runner.logger.info(f'{what}: {listed}')
            scalars = {f'{what}/{name}': value for name, value in by_class.items()}
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
