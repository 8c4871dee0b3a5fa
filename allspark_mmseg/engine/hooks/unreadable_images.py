"""Hook for images that cannot be read while the training runs."""

import logging

from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.logging import print_log
from mmengine.runner import Runner

from ...datasets.semi_dataset import leaf_datasets
from ...datasets.unreadable import CheckedPipeline, UnreadableImageError
from ...registry import HOOKS
from ...utils import require


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Name images and masks that vanish or break during the training, and skip a share of them.

    The check before the training reads all headers, but files can vanish later, and damage inside a file
    shows only when its pixels are decoded. Without this hook, the error is the traceback of a worker. OpenCV
    reads damaged JPEG files with wrong pixels, without an error.

    A skipped image is replaced by another one of its data set, which is a function of the seed and of the
    position, like all that is random. Images of a validation are never skipped, because its score would
    change.

    Args:
        max_share (float): Largest share of the training images that may be unreadable, in [0, 1). Each
            process counts the images that it draws. With 0, the first one ends the run.

    Raises:
        ValueError: ``max_share`` is not in [0, 1).
    """

    def __init__(self, max_share: float = 0.0) -> None:
        require('UnreadableImagesHook', 'max_share', max_share, 0 <= max_share < 1, 'a share in [0, 1)')
        self.max_share = max_share
        self.unreadable: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Watch the pipelines of the training and the validation. The workers start later.

        Args:
            runner (Runner): The runner.
        """
        loops = {'train_dataloader': runner.train_loop, 'val_dataloader': runner.val_loop}
        for key, loop in loops.items():
            for leaf in leaf_datasets(loop.dataloader.dataset) if loop is not None else ():
                pipeline = getattr(leaf, 'pipeline', None)
                if pipeline is not None and not isinstance(pipeline, CheckedPipeline):
                    skip = self.max_share > 0 and key == 'train_dataloader'
                    leaf.pipeline = CheckedPipeline(pipeline, key, skip)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None) -> None:
        """Count the images that were skipped.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The collated batch.

        Raises:
            UnreadableImageError: More than ``max_share`` of the training images are unreadable.
        """
        samples = data_batch.get('data_samples', ()) if isinstance(data_batch, dict) else ()
        for sample in samples:
            for path, reason in getattr(sample, 'metainfo', {}).get('unreadable', ()):
                if path not in self.unreadable:
                    self.unreadable.add(path)
                    self._count(runner, path, reason)

    def _count(self, runner: Runner, path: str, reason: str) -> None:
        found, total = len(self.unreadable), len(runner.train_loop.dataloader.dataset)
        counted = f'{found} of {total} training images'
        if found > self.max_share * total:
            raise UnreadableImageError(
                f'train_dataloader: {counted} cannot be read, more than the share {self.max_share:g} of '
                f'UnreadableImagesHook; the last one is {path}, which {reason}. Restore the files; the same '
                'command with --resume continues.'
            )
        # ERROR, which is also shown by the processes other than the first
        print_log(f'{path} {reason}. It is skipped: {counted} are now.', 'current', logging.ERROR)
