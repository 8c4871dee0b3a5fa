"""Hook that averages batch-norm statistics over processes."""

from mmengine.dist import all_reduce_params
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...registry import HOOKS


@HOOKS.register_module()
class SyncBNStatsHook(Hook):
    """Average the running statistics of batch norms over the processes after every iteration.

    Without this hook, each process validates with its own statistics, and the scores differ from those of the
    checkpoint, which has the statistics of rank 0. MMEngine's ``SyncBuffersHook`` averages all buffers,
    including the memory of AllSpark and its write pointers, and only once per epoch. The hook skips SyncBN,
    whose statistics are the same on all processes.
    """

    priority = 'ABOVE_NORMAL'

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Average the statistics. With one process, the hook does nothing.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The collated batch.
            outputs (dict, optional): Outputs of the training step.
        """
        statistics = [
            buffer
            for module in runner.model.modules()
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        if statistics:
            all_reduce_params(statistics, op='mean')
