"""Hook that logs statistics of each class."""

from collections.abc import Sequence
from typing import cast

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner

from ...methods import SemiSegmentor
from ...registry import HOOKS
from ...utils import require, unwrap_model
from .startup_check import StartupCheckHook

_STATE = 'pseudo_label_sink'  # key in the message hub
_SINK_MARGIN = 0.02


@HOOKS.register_module()
class ClassStatisticsHook(Hook):
    """Log the model's ``class_statistics()``, for example the share of pixels of each pseudo-class.

    The hook writes one line per statistic to the log, and one scalar per class to the visualizer, for example
    ``pseudo.share/NAME``.

    It warns once in a run, also without validation, if one class has almost all pseudo-labels of ``interval``
    iterations, and if its share of the labeled pixels is lower by at least 0.02. ``StartupCheckHook`` counts
    the labeled pixels. Without it, the share of the pseudo-labels alone decides.

    Args:
        interval (int): Iterations between two lines.
        sink_share (float): Warn if a class has more than this share of the pseudo-labels, in (0, 1].

    Raises:
        ValueError: ``sink_share`` is out of its range.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, interval: int = 200, sink_share: float = 0.99) -> None:
        require('ClassStatisticsHook', 'sink_share', sink_share, 0 < sink_share <= 1, 'a share in (0, 1]')
        self.interval = interval
        self.sink_share = sink_share
        self._share: torch.Tensor | None = None  # sum of the shares since the last line, on the device
        self._steps = 0

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
        self._share = model.pseudo_share + (0 if self._share is None else self._share)
        self._steps += 1
        if not self.every_n_train_iters(runner, self.interval):
            return
        names = runner.train_dataloader.dataset.metainfo['classes']
        self._warn_of_sink(runner, names)
        for statistic, values in model.class_statistics().items():
            by_class = dict(zip(names, values.tolist(), strict=True))
            text = ', '.join(f'{name} {value:.1%}' for name, value in by_class.items())
            runner.logger.info(f'{statistic}: {text}')
            scalars = {f'{statistic}/{name}': value for name, value in by_class.items()}
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)

    def _warn_of_sink(self, runner: Runner, names: Sequence[str]) -> None:
        share = (cast(torch.Tensor, self._share) / self._steps).tolist()
        self._share, self._steps = None, 0
        index = max(range(len(share)), key=share.__getitem__)
        labeled = _labeled_share(runner, index)
        known = labeled is None or share[index] - labeled >= _SINK_MARGIN
        if (
            len(share) < 2
            or share[index] <= self.sink_share
            or not known
            or runner.message_hub.get_info(_STATE)
        ):
            return
        compared = '' if labeled is None else f', but only {labeled:.1%} of the labeled pixels'
        runner.logger.warning(
            f'{share[index]:.1%} of the pixels of the last {self.interval} iterations have the pseudo-label '
            f'{names[index]}{compared}. Such pseudo-labels teach the model to predict {names[index]} '
            'everywhere. Label more images of the other classes, train longer on the labeled images alone '
            '(WarmStartHook, '
            "or load_from), or use class_weight='balanced' of allspark_mmseg.CrossEntropyLoss."
        )
        runner.message_hub.update_info(_STATE, True)


def _labeled_share(runner: Runner, index: int) -> float | None:
    """Return the share of a class in the labeled pixels, or None if they have not been counted."""
    for hook in runner.hooks:
        counts = hook.label_counts if isinstance(hook, StartupCheckHook) else None
        if counts is not None and counts.pixels[:255].any():
            return float(counts.pixels[index] / counts.pixels[:255].sum())
    return None
