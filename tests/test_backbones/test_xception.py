"""Xception-65: features, skips, initialization, loading; its values are in test_unimatch_networks."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

from allspark_mmseg.backbones import Xception65
from allspark_mmseg.backbones.xception import XceptionBlock
from allspark_mmseg.converters import convert_unimatch_imagenet
from tests.helpers.reference_deeplab import Xception as ReferenceXception
from tests.helpers.reference_deeplab import reference_state

BN = dict(type='BN')


@pytest.fixture(scope='module')
def backbone() -> Xception65:
    torch.manual_seed(0)
    return MODELS.build(dict(type='allspark_mmseg.Xception65')).eval()


def official_state() -> dict:
    prefix = 'backbone.'
    state = reference_state('xception', 2)
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


@pytest.mark.parametrize('size', [(64, 64), (97, 65), (513, 321), (33, 1)])
def test_sides_are_divided_by_the_stride_and_rounded_up(size):
    with torch.device('meta'):
        features = Xception65()(torch.empty(2, 3, *size))
    expected = [
        (2, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        for channels, stride in zip(Xception65.out_channels, (4, 8, 16, 16), strict=True)
    ]
    assert [tuple(feature.shape) for feature in features] == expected


@torch.no_grad()
def test_features_are_those_before_the_next_relu(backbone):
    image = torch.randn(1, 3, 65, 49)
    low_level, stride_8, middle, deep = backbone(image)
    for feature in (low_level, stride_8, middle):
        assert feature.min() < 0 < feature.max()
    assert deep.min() == 0 < deep.max()
    plain = ReferenceXception().eval()
    for official, ours in zip(plain.state_dict().values(), converted_order(backbone), strict=True):
        official.copy_(ours)
    c1, c4 = plain(image)
    torch.testing.assert_close(low_level, c1, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(deep, c4, rtol=1e-5, atol=1e-6)


def converted_order(backbone: Xception65) -> list[torch.Tensor]:
    """The backbone's tensors in the order of the official keys."""
    state = backbone.state_dict()
    return [state[key] for key in convert_unimatch_imagenet(official_state())[0]]


@pytest.mark.parametrize('in_channels, stride, convolved', [(8, 1, False), (6, 1, True), (8, 2, True)])
def test_skip(in_channels, stride, convolved):
    """An unconvolved skip is the input's positive part; a convolved one takes the input as it is."""
    block = XceptionBlock(in_channels, (8, 8, 8), stride, BN).eval()
    assert (block.skip is not None) == convolved
    nn.init.zeros_(block.convs[2].pointwise_conv.bn.weight)  # the residual branch gives nothing
    x = torch.randn(2, in_channels, 7, 5)
    before = x.clone()
    y, inner = block(x)
    assert torch.equal(x, before)
    assert torch.equal(y, block.skip(x) if convolved else F.relu(x))
    assert inner.shape == (2, 8, 7, 5) and inner.min() < 0


def test_every_parameter_gets_a_gradient(backbone):
    backbone.train().zero_grad()
    sum(feature.pow(2).mean() for feature in backbone(torch.randn(2, 3, 33, 33))).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_initialization_is_normal_by_fan_out():
    backbone = Xception65()
    backbone.init_weights()
    checked = 0
    for name, parameter in backbone.named_parameters():
        if parameter.ndim == 1:
            assert parameter.eq(1 if name.endswith('weight') else 0).all(), name
        elif parameter.numel() >= 2000:  # smaller ones deviate by chance
            out, _, height, width = parameter.shape
            assert parameter.std().item() == pytest.approx((2 / (height * width * out)) ** 0.5, rel=0.1), name
            checked += 1
    assert checked > 100


def test_norms_are_the_releases_by_default(backbone):
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(3e-4, 1e-5)}


@pytest.mark.parametrize('norm_cfg, kind', [(dict(type='GN', num_groups=4), nn.GroupNorm), (None, None)])
def test_other_norms(norm_cfg, kind):
    with torch.device('meta'):
        backbone = Xception65(norm_cfg=norm_cfg)
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert all(isinstance(norm, kind) for norm in norms) if kind else not norms
    assert all((m.bias is None) == bool(kind) for m in backbone.modules() if isinstance(m, nn.Conv2d))


def test_weights_with_the_releases_keys_are_refused(tmp_path):
    """MMEngine would load none of them, warn, and train from random values."""
    torch.save(official_state(), tmp_path / 'xception.pth')
    backbone = Xception65(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'xception.pth')))
    with pytest.raises(ValueError, match=r'found block1\.sepconv1\.depthwise\.weight.*unimatch2mmseg\.py'):
        backbone.init_weights()
