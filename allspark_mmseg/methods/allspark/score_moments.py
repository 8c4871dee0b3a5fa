"""The standard deviation of attention scores from second moments of queries and keys, without the scores."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-5  # epsilon of the instance normalization
_CHUNK = 8  # groups of keys whose covariance is summed at a time


def score_scale(query: Tensor, source: Tensor, key_weight: Tensor) -> Tensor:
    r"""Compute the inverse standard deviation of all scores Q K^T of a map.

    The query and key channels have means q, k and covariances C_Q, C_K. The variance of the scores is then
    <C_Q, C_K> + k^T C_Q k + q^T C_K q. None of the three terms is negative, so there is no cancellation.

    Args:
        query (Tensor): (B, H, M, N) float.
        source (Tensor): (B or 1, S, D, N) float; the keys of head h are ``key_weight[h] @ source[:, s]`` of
            all groups s.
        key_weight (Tensor): (H, O, D) float.

    Returns:
        Tensor: (B, H, 1, 1) float32, (variance + 1e-5)^(-1/2).
    """
    with torch.autocast(query.device.type, enabled=False):
        query_mean, query_covariance = _query_moments(query)
        key_mean, key_covariance = _key_moments(source, key_weight)
        variance = _total(query_covariance * key_covariance)
        variance = variance + _quadratic_form(key_mean, query_covariance)
        variance = variance + _quadratic_form(query_mean, key_covariance)
        return (variance + EPS).rsqrt()


def _total(values: Tensor) -> Tensor:
    """(B, H, M, N) -> (B, H, 1, 1)."""
    if torch.jit.is_tracing():
        # onnxruntime adds one value after the other, which loses digits for millions of values
        return values.sum(dim=-1, keepdim=True).sum(dim=-2, keepdim=True)
    return values.sum(dim=(-2, -1), keepdim=True)


def _quadratic_form(mean: Tensor, covariance: Tensor) -> Tensor:
    """(B, H, 1, N) and (B, H, N, N) -> (B, H, 1, 1)."""
    return (mean @ covariance * mean).sum(dim=(-2, -1), keepdim=True)


def _query_moments(query: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, M, N) -> mean (B, H, 1, N) and covariance (B, H, N, N)."""
    mean = query.mean(dim=2, keepdim=True, dtype=torch.float32)
    return mean, _evaluate(_Covariance, query, mean.detach())


def _key_moments(source: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the moments of all keys W_h R_s without the keys and without cancellation.

    (B, S, D, N) and (H, O, D) -> mean (B, H, 1, N) and covariance (B, H, N, N).
    """
    source, weight = source.float(), weight.float()
    mean_weight = weight.mean(dim=1, keepdim=True)
    centered = weight - mean_weight
    within = _evaluate(_QuadraticForms, source, centered.transpose(1, 2) @ centered / weight.shape[1])
    # one head at a time, with equal numbers of dimensions; otherwise the product copies and keeps the source
    group_means = torch.stack([(of_head[None, None] @ source).squeeze(2) for of_head in mean_weight], dim=1)
    mean = group_means.mean(dim=2, keepdim=True)
    between = (group_means - mean).transpose(2, 3) @ (group_means - mean)
    return mean, (within + between) / source.shape[1]


def _evaluate(function: Any, *arguments: Tensor) -> Tensor:
    """Apply an autograd function, or only its formula if no gradient is needed.

    A traced graph with an autograd function cannot be saved.
    """
    return function.apply(*arguments) if torch.is_grad_enabled() else function.evaluate(*arguments)


class _QuadraticForms(torch.autograd.Function):
    """The sum over s of R_s^T A_h R_s, for symmetric A_h, in the memory of a few groups."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, matrices: Tensor) -> Tensor:
        """Source R (B, S, D, N) and matrices A (H, D, D) -> (B, H, N, N)."""
        ctx.save_for_backward(source, matrices)
        return _QuadraticForms.evaluate(source, matrices)

    @staticmethod
    def evaluate(source: Tensor, matrices: Tensor) -> Tensor:
        """Compute ``forward`` without autograd: (B, S, D, N) and (H, D, D) -> (B, H, N, N)."""
        total = source.new_zeros(())
        for part in source.split(_CHUNK, dim=1):
            product = matrices[None, :, None] @ part[:, None]  # (B, H, s, D, N)
            total = total + part.flatten(1, 2).transpose(1, 2)[:, None] @ product.flatten(2, 3)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        """Gradient (B, H, N, N) -> gradients of the source and the matrices."""
        source, matrices = ctx.saved_tensors
        symmetric = grad + grad.transpose(2, 3)
        matrix_grad = torch.zeros_like(matrices)
        source_grads = []
        for part in source.split(_CHUNK, dim=1):
            product = part[:, None] @ symmetric[:, :, None]  # (B, H, s, D, N)
            for group, of_group in zip(part.unbind(1), product.unbind(2), strict=True):
                matrix_grad += (of_group @ group[:, None].transpose(2, 3)).sum(dim=0)
            if ctx.needs_input_grad[0]:
                source_grads.append((matrices[None, :, None] @ product).sum(dim=1))
        return torch.cat(source_grads, dim=1) if source_grads else None, matrix_grad / 2


class _Covariance(torch.autograd.Function):
    """The covariance of vectors, without keeping a centered copy of them."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, mean: Tensor) -> Tensor:
        """Vectors (..., M, N) and their mean (..., 1, N) -> (..., N, N)."""
        ctx.save_for_backward(vectors, mean)
        return _Covariance.evaluate(vectors, mean)

    @staticmethod
    def evaluate(vectors: Tensor, mean: Tensor) -> Tensor:
        """Compute ``forward`` without autograd: (..., M, N) and (..., 1, N) -> (..., N, N)."""
        centered = vectors.float() - mean
        return centered.transpose(-2, -1) @ centered / vectors.shape[-2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Gradient (..., N, N) -> gradient of the vectors."""
        # the mean gets no gradient, because the centered vectors sum to zero
        vectors, mean = ctx.saved_tensors
        symmetric = (grad + grad.transpose(-2, -1)) / vectors.shape[-2]
        return ((vectors.float() - mean) @ symmetric).to(vectors.dtype), None
