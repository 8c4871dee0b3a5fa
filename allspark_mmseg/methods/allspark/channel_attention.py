"""Attention between channels: a token is a channel, described by its values at all positions."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .blocked_attention import BlockedAttention

_EPS = 1e-5  # of the instance normalisation
_CHUNK = 8192  # channels that are centred at a time


class _Covariance(torch.autograd.Function):
    """Covariance (..., N, N) of vectors (..., M, N) in float32, without a centred copy of them all."""

    @staticmethod
    def forward(ctx, vectors: Tensor, mean: Tensor) -> Tensor:
        total = 0
        for part in vectors.split(_CHUNK, dim=-2):
            centred = part.float() - mean
            total = total + centred.transpose(-2, -1) @ centred
        ctx.save_for_backward(vectors, mean)
        return total / vectors.shape[-2]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        # nothing flows through the mean: the centred vectors sum to zero
        vectors, mean = ctx.saved_tensors
        symmetric = (grad + grad.transpose(-2, -1)) / vectors.shape[-2]
        result = torch.empty_like(vectors)
        for part, out in zip(vectors.split(_CHUNK, -2), result.split(_CHUNK, -2), strict=True):
            out.copy_((part.float() - mean) @ symmetric)
        return result, None


def score_scale(query: Tensor, key: Tensor) -> Tensor:
    r"""Inverse standard deviation of all scores of a map, from second moments instead of the map itself.

    With means q, k and covariances C_Q, C_K of the query and the key channels, the scores Q K^T have the
    variance <C_Q, C_K> + k^T C_Q k + q^T C_K q: three terms that are not negative, so nothing cancels.

    Args:
        query: (B, H, M, N).
        key: (B or 1, H, L, N).

    Returns:
        Tensor: (B, H, 1, 1) float32, (variance + 1e-5)^(-1/2).
    """
    with torch.autocast(query.device.type, enabled=False):
        means = [channels.mean(dim=-2, keepdim=True, dtype=torch.float32) for channels in (query, key)]
        of_query, of_key = (
            _Covariance.apply(channels, mean.detach())
            for channels, mean in zip((query, key), means, strict=True)
        )
        mean_query, mean_key = means

        def along(mean: Tensor, covariance: Tensor) -> Tensor:
            return (mean @ covariance * mean).sum(dim=(-2, -1), keepdim=True)

        variance = (of_query * of_key).sum(dim=(-2, -1), keepdim=True)
        variance = variance + along(mean_key, of_query) + along(mean_query, of_key)
        return (variance + _EPS).rsqrt()


def scale_queries(query: Tensor, key: Tensor) -> Tensor:
    """Scale queries so that instance normalisation of the scores is done (AllSpark, equation 3).

    Scores are not scaled by a root of the width; each map is normalised as a whole instead (mean, biased
    variance, eps 1e-5), so that softmax sees unit variance whatever the number of keys. Softmax does not see
    the mean, so it is enough to scale the queries, and the map is never built.

    Args:
        query: (B, H, M, N), M query channels of N positions.
        key: (B or 1, H, L, N).

    Returns:
        Tensor: (B, H, M, N).
    """
    return query * score_scale(query, key).to(query.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """softmax(Q K^T), dropout, times V.

    Args:
        query: (B, H, M, N), from ``scale_queries``.
        key: (B or 1, H, L, N); a single one is shared by the images, not repeated.
        value: as ``key``.
        dropout: probability of the attention weights, in [0, 1).

    Returns:
        Tensor: (B, H, M, N).
    """
    if len(key) == len(query):
        return _attend(query, key, value, dropout)
    together = query.transpose(0, 1).flatten(1, 2)[None]  # the images' queries stand side by side
    return _attend(together, key, value, dropout)[0].unflatten(1, (len(query), -1)).transpose(0, 1)


def _attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    if query.device.type == 'cpu' and torch.is_grad_enabled():
        maps = BlockedAttention.apply(*(each.flatten(0, 1) for each in (query, key, value)), dropout)
        return maps.unflatten(0, query.shape[:2])
    width = query.shape[-1]
    if query.device.type == 'cuda' and width % 8:  # what its kernels need; zeros change no product
        query, key, value = (F.pad(each, (0, -width % 8)) for each in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)[..., :width]


class ChannelAttention(nn.Module):
    """Projections that both streams have, without bias: D -> H*D, and H*D -> D.

    Args:
        channels: width D of the tokens.
        num_heads: heads H.
        dropout: probability, on the attention weights and on the output; the reference's is 0.1.

    Raises:
        ValueError: ``dropout`` is not in [0, 1).
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.1):
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f'AllSparkBottleneck: dropout is {dropout}, expected one in [0, 1).')
        wide = num_heads * channels
        self.num_heads = num_heads
        self.query = nn.Linear(channels, wide, bias=False)
        self.key = nn.Linear(channels, wide, bias=False)
        self.value = nn.Linear(channels, wide, bias=False)
        self.out = nn.Linear(wide, channels, bias=False)
        self.dropout = dropout
        self.out_dropout = nn.Dropout(dropout)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)

    def mix(self, query: Tensor, source: Tensor, arrange: Callable[[Tensor], Tensor]) -> Tensor:
        """Attend to the channels of ``source``.

        Args:
            query: (B, H, M, N), projected queries.
            source: (S, N, D), where keys and values come from.
            arrange: (S, N, H*D) -> (B or 1, H, L, N), for projected keys and values.

        Returns:
            Tensor: (B, H, M, N).
        """
        key = arrange(self.key(source))
        query = scale_queries(query, key)
        # made last, so that backward is done with its gradient first: the two are never held together
        value = arrange(self.value(source))
        return attend(query, key, value, self.dropout if self.training else 0.0)


class ChannelSelfAttention(ChannelAttention):
    """The unlabelled stream: multi-head self-attention between the channels of one image."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend.

        Args:
            tokens: (B, N, D).

        Returns:
            Tensor: (B, N, D).
        """

        def heads(projected: Tensor) -> Tensor:  # (B, N, H*D) -> (B, H, D, N)
            return projected.unflatten(2, (self.num_heads, -1)).permute(0, 2, 3, 1)

        mixed = self.mix(heads(self.query(tokens)), tokens, heads)
        # (B, H, D, N) -> (B, N, D*H): channel-major here, unlike the projections; released weights need it
        return self.out_dropout(self.out(mixed.permute(0, 3, 2, 1).flatten(2)))


class ChannelCrossAttention(ChannelAttention):
    """The labelled stream: all H*D query channels of an image share one map over the key channels."""

    def forward(self, tokens: Tensor, source: Tensor, *, per_image: bool = False) -> Tensor:
        """Attend to the channels of ``source``.

        Args:
            tokens: (B, N, D), the queries.
            source: (S, N, D), where keys and values come from: other images, or the memory's classes.
            per_image: image i sees the channels of ``source[i]`` alone (S = B), not those of all.

        Returns:
            Tensor: (B, N, D).
        """

        def channels(projected: Tensor) -> Tensor:  # (S, N, H*D) -> (S, 1, H*D, N) or (1, 1, S*H*D, N)
            projected = projected.transpose(1, 2)
            return projected[:, None] if per_image else projected.flatten(0, 1)[None, None]

        query = self.query(tokens).transpose(1, 2)[:, None]  # (B, N, H*D) -> (B, 1, H*D, N)
        mixed = self.mix(query, source, channels)
        return self.out_dropout(self.out(mixed.squeeze(1).transpose(1, 2)))  # (B, 1, H*D, N) -> (B, N, D)
