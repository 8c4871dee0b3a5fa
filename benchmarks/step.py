"""Command ``step``: one training step of AllSpark."""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from allspark_mmseg.methods.allspark import AllSpark

from .measure import Case
from .networks import autocast, segformer, sizes
from .plain_bottleneck import PlainBottleneck


def step(options: argparse.Namespace) -> Iterator[Case]:
    """Compare one training step of AllSpark: pseudo-labels, forward pass, backward pass, SGD."""
    dtype = options.dtype or 'fp32'
    passes = [(dtype, dtype, False)]
    if options.amp:
        passes.append((f'ours bf16, reference {dtype}', 'bf16', False))
    if options.checkpointing:
        passes += [(f'{name}, ours checkpointing', ours, True) for name, ours, _ in passes]
    for name, ours, checkpointing in passes:
        yield Case(
            f'step {options.backbone} {sizes(options)}, {name}',
            ours=partial(training_step, options, ours, checkpointing=checkpointing),
            reference=partial(training_step, options, dtype, plain=True),
        )


def training_step(
    options: argparse.Namespace, dtype: str, *, plain: bool = False, checkpointing: bool = False
) -> Callable[[], None]:
    """Build a network and random images.

    Args:
        options (Namespace): Sizes, device, backbone and dropout.
        dtype (str): Key of ``DTYPES``.
        plain (bool): Whether the plain bottleneck replaces the one of this project.
        checkpointing (bool): Whether the backbone uses gradient checkpointing.

    Returns:
        Callable: Runs one training step.
    """
    torch.manual_seed(0)
    model = build_model(options, plain=plain, checkpointing=checkpointing)
    (labeled, unlabeled), crop, device = options.images, options.crop, options.device
    inputs = dict(
        labeled=torch.randn(labeled, 3, crop, crop, device=device),
        weak=torch.randn(unlabeled, 3, crop, crop, device=device),
    )
    masks = torch.randint(options.classes, (labeled, 1, crop, crop), device=device)
    samples = dict(labeled=samples_of(masks))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def run() -> None:
        with autocast(device, dtype):
            losses = model.loss(inputs, samples)
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        optimizer.step()

    return run


def samples_of(masks: torch.Tensor) -> list[SegDataSample]:
    """Make the samples of masks (N, 1, H, W) int64."""
    return [SegDataSample(gt_sem_seg=PixelData(data=mask)) for mask in masks]


def build_model(options: argparse.Namespace, *, plain: bool, checkpointing: bool) -> AllSpark:
    """Build an AllSpark model in training mode that reads its memory; arguments as in ``training_step``."""
    dropout = 0.1 if options.dropout is None else options.dropout
    segmentor = segformer(options, checkpointing=checkpointing, dropout=dropout)
    model = MODELS.build(ConfigDict(type='allspark_mmseg.AllSpark', segmentor=segmentor))
    if plain:
        ours = model.decode_head.bottleneck
        model.decode_head.bottleneck = PlainBottleneck(
            ours.map_in[0].in_channels, options.classes, crop_size=options.crop, dropout=dropout
        )
        model.decode_head.bottleneck.load_state_dict(ours.state_dict())
    model.to(options.device).train()
    model.reads_memory = True
    return model
