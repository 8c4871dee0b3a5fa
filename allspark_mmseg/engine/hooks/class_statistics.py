"""Hook that logs statistics of each class."""

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner

from ...methods import SemiSegmentor
from ...registry import HOOKS
from ...utils import unwrap_model


@HOOKS.register_module()
class ClassStatisticsHook(Hook):
    """Log the model's ``class_statistics()``, for example the share of pixels of each pseudo-class.

    The hook writes one line per statistic to the log, and one scalar per class to the visualizer, for example
    ``pseudo.share/NAME``.

    Args:
        interval (int): Iterations between two lines.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, interval: int = 200) -> None:
        self.interval = interval

    @master_only
    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Log the statistics every ``interval`` iterations.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The collated batch.
            outputs (dict, optional): Outputs of the training step.
        """
        model = unwrap_model(runner.model)
        if not isinstance(model, SemiSegmentor) or model.supervised_only:
            return
        if not self.every_n_train_iters(runner, self.interval):
            return
        names = runner.train_dataloader.dataset.metainfo['classes']
        for statistic, values in model.class_statistics().items():
            by_class = dict(zip(names, values.tolist(), strict=True))
            text = ', '.join(f'{name} {value:.1%}' for name, value in by_class.items())
            runner.logger.info(f'{statistic}: {text}')
            scalars = {f'{statistic}/{name}': value for name, value in by_class.items()}
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
