"""The DPT head: sizes, defaults and errors; its values are compared in test_dpt_dinov2.py."""

import pytest
import torch
from torch import nn

from allspark_mmseg.heads import DINOv2DPTHead


def build(**overrides) -> DINOv2DPTHead:
    arguments = dict(in_channels=[10] * 4, channels=6, post_process_channels=(4, 5, 7, 8), num_classes=3)
    return DINOv2DPTHead(**arguments | overrides)


@pytest.mark.parametrize('grid', [(4, 6), (5, 9), (2, 3), (1, 1), (1, 4)])
def test_any_grid_of_tokens(grid):
    head = build()
    logits = head([torch.randn(2, 10, *grid) for _ in range(4)])
    assert logits.shape == (2, 3, 8 * grid[0], 8 * grid[1])
    logits.sum().backward()
    # so that distributed training need not look for unused parameters
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_sizes_of_the_levels():
    """As documented for crops of 518: 148, 74, 37 and 19, each resized to the one above, then doubled."""
    head, seen = build(), []
    for block in head.fusion_blocks:
        block.register_forward_hook(lambda _, args, out: seen.append((args[0].shape[2], out.shape[2])))
    head([torch.randn(1, 10, 37, 37) for _ in range(4)])
    assert seen == [(19, 37), (37, 74), (74, 148), (148, 296)]


def test_released_defaults():
    head = build()
    assert head.align_corners and head.dropout is None and head.in_index == (0, 1, 2, 3)
    assert not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in head.modules())
    before = {key: value.clone() for key, value in head.state_dict().items()}
    head.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())
    # PyTorch's default for a convolution is uniform, up to 1 / sqrt(fan-in)
    weight = build(channels=64).project.weight.detach()
    assert weight.abs().max() <= (9 * 64) ** -0.5
    assert weight.std() == pytest.approx((9 * 64 * 3) ** -0.5, rel=0.02)


def test_overrides_reach_mmsegmentation():
    head = build(in_index=[3, 2, 1, 0], align_corners=False, dropout_ratio=0.1)
    assert not head.align_corners and head.dropout.p == 0.1
    levels = [torch.randn(1, 10, 2, 3) for _ in range(4)]
    twin = build(align_corners=False)
    twin.load_state_dict(head.state_dict())
    assert torch.equal(head.eval()(levels), twin.eval()(levels[::-1]))


@pytest.mark.parametrize(
    'overrides, message',
    [
        (dict(in_channels=10), 'in_channels is 10, expected 4 numbers'),
        (dict(post_process_channels=(4, 5, 6)), r'post_process_channels is \(4, 5, 6\), expected 4 numbers'),
        (dict(in_index=(0, 1)), r'in_index is \(0, 1\), expected 4 numbers'),
    ],
)
def test_other_than_four_levels_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        build(**overrides)
