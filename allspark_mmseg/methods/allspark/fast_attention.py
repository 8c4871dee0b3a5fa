"""Fast form of ``channel_attention`` that does not build large score maps.

A constant shift of the scores does not change the softmax. So the instance normalization reduces to a scale
of the queries. ``score_moments`` computes this scale without the scores. Attention without the normalization
does the rest: block by block, or in one piece if the map is small.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_blocks import is_cpu
from .blocked_attention import blocked_attention
from .score_moments import score_scale

_SMALL_MAP = 2**24  # scores; on an accelerator, a smaller map is faster in one piece


def fast_channel_attention(
    query: Tensor,
    source: Tensor,
    key_weight: Tensor,
    value_weight: Tensor,
    dropout: float = 0.0,
    *,
    blocked: bool = True,
) -> Tensor:
    """Compute ``channel_attention`` with keys and values that are projections of ``source``.

    The keys of head h are ``key_weight[h] @ source[:, s]`` for all groups s. The values use ``value_weight``
    in the same way.

    Args:
        query (Tensor): (B, H, M, N) float.
        source (Tensor): (B or 1, S, D, N) float. If the first dimension is 1, the images share it.
        key_weight (Tensor): (H, O, D) float.
        value_weight (Tensor): (H, O, D) float.
        dropout (float): Probability that an attention weight is dropped, in [0, 1).
        blocked (bool): Whether to process a large map block by block, see ``softmax_attention``. A graph that
            is exported must not contain it.

    Returns:
        Tensor: (B, H, M, N).
    """
    scaled = query * score_scale(query, source, key_weight).to(query.dtype)
    return softmax_attention(scaled, source, key_weight, value_weight, dropout, blocked=blocked)


def softmax_attention(
    query: Tensor,
    source: Tensor,
    key_weight: Tensor,
    value_weight: Tensor,
    dropout: float = 0.0,
    *,
    blocked: bool = True,
) -> Tensor:
    """Compute dropout(softmax(Q K^T)) V.

    With ``blocked``, this is ``blocked_attention``: on a CPU for every map whose gradient is needed, on an
    accelerator for every map that is not small. Otherwise, PyTorch's attention computes it.

    Args:
        query (Tensor): (B, H, M, N) float, already scaled.
        source, key_weight, value_weight, dropout, blocked: As in ``fast_channel_attention``.

    Returns:
        Tensor: (B, H, M, N).
    """
    if source.shape[0] < query.shape[0]:  # a shared source: concatenate the queries of all images
        joint = query.transpose(0, 1).flatten(1, 2)[None]
        attended = softmax_attention(joint, source, key_weight, value_weight, dropout, blocked=blocked)
        return attended[0].unflatten(1, (len(query), -1)).transpose(0, 1)
    if blocked and _prefers_blocks(query, source, key_weight):
        maps = [
            blocked_attention(query[b, h], source[b], key_weight[h], value_weight[h], dropout)
            for b, h in itertools.product(*map(range, query.shape[:2]))
        ]
        return torch.stack(maps).unflatten(0, query.shape[:2])
    key, value = (
        (weight[None, :, None] @ source[:, None]).flatten(2, 3) for weight in (key_weight, value_weight)
    )
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)


def _prefers_blocks(query: Tensor, source: Tensor, key_weight: Tensor) -> bool:
    """Return whether blocks are better than the whole map; arguments as in ``fast_channel_attention``."""
    if is_cpu(query.device):
        return torch.is_grad_enabled()
    return query.shape[:3].numel() * source.shape[1] * key_weight.shape[1] > _SMALL_MAP
