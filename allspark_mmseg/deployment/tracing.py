"""Tracing of a network with variable sizes."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.utils import resize
from mmseg.models.utils.embed import AdaptivePadding
from torch import Tensor, nn


@contextmanager
def traceable() -> Iterator[None]:
    """Replace operations that make sizes constant or cannot be exported, and silence the tracer.

    These are PyTorch's attention and adaptive pooling, and the padding and a warning of MMSegmentation. The
    results are the same up to rounding.
    """
    replaced: list[tuple[Any, str, Any]] = [
        (nn.MultiheadAttention, 'forward', _attend),
        (nn.AdaptiveAvgPool2d, 'forward', _pool),
        (AdaptivePadding, 'get_pad_shape', _pad_shape),
        (resize, '__defaults__', (*resize.__defaults__[:-1], False)),
    ]
    if hasattr(torch._C, '_jit_onnx_log'):  # a failed export prints the whole graph with it
        replaced.append((torch._C, '_jit_onnx_log', lambda *_: None))
    originals = [getattr(owner, name) for owner, name, _ in replaced]
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for (owner, name, _), original in zip(replaced, originals, strict=True):
            setattr(owner, name, original)
        logger.setLevel(level)


_attention_of_pytorch = nn.MultiheadAttention.forward
_pooling_of_pytorch = nn.AdaptiveAvgPool2d.forward


def _attend(
    self: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Compute ``nn.MultiheadAttention`` of (N, L, C) or (L, N, C) without attention weights and masks."""
    masks = (*args, options.get('key_padding_mask'), options.get('attn_mask'))
    if self.in_proj_weight is None or self.bias_k is not None or any(isinstance(m, Tensor) for m in masks):
        return _attention_of_pytorch(self, query, key, value, *args, **options)
    inputs = (query, key, value) if self.batch_first else [x.transpose(0, 1) for x in (query, key, value)]
    weights = self.in_proj_weight.chunk(3)
    biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(x, weight, bias).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        for x, weight, bias in zip(inputs, weights, biases, strict=True)
    )
    out = self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    return (out if self.batch_first else out.transpose(0, 1)), None


def _pool(self: nn.AdaptiveAvgPool2d, x: Tensor) -> Tensor:
    """Compute ``nn.AdaptiveAvgPool2d``, (N, C, H, W) -> (N, C, h, w), as two products of matrices."""
    given = self.output_size
    sizes = [given, given] if isinstance(given, int) else [size for size in given or () if size is not None]
    if len(sizes) < 2 or sizes == [1, 1]:
        return _pooling_of_pytorch(self, x)
    rows, columns = (_averages(side, count).to(x) for side, count in zip(x.shape[2:], sizes, strict=True))
    return rows @ x @ columns.T


def _averages(side: int, count: int) -> Tensor:
    """Return the matrix (count, side) that averages the ranges floor(i s / c) to ceil((i + 1) s / c)."""
    index, position = torch.arange(count)[:, None], torch.arange(side)[None]
    start, stop = index * side // count, ((index + 1) * side + count - 1) // count
    inside = ((position >= start) & (position < stop)).float()
    return inside / inside.sum(dim=1, keepdim=True)


def _pad_shape(self: AdaptivePadding, size: Sequence[int | Tensor]) -> list[int | Tensor]:
    """Compute ``AdaptivePadding.get_pad_shape`` without a conversion of sizes to numbers."""
    padding = []
    for side, kernel, stride, dilation in zip(
        size, self.kernel_size, self.stride, self.dilation, strict=True
    ):
        total = ((side + stride - 1) // stride - 1) * stride + (kernel - 1) * dilation + 1 - side
        padding.append(total.clamp(min=0) if isinstance(total, Tensor) else max(total, 0))
    return padding
