"""Hook that draws pseudo-labels."""

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from ...methods import SemiSegmentor
from ...registry import HOOKS
from ...utils import unwrap_model


def to_rgb(pixels: Tensor) -> np.ndarray:
    """Return the first three bands (C, H, W) in the order BGR, or one gray band, as RGB (H, W, 3)."""
    bands = pixels[[2, 1, 0]] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    return bands.cpu().permute(1, 2, 0).numpy()


@HOOKS.register_module()
class PseudoLabelVisualizationHook(Hook):
    """Draw the pseudo-labels of the current batch over its images with the runner's visualizer.

    The configs do not use it by default; add it to ``custom_hooks``.

    Args:
        interval (int): Iterations between two visualizations.
        num (int): Maximum number of images in a visualization.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, interval: int = 500, num: int = 2) -> None:
        self.interval = interval
        self.num = num

    @master_only
    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Draw the pseudo-labels every ``interval`` iterations.

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
        raw = [views.weak for views in data_batch['inputs'] if 'weak' in views][: self.num]
        images = model.data_preprocessor(data_batch, training=True)['inputs']['weak'][: self.num]
        with torch.no_grad():
            pseudo = model.make_pseudo_labels(images)
        for i, (pixels, label) in enumerate(zip(raw, pseudo.label.cpu(), strict=True)):
            sample = SegDataSample(pred_sem_seg=PixelData(data=label[None]))
            runner.visualizer.add_datasample(
                f'pseudo_label_{i}',
                to_rgb(pixels),
                sample,
                draw_gt=False,
                with_labels=False,
                step=runner.iter + 1,
            )
