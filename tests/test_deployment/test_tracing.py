"""What replaces PyTorch's and MMSegmentation's functions in a trace gives the same numbers."""

import pytest
import torch
from mmseg.models.utils import resize
from mmseg.models.utils.embed import AdaptivePadding
from torch import nn

from allspark_mmseg.deployment import traceable


def both(function) -> tuple:
    """Results of PyTorch and of a trace."""
    with torch.no_grad():
        expected = function()
    with traceable():
        return expected, function()


@pytest.mark.parametrize('batch_first', [False, True])
@pytest.mark.parametrize('bias', [False, True])
def test_attention(batch_first, bias):
    layer = nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first).eval()
    query, key = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    expected, found = both(lambda: layer(query, key, key, need_weights=False)[0])
    torch.testing.assert_close(found, expected)


def test_attention_with_a_mask_is_that_of_pytorch():
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x, mask = torch.randn(2, 4, 8), torch.rand(4, 4) < 0.5
    mask.fill_diagonal_(False)
    expected, found = both(lambda: layer(x, x, x, attn_mask=mask)[0])
    assert torch.equal(found, expected)


@pytest.mark.parametrize('size', [1, 2, 3, 6, (4, 5), (None, 2)])
@pytest.mark.parametrize('height, width', [(6, 7), (5, 4), (13, 24)])
def test_adaptive_pooling(size, height, width):
    layer, x = nn.AdaptiveAvgPool2d(size), torch.randn(2, 3, height, width)
    expected, found = both(lambda: layer(x))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('kernel, stride', [(4, 4), (3, 2), (2, 4)])
def test_padding(kernel, stride):
    layer = AdaptivePadding(kernel, stride)
    for size in ((8, 9), (13, 7), (16, 16)):
        expected, found = both(lambda size=size: layer.get_pad_shape(size))
        assert tuple(found) == tuple(expected)


def test_everything_is_restored():
    def state() -> tuple:
        functions = nn.MultiheadAttention.forward, nn.AdaptiveAvgPool2d.forward, AdaptivePadding.get_pad_shape
        settings = resize.__defaults__, torch.is_grad_enabled(), torch._C._jit_onnx_log
        return (*functions, *settings)

    before = state()
    with pytest.raises(RuntimeError), traceable():
        inside = state()
        raise RuntimeError
    assert before == state()
    assert all(old != new for old, new in zip(before, inside, strict=True))
