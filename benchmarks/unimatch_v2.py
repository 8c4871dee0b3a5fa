"""A training step of UniMatch V2 for the command ``all``."""

import argparse
from collections.abc import Callable

import torch
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS

from .measure import ROOT
from .networks import autocast
from .step import samples_of

_TINY = dict(embed_dims=12, depth=4, num_heads=2, out_indices=(0, 1, 2, 3))


def unimatch_v2_step(
    options: argparse.Namespace, dtype: str, size: str, *, tiny: bool = False
) -> Callable[[], None]:
    """Build UniMatch V2 with a network of ``configs/`` without pre-trained weights, and random images.

    Args:
        options (Namespace): ``classes``, ``crop``, ``images`` and ``device``.
        dtype (str): Key of ``DTYPES``.
        size (str): Size of DINOv2, ``'s'`` or ``'b'``.
        tiny (bool): Whether the network is tiny.

    Returns:
        Callable: Runs one training step, with the update of the teacher.
    """
    torch.manual_seed(0)
    segmentor = Config.fromfile(ROOT / f'configs/_base_/models/dpt_dinov2-{size}14.py').model
    segmentor.backbone.init_cfg = None
    segmentor.decode_head.num_classes = options.classes
    if tiny:
        segmentor.backbone.arch = _TINY
        segmentor.decode_head.update(in_channels=[12] * 4, channels=8, post_process_channels=[8] * 4)
    model = MODELS.build(ConfigDict(type='allspark_mmseg.UniMatchV2', segmentor=segmentor))
    model.to(options.device).train()
    (labeled, unlabeled), crop, device = options.images, options.crop, options.device
    counts = dict(labeled=labeled, weak=unlabeled, strong_1=unlabeled, strong_2=unlabeled)
    inputs = {view: torch.randn(count, 3, crop, crop, device=device) for view, count in counts.items()}
    masks = torch.randint(options.classes, (labeled, 1, crop, crop), device=device)
    no_padding = torch.zeros(unlabeled, 1, crop, crop, dtype=torch.int64, device=device)
    samples = dict(labeled=samples_of(masks), weak=samples_of(no_padding))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-6, weight_decay=0.01)

    def run() -> None:
        with autocast(device, dtype):
            losses = model.loss(inputs, samples)
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        optimizer.step()
        model.teacher.update_parameters(model.student)

    return run
