"""The networks of CSS against vectors of its release."""

import json
import re

import pytest
import torch

from ..helpers.golden import load_rule, strip_prefix
from ..helpers.tiny_models import build_model


def renamed_key(key: str, deep_stem: bool) -> str:
    """The release's key of a parameter or buffer -> that of an EncoderDecoder with ``RepresentationHead``."""
    renamed = [
        (r'resnet_conv1\.(?=\d)', 'backbone.stem.'),
        (r'resnet_bn1', 'backbone.stem.7' if deep_stem else 'backbone.bn1'),
        (r'resnet_', 'backbone.'),
        (r'ASPP\.convs\.4\.1', 'decode_head.image_pool.1.conv'),
        (r'ASPP\.convs\.4\.2', 'decode_head.image_pool.1.bn'),
        (r'ASPP\.convs\.(\d)\.0', r'decode_head.aspp_modules.\1.conv'),
        (r'ASPP\.convs\.(\d)\.1', r'decode_head.aspp_modules.\1.bn'),
        (r'ASPP\.project\.0', 'decode_head.bottleneck.conv'),
        (r'ASPP\.project\.1', 'decode_head.bottleneck.bn'),
        (r'project\.0', 'decode_head.c1_bottleneck.conv'),
        (r'project\.1', 'decode_head.c1_bottleneck.bn'),
        (r'classifier\.0', 'decode_head.fuse.0.conv'),
        (r'classifier\.1', 'decode_head.fuse.0.bn'),
        (r'classifier\.3', 'decode_head.conv_seg'),
        (r'representation\.0', 'decode_head.representation.0.conv'),
        (r'representation\.1', 'decode_head.representation.0.bn'),
        (r'representation\.3', 'decode_head.representation.1'),
    ]
    for pattern, replacement in renamed:
        if re.match(pattern, key):
            return re.sub(f'^{pattern}', replacement, key)
    raise KeyError(key)


@pytest.mark.parametrize('name', ['plain', 'deep_stem'])
@torch.no_grad()
def test_networks_match_the_release(golden, name):
    vectors = strip_prefix(golden('css'), f'network.{name}.')
    rule = load_rule()
    deep_stem = name == 'deep_stem'
    backbone = dict(type='ResNet', depth=101, contract_dilation=True)
    if deep_stem:
        backbone = dict(type='ResNetV1c', depth=101, stem_channels=128)
    shapes = (json.loads(f'[{shape.decode()}]') for shape in vectors['shapes'])
    spec = {key.decode(): shape for key, shape in zip(vectors['keys'], shapes, strict=True)}
    segmentor = dict(
        type='EncoderDecoder',
        backbone=backbone | dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        decode_head=dict(
            type='allspark_mmseg.RepresentationHead',
            num_classes=vectors['logits_mean'].shape[1],
            norm_cfg=dict(type='BN'),
            align_corners=True,
        ),
        test_cfg=dict(mode='whole'),
    )
    with torch.device('meta'):
        model = build_model(segmentor).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == vectors['parameters']
    model.backbone.maxpool.ceil_mode = deep_stem  # as released; MMSegmentation's rounds down
    state = {
        renamed_key(key, deep_stem): torch.from_numpy(value) for key, value in rule.rule_state(spec).items()
    }
    model.load_state_dict(state, strict=True, assign=True)
    size = tuple(vectors['image_size'].tolist())
    features = model.extract_feat(torch.from_numpy(rule.rule_tensor('image', (1, 3, *size))))
    logits, representations = model.decode_head.forward_with_representations(features)
    assert torch.equal(logits, model.decode_head(features))
    stages = [vectors['stages'][i].decode() for i in range(3)]
    for stage, shape, (mean, std) in zip(
        stages, vectors['stage_shapes'].tolist(), vectors['stage_mean_std'].tolist(), strict=False
    ):
        feature = features[int(stage[-1]) - 1]
        assert list(feature.shape) == shape, stage
        assert feature.mean().item() == pytest.approx(mean, rel=1e-4), stage
        assert feature.std().item() == pytest.approx(std, rel=1e-4), stage

    def near(actual: torch.Tensor, expected: torch.Tensor) -> None:
        torch.testing.assert_close(actual, expected, rtol=0, atol=5e-6)

    near(logits[:, :, ::3, ::3], vectors['logits_every_3rd'])
    near(logits.mean((2, 3)), vectors['logits_mean'])
    near(logits.std((2, 3)), vectors['logits_std'])
    near(representations[:, :16, ::4, ::4], vectors['rep_first_16_every_4th'])
    near(representations.mean((2, 3)), vectors['rep_mean'])
    near(representations.std((2, 3)), vectors['rep_std'])
    assert torch.equal(logits.argmax(1), vectors['argmax'].long())
