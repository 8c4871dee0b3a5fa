"""Warnings about a run that works, but probably not as intended. Each appears once, at the start."""

from mmengine.dataset import BaseDataset
from mmengine.dist import get_world_size, is_main_process
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop

from ..datasets import SemiDataset
from ..datasets.semi_dataset import leaf_datasets
from ..datasets.shared_images import image_files, shared_images
from ..utils import format_paths

_FEW_STEPS = 10


def warn_of_shared_images(runner: Runner, dataset: BaseDataset | SemiDataset) -> None:
    """Warn of validation images that are also training images, labeled or unlabeled.

    Args:
        runner (Runner): The runner, with validation.
        dataset (BaseDataset or SemiDataset): The training data set.
    """
    if not is_main_process():
        return
    validation = runner.val_loop.dataloader.dataset
    leaves = [*leaf_datasets(dataset), *leaf_datasets(validation)]
    if not all('img_path' in leaf.get_data_info(0) for leaf in leaves):
        return  # a data set of another kind, without files
    labeled, unlabeled = (
        (dataset.labeled, dataset.unlabeled) if isinstance(dataset, SemiDataset) else (dataset, [])
    )
    images = image_files([validation])
    shared = sorted(image_files([labeled]) & images)
    if shared:
        runner.logger.warning(
            f'val_dataloader: {len(shared)} validation images are also labeled training images:\n'
            f'{format_paths(shared)}\nTheir score says nothing about new images, and the best checkpoint is '
            'chosen by it. Remove them from one of the two lists.'
        )
    shared = shared_images(images, [leaf for part in unlabeled for leaf in leaf_datasets(part)])
    if shared:
        runner.logger.warning(
            f'val_dataloader: {len(shared)} validation images are also unlabeled training images:\n'
            f'{format_paths(shared)}\nThe network sees them without masks, so their score is higher than '
            'that of new images. Remove them from the unlabeled images.'
        )


def warn_of_short_epochs(runner: Runner, loop: BaseLoop) -> None:
    """Warn of an epoch of few steps: validations, checkpoints and the start of workers take most of the time.

    Args:
        runner (Runner): The runner.
        loop (BaseLoop): The train loop.
    """
    if isinstance(loop, EpochBasedTrainLoop) and len(loop.dataloader) < _FEW_STEPS:
        runner.logger.warning(
            f'train_cfg: an epoch has only {len(loop.dataloader)} steps, so the {loop.max_epochs} epochs '
            f'have {loop.max_iters} in total. Set epoch_length of the DualStreamSampler, or count '
            'iterations: '
            "train_cfg=dict(type='allspark_mmseg.PhaseTrainLoop', max_iters=..., val_interval=...)."
        )


def warn_of_batch_size(runner: Runner, loop: BaseLoop) -> None:
    """Warn of another total batch than that of the learning rate.

    Args:
        runner (Runner): The runner.
        loop (BaseLoop): The train loop.
    """
    settings = runner.cfg.get('auto_scale_lr') or {}
    expected = settings.get('base_batch_size')
    if expected is None or settings.get('enable') or loop.dataloader.batch_size is None:
        return
    processes = get_world_size()
    steps = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    found = loop.dataloader.batch_size * processes * steps
    if found != expected:
        runner.logger.warning(
            f'train_dataloader: a step has {found} images ({loop.dataloader.batch_size} per process, '
            f'{processes} process(es), {steps} accumulated), but the learning rate is for {expected} '
            '(auto_scale_lr.base_batch_size). Train with --auto-scale-lr, or set the learning rate and '
            'base_batch_size.'
        )
