"""The head with representations; its parts are DeepLabv3+'s, and its real size is in test_css_golden."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

from allspark_mmseg.heads import DeepLabV3PlusHead, RepresentationHead

BN, GN = dict(type='BN'), dict(type='GN', num_groups=2)


def build(type_: str = 'RepresentationHead', norm_cfg: dict = BN, **overrides) -> DeepLabV3PlusHead:
    arguments = dict(
        type=f'allspark_mmseg.{type_}',
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
    sizes = [(6, 17, 13), (7, 9, 7), (9, 9, 7), (12, 9, 7)]
    return [torch.randn(batch, *size) for size in sizes]


@pytest.mark.parametrize('norm_cfg', [BN, GN], ids=['BN', 'GN'])
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_both_branches_see_what_the_decoder_sees(mode, norm_cfg):
    head = getattr(build(norm_cfg=norm_cfg, representation_channels=7), mode)()
    entered = []
    head.fuse.register_forward_hook(lambda module, given, answer: entered.append((given[0], answer)))
    maps = features()
    logits, representations = head.forward_with_representations(maps)
    (x, fused) = entered[0]
    assert x.shape == (2, 12, 17, 13)
    conv, norm, last = head.representation[0].conv, head.representation[0].norm, head.representation[1]
    assert conv.bias is None and last.bias is not None
    hidden = F.relu(norm(F.conv2d(x, conv.weight, padding=1)))
    torch.testing.assert_close(representations, F.conv2d(hidden, last.weight, last.bias))
    torch.testing.assert_close(logits, F.conv2d(fused, head.conv_seg.weight, head.conv_seg.bias))
    assert (logits.shape, representations.shape) == ((2, 5, 17, 13), (2, 7, 17, 13))
    if mode == 'eval':
        assert torch.equal(head(maps), logits)


def test_the_classifier_is_that_of_a_plain_head_with_one_convolution():
    head = build(dilations=(1, 6, 12)).eval()
    plain = build('DeepLabV3PlusHead', dilations=(1, 6, 12), num_convs=1).eval()
    missing, unexpected = plain.load_state_dict(head.state_dict(), strict=False)
    assert not missing and all(name.startswith('representation.') for name in unexpected)
    maps = features()
    assert torch.equal(plain(maps), head(maps))
    assert len(plain.fuse) == 1 and len(build('DeepLabV3PlusHead').fuse) == 2


def test_as_a_plain_head_its_second_branch_has_no_gradient():
    head = build().train()
    head(features()).sum().backward()
    without = {name for name, value in head.named_parameters() if value.grad is None}
    assert without == {name for name, _ in head.named_parameters() if name.startswith('representation.')}
    _, representations = head.forward_with_representations(features())
    representations.square().sum().backward()
    assert all(value.grad is not None for value in head.representation.parameters())


def test_defaults_are_those_of_css():
    with torch.device('meta'):
        head = RepresentationHead(num_classes=21)
    assert [branch.dilation[0] for branch in head.aspp_modules] == [1, 12, 24, 36]
    assert head.in_index == (0, 3) and head.dropout is None
    assert head.fuse[0].conv.weight.shape == (256, 304, 3, 3) and len(head.fuse) == 1
    assert head.representation[0].conv.weight.shape == (256, 304, 3, 3)
    assert head.representation[1].weight.shape == (256, 256, 1, 1)


def test_initialization_is_pytorchs():
    head = build(channels=64, in_channels=[32, 64], c1_channels=48, representation_channels=64)
    head.init_weights()
    for name, module in head.representation.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.1), name
