"""Checks of a method before a run: sampler, views, teacher, memory and losses."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmcv.transforms import RandomApply
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmengine.structures import BaseDataElement
from mmseg.models.losses import CrossEntropyLoss as PlainCrossEntropyLoss
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from ..datasets import DualStreamSampler, RandomGrayscale
from ..datasets.semi_dataset import leaf_datasets
from ..losses import CrossEntropyLoss
from ..methods import MemoryWarmUpHook, SemiSegmentor
from ..pseudo_label import IGNORE_INDEX, padded_pixels
from .evaluation_trial import keep_random_state
from .hooks.mean_teacher import MeanTeacherHook

_MAX_NORMALIZED, _MIN_DEVIATION = 30.0, 0.02  # 8-bit images are in [-3, 3], with a deviation of about 1


def check_sampler(loader: DataLoader) -> None:
    """Check that the sampler draws both streams, and that it fits the batch size.

    Args:
        loader (DataLoader): The data loader of the training.

    Raises:
        ValueError: It is another sampler, or has another batch size.
    """
    sampler = loader.sampler
    if not isinstance(sampler, DualStreamSampler):
        raise ValueError(
            f'train_dataloader.sampler is a {type(sampler).__name__}. Semi-supervised training needs '
            "dict(type='allspark_mmseg.DualStreamSampler', labeled=..., unlabeled=...)."
        )
    labeled, unlabeled = sampler.counts['labeled'], sampler.counts['unlabeled']
    if loader.batch_size != labeled + unlabeled:
        raise ValueError(
            f'train_dataloader.batch_size is {loader.batch_size}, but its sampler draws {labeled} labeled + '
            f'{unlabeled} unlabeled images per batch; set batch_size={labeled + unlabeled}.'
        )


@torch.no_grad()
def check_views(dataset: Dataset, model: SemiSegmentor) -> None:
    """Check the views of one image of each source: names, bands, values and sizes.

    Args:
        dataset (Dataset): The training data set.
        model (SemiSegmentor): The method.

    Raises:
        ValueError: The views do not fit the method, or a transform cannot treat the images.
    """
    # one image of each source, because each source has its own pipeline
    examples = [leaf[0] for leaf in leaf_datasets(dataset)]
    batch = model.data_preprocessor(pseudo_collate(examples), training=True)
    inputs = batch['inputs']
    sizes = {view: tuple(images.shape[2:]) for view, images in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f'train_dataloader: the views of a batch have different sizes (height, width): {sizes}. Use the '
            'same crop size in all pipelines.'
        )
    _warn_of_range(inputs)
    model.select_views(inputs, *model.needed_views)
    if model.ignore_padding:
        for view in [view for view in model.needed_views if view.endswith('weak')]:
            padded_pixels(batch['data_samples'][view])
    model.check_input_size(next(iter(inputs.values()))[:1])


def check_bands(dataset: Dataset, model: nn.Module) -> None:
    """Check that transforms and data preprocessor can treat one image of each source.

    Random numbers do not change.

    Args:
        dataset (Dataset): The training data set.
        model (nn.Module): The model without wrapper.

    Raises:
        ValueError: A transform refuses the image, or mean and std have another number of bands.
    """
    for leaf in leaf_datasets(dataset):
        # transforms that are otherwise applied at random could fail later
        with keep_random_state(), _always_applied(getattr(leaf, 'pipeline', None)):
            _check_bands(leaf, leaf[0], model.data_preprocessor)


@contextmanager
def _always_applied(pipeline: object) -> Iterator[None]:
    steps = [step for step in _nested_steps(pipeline) if isinstance(step, RandomApply | RandomGrayscale)]
    before = [step.prob for step in steps]
    try:
        for step in steps:
            step.prob = 1.0 if step.prob else 0.0
        yield
    finally:
        for step, prob in zip(steps, before, strict=True):
            step.prob = prob


def _nested_steps(step: object) -> Iterator[object]:
    yield step
    for name in ('transforms', 'steps', 'pipelines'):
        children = getattr(step, name, ())
        children = children.values() if isinstance(children, Mapping) else children
        # Compose holds a list, other transforms a list or a Compose
        for child in [children] if hasattr(children, 'transforms') else children:
            yield from _nested_steps(child)


def _check_bands(dataset: BaseDataset, example: dict, preprocessor: object) -> None:
    mean, inputs = getattr(preprocessor, 'mean', None), example['inputs']
    tensors = dict(inputs.items()) if isinstance(inputs, BaseDataElement) else {'': inputs}
    for view, tensor in tensors.items():
        # one mean for all bands, or one band for several means, is repeated
        if mean is not None and len(tensor) != len(mean) and 1 not in (len(tensor), len(mean)):
            raise ValueError(
                f'train_dataloader: {dataset.get_data_info(0).get("img_path")} has {len(tensor)} bands'
                f'{f" in the view {view}" if view else ""}, but mean and std of the data_preprocessor have '
                f'{len(mean)}. Set '
                f'data_preprocessor=dict(type="allspark_mmseg.MultiViewSegDataPreProcessor", mean=[...], '
                f'std=[...]) with {len(tensor)} numbers each and in_channels={len(tensor)} of the '
                "backbone, or change color_type of LoadImageFromFile ('color' makes three bands of 8 bits)."
            )


def _warn_of_range(inputs: dict[str, Tensor]) -> None:
    values = torch.cat([images.flatten() for images in inputs.values()]).float()
    low, high, deviation = values.min().item(), values.max().item(), values.std().item()
    if max(-low, high) > _MAX_NORMALIZED or 0 < deviation < _MIN_DEVIATION:
        print_log(
            f'train_dataloader: after normalization, the images have values from {low:.3g} to {high:.3g} '
            f'with a standard deviation of {deviation:.3g}; expected about -3 to 3 and 1. Set mean and std '
            "of the data_preprocessor, or scale the images with dict(type='allspark_mmseg.ScaleIntensity', "
            'low=..., high=...).',
            logger='current',
            level=logging.WARNING,
        )


def check_losses(model: nn.Module) -> None:
    """Check the class weights of cross-entropies, and the ignored label.

    Args:
        model (nn.Module): The model without wrapper.

    Raises:
        ValueError: MMSegmentation's loss would fail at the first step, the number of weights is wrong, or a
            head of a semi-supervised method ignores another label than 255.
    """
    parts = model.modules()
    heads: list[Any] = [
        part for part in parts if hasattr(part, 'loss_decode') and hasattr(part, 'num_classes')
    ]
    for head in heads:
        ignored = getattr(head, 'ignore_index', IGNORE_INDEX)
        if ignored != IGNORE_INDEX and isinstance(model, SemiSegmentor):
            raise ValueError(
                f'the {type(head).__name__} has ignore_index={ignored}, expected {IGNORE_INDEX}, as in the '
                'losses of unlabeled images. Remove ignore_index, and give ignored pixels the label 255.'
            )
        losses = head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]
        for loss in losses:
            if isinstance(loss, PlainCrossEntropyLoss) and not loss.use_sigmoid:
                _check_class_weight(f'loss_decode of the {type(head).__name__}', loss, head.num_classes)


def _check_class_weight(owner: str, loss: PlainCrossEntropyLoss, num_classes: int) -> None:
    weights = loss.class_weight
    if weights is None or isinstance(weights, str):
        return
    if len(weights) != num_classes:
        raise ValueError(
            f'{owner}: class_weight has {len(weights)} numbers, expected num_classes={num_classes}.'
        )
    if loss.avg_non_ignore and not isinstance(loss, CrossEntropyLoss):
        raise ValueError(
            f"{owner}: MMSegmentation's CrossEntropyLoss raises an IndexError with class_weight and "
            "avg_non_ignore=True. Use loss_decode=dict(type='allspark_mmseg.CrossEntropyLoss', "
            'class_weight=...), which has the same arguments.'
        )


def check_teacher(runner: Runner, model: SemiSegmentor) -> None:
    """Check that a teacher is updated.

    Args:
        runner (Runner): The runner.
        model (SemiSegmentor): The method.

    Raises:
        ValueError: There is no hook that updates it.
    """
    if model.teacher is not None and not any(isinstance(hook, MeanTeacherHook) for hook in runner.hooks):
        raise ValueError(
            f'the teacher of the {type(model).__name__} would never be updated, because there is no '
            'MeanTeacherHook. Add '
            "default_hooks=dict(mean_teacher=dict(type='allspark_mmseg.MeanTeacherHook'))."
        )


def check_unused_parameters(runner: Runner, model: SemiSegmentor) -> None:
    """Check that several processes can train a head of another method.

    Args:
        runner (Runner): The runner.
        model (SemiSegmentor): The method.

    Raises:
        ValueError: PyTorch would wait for gradients that the method does not compute.
    """
    heads, wrapper = model.extended_heads, runner.model
    if not heads or model.trains_method_parameters or not isinstance(wrapper, DistributedDataParallel):
        return
    if not wrapper.find_unused_parameters:
        raise ValueError(
            f'the {type(model).__name__} trains only a part of the {type(heads[0]).__name__}, so several '
            'processes need find_unused_parameters=True in the config.'
        )


def warn_of_unread_memory(runner: Runner, loop: BaseLoop) -> None:
    """Warn of a warm-up of AllSpark's memory that lasts until the end of the training.

    Args:
        runner (Runner): The runner.
        loop (BaseLoop): The train loop.
    """
    for hook in runner.hooks:
        if not isinstance(hook, MemoryWarmUpHook):
            continue
        unit = 'iterations' if hook.epochs is None else 'epochs'
        given = hook.iters if hook.epochs is None else hook.epochs
        length = loop.max_iters if hook.epochs is None else loop.max_epochs
        if given >= length:
            runner.logger.warning(
                f'MemoryWarmUpHook: the warm-up lasts {given} {unit}, and the training {length}. So labeled '
                'images never attend to the memory. Shorten the warm-up, or train longer.'
            )
