"""One set of batch-norm statistics for all processes."""

from mmengine.dist import all_reduce_params
from mmengine.hooks import Hook
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...registry import HOOKS


@HOOKS.register_module()
class SyncBNStatsHook(Hook):
    """Average the running statistics of plain batch norms over the processes, after every iteration.

    Otherwise each process validates with statistics of its own, and the checkpoint, which is the first
    one's, scores differently. MMEngine's ``SyncBuffersHook`` averages all buffers, AllSpark's memory and
    the write pointers too, and only once an epoch. SyncBN needs none of this and is passed over.
    """

    priority = 'ABOVE_NORMAL'

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Average; does nothing in one process."""
        statistics = [
            buffer
            for module in runner.model.modules()
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        if statistics:
            all_reduce_params(statistics, op='mean')
