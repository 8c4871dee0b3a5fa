"""Fast form of ``channel_attention`` that does not build the score map.

A constant shift of the scores does not change the softmax. So the instance normalization reduces to a scale
of the queries. ``score_moments`` computes this scale without the scores. A fused attention kernel does the
rest.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocked_attention import BlockedAttention
from .score_moments import score_scale


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
        blocked (bool): With gradients on a CPU, use ``BlockedAttention``. It saves memory in training. Its
            control flow depends on the scores, so a graph that is exported must not contain it.

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
    if blocked and query.device.type == 'cpu' and torch.is_grad_enabled():
        maps = [
            BlockedAttention.apply(query[b, h], source[b], key_weight[h], value_weight[h], dropout)
            for b, h in itertools.product(*map(range, query.shape[:2]))
        ]
        return torch.stack(maps).unflatten(0, query.shape[:2])
    key, value = (
        (weight[None, :, None] @ source[:, None]).flatten(2, 3) for weight in (key_weight, value_weight)
    )
    width = query.shape[-1]
    if query.device.type == 'cuda' and width % 8:  # its kernels need multiples of 8; zeros add nothing
        query, key, value = (F.pad(each, (0, -width % 8)) for each in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)[..., :width]
