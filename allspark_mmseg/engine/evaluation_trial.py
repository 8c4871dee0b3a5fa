"""A trial of the evaluation before the first iteration."""

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from torch import nn

from ..datasets.image_headers import ImageHeader
from ..methods import SemiSegmentor
from ..methods.student import eval_mode

_SKIP = 'StartupCheckHook(evaluation=False) skips this trial.'


def try_evaluation(runner: Runner, model: BaseModel, headers: Mapping[str, ImageHeader]) -> None:
    """Predict the smallest and the largest validation image, so that a failure comes before the training.

    If the data loader makes batches of several images, both are in one batch. Random numbers and the model do
    not change.

    Args:
        runner (Runner): The runner, with validation.
        model (BaseModel): The model without wrapper.
        headers (Mapping[str, ImageHeader]): Headers of the validation images by path. Without them, the first
            image is tried.

    Raises:
        ValueError: The windows do not cover an image, or the prediction fails.
    """
    start = time.monotonic()
    check_windows(model)
    loader = runner.val_loop.dataloader
    indices = find_extremes(loader.dataset, headers)
    batches = [indices] if (loader.batch_size or 1) > 1 else [[index] for index in indices]
    with keep_random_state(), eval_mode(model), torch.no_grad():
        for batch in batches:
            _predict(runner, model, batch, _describe(loader.dataset, batch))
    runner.logger.info(
        f'val_dataloader: predicted {_describe(loader.dataset, indices)} as a trial, in '
        f'{time.monotonic() - start:.1f} s.'
    )


def check_windows(model: nn.Module) -> None:
    """Check that sliding windows cover an image.

    Args:
        model (nn.Module): A segmentor, or a method that has one.

    Raises:
        ValueError: The stride is larger than the window.
    """
    segmentor = model.predictor if isinstance(model, SemiSegmentor) else model
    settings = getattr(segmentor, 'test_cfg', None) or {}
    if settings.get('mode') != 'slide':
        return
    size, stride = settings.get('crop_size'), settings.get('stride')
    if size and stride and any(step > length for step, length in zip(stride, size, strict=True)):
        raise ValueError(
            f'model.test_cfg: the stride {tuple(stride)} is larger than the window crop_size={tuple(size)}, '
            'so the windows do not cover an image. Set a stride of at most crop_size, for example two thirds '
            'of it.'
        )


def find_extremes(dataset: BaseDataset, headers: Mapping[str, ImageHeader]) -> list[int]:
    """Return the indices of the image with the shortest side and of the image with the most pixels."""
    sizes = {}
    for index in range(len(dataset) if headers else 0):
        header = headers.get(dataset.get_data_info(index).get('img_path', ''))
        if header is not None:
            sizes[index] = header.width, header.height
    if not sizes:
        return [0]
    smallest = min(sizes, key=lambda index: (min(sizes[index]), max(sizes[index])))
    largest = max(sizes, key=lambda index: sizes[index][0] * sizes[index][1])
    return list(dict.fromkeys([smallest, largest]))


def _describe(dataset: BaseDataset, indices: list[int]) -> str:
    return ' and '.join(str(dataset.get_data_info(index).get('img_path', index)) for index in indices)


def _predict(runner: Runner, model: BaseModel, indices: list[int], names: str) -> None:
    loader = runner.val_loop.dataloader
    sizes = ''
    try:
        batch = loader.collate_fn([loader.dataset[index] for index in indices])
        shapes = {tuple(item.shape[-2:]) for item in batch['inputs']}
        sizes = ' and '.join(f'{height} x {width}' for height, width in sorted(shapes))
        if len(shapes) > 1:
            raise RuntimeError('images of one batch differ in size')
        with autocast(enabled=getattr(runner.val_loop, 'fp16', False)):
            samples = model.val_step(batch)
        for sample in samples:
            if 'gt_sem_seg' in sample and sample.gt_sem_seg.shape != sample.pred_sem_seg.shape:
                raise RuntimeError(
                    f'the prediction has {tuple(sample.pred_sem_seg.shape)} pixels, the mask '
                    f'{tuple(sample.gt_sem_seg.shape)}'
                )
    except Exception as error:  # of the pipeline, the network, or the device
        reason = (str(error).strip() or 'no message').splitlines()[0]
        raise ValueError(
            f'val_dataloader: {names} cannot be predicted (height x width after the pipeline: '
            f'{sizes or "unknown"}): {type(error).__name__}: {reason}. {_advise(reason)} {_SKIP}'
        ) from error


def _advise(reason: str) -> str:
    text = reason.lower()
    if 'differ in size' in text:
        return 'Set val_dataloader.batch_size=1 (and that of test_dataloader).'
    if 'out of memory' in text or "can't allocate memory" in text:
        return "Predict by windows: model.test_cfg=dict(mode='slide', crop_size=(h, w), stride=(h, w))."
    if 'channels' in text:
        return (
            'Set in_channels of the backbone to the number of bands of the images (config.num_channels '
            'of a TransformersBackbone).'
        )
    if 'the mask' in text:
        return 'Put LoadAnnotations after the steps of the test pipeline that change the size.'
    return (
        'If the image is too small for the network, enlarge small images in the test pipeline '
        "(dict(type='Resize', "
        'scale=..., keep_ratio=True)) or remove them; otherwise correct the test pipeline or model.test_cfg.'
    )


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Restore the global random numbers of Python, NumPy and PyTorch after a block."""
    python, numpy = random.getstate(), np.random.get_state()
    # of all devices, fork_rng would warn that it initializes each
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
