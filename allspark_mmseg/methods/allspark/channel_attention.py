"""Attention between channels: a token is a channel, described by its values at all positions."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .blocked_attention import BlockedAttention

_EPS = 1e-5  # of the instance normalization
_CHUNK = 8  # groups of keys whose covariance is summed at a time


class _QuadraticForms(torch.autograd.Function):
    """The sum over s of R_s^T A_h R_s, for symmetric A_h, in a few groups' memory.

    Source (B, S, D, N) and matrices (H, D, D) give (B, H, N, N).
    """

    @staticmethod
    def forward(ctx, source: Tensor, matrices: Tensor) -> Tensor:
        ctx.save_for_backward(source, matrices)
        total = 0
        for part in source.split(_CHUNK, dim=1):
            product = matrices[None, :, None] @ part[:, None]  # (B, H, s, D, N)
            total = total + part.flatten(1, 2).transpose(1, 2)[:, None] @ product.flatten(2, 3)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        source, matrices = ctx.saved_tensors
        symmetric = grad + grad.transpose(2, 3)
        of_matrices = torch.zeros_like(matrices)
        of_source = []
        for part in source.split(_CHUNK, dim=1):
            product = part[:, None] @ symmetric[:, :, None]  # (B, H, s, D, N)
            for group, of_group in zip(part.unbind(1), product.unbind(2), strict=True):
                of_matrices += (of_group @ group[:, None].transpose(2, 3)).sum(dim=0)
            if ctx.needs_input_grad[0]:
                of_source.append((matrices[None, :, None] @ product).sum(dim=1))
        return torch.cat(of_source, dim=1) if of_source else None, of_matrices / 2


class _Covariance(torch.autograd.Function):
    """Covariance (..., N, N) of vectors (..., M, N), without keeping their centered copy."""

    @staticmethod
    def forward(ctx, vectors: Tensor, mean: Tensor) -> Tensor:
        ctx.save_for_backward(vectors, mean)
        centered = vectors.float() - mean
        return centered.transpose(-2, -1) @ centered / vectors.shape[-2]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        # nothing flows through the mean: the centered vectors sum to zero
        vectors, mean = ctx.saved_tensors
        symmetric = (grad + grad.transpose(-2, -1)) / vectors.shape[-2]
        return ((vectors.float() - mean) @ symmetric).to(vectors.dtype), None


def _moments_of_queries(query: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, M, N) -> mean (B, H, 1, N) and covariance (B, H, N, N)."""
    mean = query.mean(dim=2, keepdim=True, dtype=torch.float32)
    return mean, _Covariance.apply(query, mean.detach())


def _moments_of_keys(source: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of all keys W_h R_s, without the keys, and without sums of what cancels.

    (B, S, D, N) and (H, O, D) -> mean (B, H, 1, N) and covariance (B, H, N, N).
    """
    source, weight = source.float(), weight.float()
    mean_weight = weight.mean(dim=1, keepdim=True)
    centered = weight - mean_weight
    within = _QuadraticForms.apply(source, centered.transpose(1, 2) @ centered / weight.shape[1])
    # head by head, and with as many dimensions: otherwise the product copies, and keeps, the source
    group_means = torch.stack([(of_head[None, None] @ source).squeeze(2) for of_head in mean_weight], dim=1)
    mean = group_means.mean(dim=2, keepdim=True)
    between = (group_means - mean).transpose(2, 3) @ (group_means - mean)
    return mean, (within + between) / source.shape[1]


def score_scale(query: Tensor, source: Tensor, key_weight: Tensor) -> Tensor:
    r"""Inverse standard deviation of all scores of a map, from second moments instead of the map itself.

    With means q, k and covariances C_Q, C_K of the query and the key channels, the scores Q K^T have the
    variance <C_Q, C_K> + k^T C_Q k + q^T C_K q: three terms that are not negative, so nothing cancels.

    Args:
        query: (B, H, M, N).
        source: (B or 1, S, D, N); the keys of head h are ``key_weight[h] @ source[:, s]`` of all groups s.
        key_weight: (H, O, D).

    Returns:
        Tensor: (B, H, 1, 1) float32, (variance + 1e-5)^(-1/2).
    """
    with torch.autocast(query.device.type, enabled=False):
        mean_query, of_query = _moments_of_queries(query)
        mean_key, of_key = _moments_of_keys(source, key_weight)

        def along(mean: Tensor, covariance: Tensor) -> Tensor:
            return (mean @ covariance * mean).sum(dim=(-2, -1), keepdim=True)

        variance = (of_query * of_key).sum(dim=(-2, -1), keepdim=True)
        variance = variance + along(mean_key, of_query) + along(mean_query, of_key)
        return (variance + _EPS).rsqrt()


def attend(
    query: Tensor, source: Tensor, key_weight: Tensor, value_weight: Tensor, dropout: float = 0.0
) -> Tensor:
    """softmax(Q K^T), dropout, times V, where keys and values are projections of ``source``.

    Args:
        query: (B, H, M, N), scaled.
        source: (B or 1, S, D, N); a single one is shared by the images, not repeated. The keys of head h
            are ``key_weight[h] @ source[:, s]`` of all groups s.
        key_weight: (H, O, D).
        value_weight: (H, O, D).
        dropout: probability of the attention weights, in [0, 1).

    Returns:
        Tensor: (B, H, M, N).
    """
    if len(source) < len(query):
        together = query.transpose(0, 1).flatten(1, 2)[None]  # the images' queries stand side by side
        mixed = attend(together, source, key_weight, value_weight, dropout)
        return mixed[0].unflatten(1, (len(query), -1)).transpose(0, 1)
    if query.device.type == 'cpu' and torch.is_grad_enabled():
        maps = [
            BlockedAttention.apply(query[b, h], source[b], key_weight[h], value_weight[h], dropout)
            for b, h in itertools.product(*map(range, query.shape[:2]))
        ]
        return torch.stack(maps).unflatten(0, query.shape[:2])
    key, value = (
        (weight[None, :, None] @ source[:, None]).flatten(2, 3) for weight in (key_weight, value_weight)
    )
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

    def mix(self, query: Tensor, source: Tensor) -> Tensor:
        """Attend to the channels of ``source``, each map of scores normalized as a whole (equation 3).

        Scores are not scaled by a root of the width; their instance normalization (mean, biased variance, eps
        1e-5) gives softmax unit variance whatever the number of keys. Softmax does not see the mean, so it
        is enough to scale the queries, and the map is never built.

        Args:
            query: (B, H', M, N), projected queries; H' maps for each image.
            source: (B or 1, S, D, N), where keys and values come from.

        Returns:
            Tensor: (B, H', M, N).
        """
        key_weight, value_weight = (
            linear.weight.unflatten(0, (query.shape[1], -1)) for linear in (self.key, self.value)
        )
        query = query * score_scale(query, source, key_weight).to(query.dtype)
        return attend(query, source, key_weight, value_weight, self.dropout if self.training else 0.0)


class ChannelSelfAttention(ChannelAttention):
    """The unlabeled stream: multi-head self-attention between the channels of one image."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend.

        Args:
            tokens: (B, N, D).

        Returns:
            Tensor: (B, N, D).
        """
        query = self.query(tokens).unflatten(2, (self.num_heads, -1)).permute(0, 2, 3, 1)  # (B, H, D, N)
        # contiguous: all that follows would otherwise make, and keep, a copy of its own
        mixed = self.mix(query.contiguous(), tokens.transpose(1, 2)[:, None])
        # (B, H, D, N) -> (B, N, D*H): channel-major here, unlike the projections; released weights need it
        return self.out_dropout(self.out(mixed.permute(0, 3, 2, 1).flatten(2)))


class ChannelCrossAttention(ChannelAttention):
    """The labeled stream: all H*D query channels of an image share one map over the key channels."""

    def forward(self, tokens: Tensor, source: Tensor, *, per_image: bool = False) -> Tensor:
        """Attend to the channels of ``source``.

        Args:
            tokens: (B, N, D), the queries.
            source: (S, D, N), where keys and values come from: other images, or the memory's classes.
            per_image: image i sees the channels of ``source[i]`` alone (S = B), not those of all.

        Returns:
            Tensor: (B, N, D).
        """
        query = self.query(tokens).transpose(1, 2).contiguous()[:, None]  # (B, N, H*D) -> (B, 1, H*D, N)
        mixed = self.mix(query, source[:, None] if per_image else source[None])
        return self.out_dropout(self.out(mixed.squeeze(1).transpose(1, 2)))  # (B, 1, H*D, N) -> (B, N, D)
