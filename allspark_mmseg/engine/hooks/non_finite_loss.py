"""Hook that stops a training whose loss is no number."""

from typing import Any

import torch
from mmengine.dist import all_gather_object, is_distributed
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner

from ...registry import HOOKS
from ...utils import join_first, require
from .safe_checkpoint import last_good


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """End the run after several iterations in a row whose loss is NaN or infinite.

    :class:`SafeCheckpointHook` writes no checkpoint with weights that are not finite, so the last good one
    stays. Several processes compare their counts every ``patience`` iterations, and end together.

    Args:
        patience (int): Iterations in a row. Mixed precision with float16 recovers from a few.

    Raises:
        ValueError: ``patience`` is below 1.
    """

    def __init__(self, patience: int = 10) -> None:
        require('NonFiniteLossHook', 'patience', patience, patience >= 1, '1 or more')
        self.patience = patience
        self.count = 0
        self.names: list[str] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Count, and end the run.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The collated batch.
            outputs (dict, optional): Losses of the training step; scalars.

        Raises:
            FloatingPointError: The loss was NaN or infinite in ``patience`` iterations in a row.
        """
        self.names = _non_finite_losses(outputs or {})
        self.count = self.count + 1 if self.names else 0
        if is_distributed():
            if (runner.iter + 1) % self.patience:
                return
            shares = all_gather_object((self.count, self.names))
            self.count = max(count for count, _ in shares)
            self.names = sorted({name for _, names in shares for name in names})
        if self.count >= self.patience:
            raise FloatingPointError(
                f'{join_first(self.names, limit=3)} was NaN or infinite in {self.count} iterations in a row, '
                f'until iteration {runner.iter + 1}. The last good checkpoint is {last_good(runner)}. '
                '--resume alone would repeat the same steps: start again with a lower learning rate, with '
                'optim_wrapper=dict(clip_grad=dict(max_norm=1)), or with --amp bf16 instead of fp16.'
            )


def _non_finite_losses(outputs: dict[str, Any]) -> list[str]:
    total = outputs.get('loss')
    if total is not None and torch.isfinite(torch.as_tensor(total)).all():
        return []  # one transfer from the device in most iterations
    names = [
        name
        for name, value in outputs.items()
        if 'loss' in name and not torch.isfinite(torch.as_tensor(value)).all()
    ]
    return [name for name in names if name != 'loss'] or names
