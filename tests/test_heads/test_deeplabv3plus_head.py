"""DeepLabv3+'s head against plain PyTorch, at small widths; its real size: test_unimatch_networks."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

from allspark_mmseg.heads import DeepLabV3PlusHead

BN, GN = dict(type='BN'), dict(type='GN', num_groups=2)
SIZES = [(17, 13), (9, 7), (5, 4), (5, 4)]


def build(norm_cfg: dict | None = BN, **overrides) -> DeepLabV3PlusHead:
    arguments = dict(
        type='allspark_mmseg.DeepLabV3PlusHead',
        in_channels=[6, 12],
        channels=8,
        c1_channels=4,
        num_classes=5,
        norm_cfg=norm_cfg,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )
    return MODELS.build(arguments | overrides)


def features(batch: int = 2) -> list[torch.Tensor]:
    return [torch.randn(batch, width, *size) for width, size in zip((6, 7, 9, 12), SIZES, strict=True)]


def as_described(head: DeepLabV3PlusHead, inputs: list[torch.Tensor], align_corners: bool) -> torch.Tensor:
    """The paper's figure 2, with the head's layers but none of its forward functions."""

    def layer(module, x, **options):
        y = F.conv2d(x, module.conv.weight, module.conv.bias, **options)
        return F.relu(module.norm(y) if module.norm is not None else y)

    def to(x, size):
        return F.interpolate(x, size, mode='bilinear', align_corners=align_corners)

    low_level, deep = inputs[0], inputs[3]
    branches = [layer(head.aspp_modules[0], deep)]
    for i, dilation in ((1, 6), (2, 12), (3, 18)):
        branches.append(layer(head.aspp_modules[i], deep, padding=dilation, dilation=dilation))
    pooled = layer(head.image_pool[1], deep.mean((2, 3), keepdim=True))
    branches.append(to(pooled, deep.shape[2:]))
    pyramid = to(layer(head.bottleneck, torch.cat(branches, 1)), low_level.shape[2:])
    x = torch.cat([layer(head.c1_bottleneck, low_level), pyramid], 1)
    x = layer(head.fuse[1], layer(head.fuse[0], x, padding=1), padding=1)
    return F.conv2d(x, head.conv_seg.weight, head.conv_seg.bias)


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('norm_cfg', [BN, GN, None], ids=['BN', 'GN', 'none'])
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_forward_and_gradients(mode, norm_cfg, align_corners):
    head = getattr(build(norm_cfg, align_corners=align_corners).double(), mode)()
    inputs = [feature.double() for feature in features(3)]
    results = []
    for function in (head, lambda maps: as_described(head, maps, align_corners)):
        maps = [feature.clone().requires_grad_() for feature in inputs]
        head.zero_grad()
        out = function(maps)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in head.named_parameters()}
        results.append((out.detach(), maps[0].grad, maps[3].grad, gradients))
        assert maps[1].grad is None and maps[2].grad is None
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)
    assert results[0][0].shape == (3, 5, *SIZES[0])
    assert all(gradient.any() for name, gradient in results[0][3].items()) or norm_cfg is BN


def test_defaults_are_deeplabv3plus_at_output_stride_16():
    with torch.device('meta'):
        head = DeepLabV3PlusHead(num_classes=21)
    assert head.in_index == (0, 3)
    assert head.dropout is None
    assert [branch.dilation[0] for branch in head.aspp_modules] == [1, 6, 12, 18]
    assert [branch.kernel_size[0] for branch in head.aspp_modules] == [1, 3, 3, 3]
    assert head.bottleneck.conv.weight.shape == (256, 1280, 1, 1)
    assert head.c1_bottleneck.conv.weight.shape == (48, 256, 1, 1)
    assert head.fuse[0].conv.weight.shape == (256, 304, 3, 3)


def test_other_features_and_dilations():
    head = build(in_channels=[7, 9], in_index=[1, 2], dilations=(1, 12, 24, 36, 48)).eval()
    assert [branch.padding for branch in head.aspp_modules] == [0, 12, 24, 36, 48]
    assert head(features()).shape == (2, 5, *SIZES[1])


def test_initialization_is_pytorchs():
    """As in the release: uniform, by fan-in, the classifier too; MMCV's would be several times larger."""
    head = build(channels=64, in_channels=[32, 64], c1_channels=48, num_classes=64)
    head.init_weights()
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            assert module.weight.abs().max() <= fan_in**-0.5, name
            assert module.weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.1), name
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all() and module.bias.eq(0).all(), name


@pytest.mark.parametrize('norm_cfg', [BN, dict(type='SyncBN')], ids=lambda cfg: cfg['type'])
def test_one_image_in_training_is_one_clear_error(norm_cfg):
    message = r'batch of 1 image.*one value per image and channel.*BN.*two or more images.*SyncBN.*GN'
    with pytest.raises(ValueError, match=message):
        build(norm_cfg).train()(features(1))


def test_one_image_where_it_is_possible():
    assert build(BN).eval()(features(1)).shape == (1, 5, *SIZES[0])
    assert build(GN).train()(features(1)).shape == (1, 5, *SIZES[0])
    head = build(BN).train()
    head.image_pool.eval()
    assert head(features(1)).isfinite().all()


@pytest.mark.parametrize(
    'overrides, message',
    [
        (dict(in_channels=2048), r'in_channels is 2048, expected two elements'),
        (dict(in_channels=[6, 7, 12]), r'in_channels is \[6, 7, 12\], expected two elements'),
        (dict(in_index=3), r'in_index is 3, expected two elements'),
    ],
)
def test_wrong_options_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        build(**overrides)
