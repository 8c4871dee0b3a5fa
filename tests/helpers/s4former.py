"""A tiny vision transformer and a naive negative class ranking, for tests of S4Former."""

import torch

from .tiny_models import CLASSES, tiny_segmentor

CROP = (64, 64)


def tiny_vit(**overrides) -> dict:
    """Config of a plain vision transformer of two layers with a SETR-PUP head, which has a batch norm."""
    backbone = dict(
        type='allspark_mmseg.VisionTransformer',
        img_size=64,
        patch_size=8,
        patch_bias=True,
        embed_dims=16,
        num_layers=2,
        num_heads=2,
        mlp_ratio=2,
        out_indices=(0, 1),
        interpolate_mode='bilinear',
    )
    head = dict(
        type='SETRUPHead',
        in_channels=16,
        in_index=1,
        channels=8,
        num_classes=CLASSES,
        num_convs=1,
        up_scale=8,
        kernel_size=3,
        dropout_ratio=0,
        norm_cfg=dict(type='BN'),
        norm_layer=dict(type='LN', eps=1e-6),
        init_cfg=None,
    )
    return tiny_segmentor(backbone=backbone, decode_head=head) | overrides


def naive_ranking(student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The formula, pixel by pixel, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for image, row, column in (target != 255).nonzero().tolist():
        own = int(target[image, row, column])
        others = [c for c in range(student.shape[1]) if c != own]
        s, t = (each.double()[image, others, row, column].softmax(0) for each in (student, teacher))
        total += (s - t + 1e-6).square().sum().sqrt()
    return (total / target.numel()).to(student.dtype)
