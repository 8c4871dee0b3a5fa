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
    """Replace what turns sizes into constants during tracing, and silence the tracer.

    These are the attention of PyTorch and a warning of MMSegmentation's ``resize``. The results are the same
    up to rounding.
    """
    attention, defaults = nn.MultiheadAttention.forward, resize.__defaults__
    pad_shape = AdaptivePadding.get_pad_shape
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    nn.MultiheadAttention.forward = _attend  # type: ignore[method-assign]
    AdaptivePadding.get_pad_shape = _pad_shape
    resize.__defaults__ = (*defaults[:-1], False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        nn.MultiheadAttention.forward = attention  # type: ignore[method-assign]
        AdaptivePadding.get_pad_shape = pad_shape
        resize.__defaults__ = defaults
        logger.setLevel(level)


_attention_of_pytorch = nn.MultiheadAttention.forward


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


def _pad_shape(self: AdaptivePadding, size: Sequence[int | Tensor]) -> list[int | Tensor]:
    """Compute ``AdaptivePadding.get_pad_shape`` without a conversion of sizes to numbers."""
    padding = []
    for side, kernel, stride, dilation in zip(
        size, self.kernel_size, self.stride, self.dilation, strict=True
    ):
        total = ((side + stride - 1) // stride - 1) * stride + (kernel - 1) * dilation + 1 - side
        padding.append(total.clamp(min=0) if isinstance(total, Tensor) else max(total, 0))
    return padding
