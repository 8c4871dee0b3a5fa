"""Networks and precision that several commands share."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config

from .measure import ROOT

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def segformer(
    options: argparse.Namespace,
    *,
    with_bottleneck: bool = True,
    checkpointing: bool = False,
    dropout: float = 0.1,
) -> dict:
    """Return the config of a SegFormer of ``configs/`` without pre-trained weights.

    Args:
        options (Namespace): ``backbone``, ``classes`` and ``crop``.
        with_bottleneck (bool): Whether the AllSpark bottleneck precedes the decoder.
        checkpointing (bool): Whether the backbone uses gradient checkpointing.
        dropout (float): Dropout in the bottleneck.

    Returns:
        dict: The config of an ``EncoderDecoder``.
    """
    segmentor = Config.fromfile(ROOT / f'configs/_base_/models/segformer_{options.backbone}.py').model
    segmentor.backbone.update(init_cfg=None, with_cp=checkpointing)
    decoder = segmentor.decode_head
    decoder.update(num_classes=options.classes, norm_cfg=dict(type='BN'))
    if with_bottleneck:
        segmentor.decode_head = dict(
            type='allspark_mmseg.AllSparkHead',
            bottleneck=dict(in_channels=decoder.in_channels[-1], crop_size=options.crop, dropout=dropout),
            decoder=decoder,
        )
    return segmentor


def autocast(device: str, dtype: str) -> torch.autocast:
    """Return the autocast context of a key of ``DTYPES``; it is disabled for ``'fp32'``."""
    if dtype == 'fp32':
        return torch.autocast(device, enabled=False)
    return torch.autocast(device, dtype=DTYPES[dtype])


def sizes(options: argparse.Namespace) -> str:
    """Format preset and sizes for the name of a case."""
    labeled, unlabeled = options.images
    return f'{options.preset} (K={options.classes}, {labeled}+{unlabeled} x {options.crop}^2)'


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TensorFloat-32 in matrix products and convolutions."""
    parts: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = allowed
    try:
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.allow_tf32 = value
