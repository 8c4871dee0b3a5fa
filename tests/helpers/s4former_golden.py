"""The recorded network of S4Former's golden vectors."""

import json

import torch

from .golden import strip_prefix
from .tiny_models import build_model

FLOAT64 = 1e-10  # of the largest entry
MMSEG = 1e-8  # MMSegmentation's cross-entropy has an epsilon in its denominator


def doubled(vectors: dict) -> dict:
    """The vectors in float64 and int64, as their page asks."""
    return {
        key: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for key, value in vectors.items()
    }


def network(vectors: dict, **arguments) -> torch.nn.Module:
    """The recorded student and teacher, with sizes from the shapes of their weights."""
    shapes = dict(zip(vectors['net.keys'].tolist(), map(json.loads, vectors['net.shapes']), strict=True))
    state, start = {}, 0
    for key, shape in shapes.items():
        size = torch.Size(shape).numel()
        state[key] = vectors['net.values'][start : start + size].reshape(shape).double()
        start += size
    assert start == len(vectors['net.values'])
    dims, _, patch, _ = shapes['backbone.patch_embed.projection.weight']
    classes, channels, *_ = shapes['decode_head.conv_seg.weight']
    positions = shapes['backbone.pos_embed'][1] - 1
    layers = 1 + max(int(key.split('.')[2]) for key in shapes if key.startswith('backbone.layers.'))
    aux = 1 + max(int(key.split('.')[1]) for key in shapes if key.startswith('auxiliary_head.'))
    weights = dict(zip(vectors['config.names'].tolist(), vectors['config.ours'].tolist(), strict=True))
    auxiliary = dict(type='CrossEntropyLoss', loss_weight=weights['aux_weight'])
    head = dict(
        type='SETRUPHead',
        in_channels=dims,
        channels=channels,
        num_classes=classes,
        dropout_ratio=0,
        norm_layer=dict(type='LN', eps=1e-6),
        norm_cfg=dict(type='BN'),
        num_convs=4,
        up_scale=2,
        kernel_size=3,
    )
    model = build_model(
        dict(
            type='allspark_mmseg.S4Former',
            segmentor=dict(
                type='EncoderDecoder',
                backbone=dict(
                    type='allspark_mmseg.VisionTransformer',
                    img_size=(int(positions**0.5) * patch,) * 2,
                    patch_size=patch,
                    patch_bias=True,
                    embed_dims=dims,
                    num_layers=layers,
                    num_heads=len(vectors['pasa.bias']) // len(vectors['pasa.image']),
                    mlp_ratio=shapes['backbone.layers.0.ffn.layers.0.0.weight'][0] // dims,
                    out_indices=tuple(range(layers)),
                    norm_cfg=dict(type='LN', eps=1e-6),
                    interpolate_mode='bilinear',
                ),
                decode_head=dict(head, in_index=layers - 1),
                auxiliary_head=[
                    dict(head, in_index=i, num_convs=2, up_scale=4, loss_decode=auxiliary) for i in range(aux)
                ],
                test_cfg=dict(mode='whole'),
            ),
            **arguments,
        )
    ).double()
    student = {key: value for key, value in state.items() if not key.startswith('decode_head_ema.')}
    model.student.load_state_dict(student, strict=True)
    model.teacher.module.load_state_dict(student)
    model.teacher.module.decode_head.load_state_dict(strip_prefix(state, 'decode_head_ema.'))
    return model.train()
