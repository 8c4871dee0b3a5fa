"""Training of attention on a CPU block by block, so that the score map is never whole.

PyTorch's own kernel does this too, but on a CPU it builds the whole map as soon as there is dropout, and its
backward pass runs on one thread for each head.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# rows and columns of the score map in a block: 2 MB in float32, which fits into a core's cache
_QUERIES, _KEYS = 512, 1024
_LEVELS = 2**16  # of a uniform random number: dropout's probability is rounded to a multiple of 1/65536


class _Dropout:
    """Which weights of a block are dropped; drawn again, equal, in the backward pass."""

    def __init__(self, probability: float, seed: int):
        self.cut = round(probability * _LEVELS)
        self.keep = 1 - self.cut / _LEVELS
        self.seed = seed
        self.generator = torch.Generator()

    def __call__(self, block: int, shape: tuple[int, int]) -> Tensor:
        """(queries, keys) bool, True where a weight is dropped."""
        count = shape[0] * shape[1]
        self.generator.manual_seed(self.seed + block)
        # four 16-bit numbers of each 64-bit one: several times faster than bernoulli_
        words = torch.empty(-(-count // 4), dtype=torch.int64).random_(
            -(2**63), None, generator=self.generator
        )
        return words.view(torch.int16)[:count].view(shape) < self.cut - _LEVELS // 2


def _blocks(query: Tensor, key: Tensor):
    """Yield (number, map, slice of queries, slice of keys), keys fastest."""
    starts = [
        (i, j, k)
        for i in range(query.shape[0])
        for j in range(0, query.shape[1], _QUERIES)
        for k in range(0, key.shape[1], _KEYS)
    ]
    for number, (i, j, k) in enumerate(starts):
        yield number, i, slice(j, j + _QUERIES), slice(k, k + _KEYS)


class BlockedAttention(torch.autograd.Function):
    """softmax(Q K^T), dropout, times V, with the softmax kept up to date over blocks of keys.

    Only the output and the logarithm of each query's sum are kept for the backward pass, which makes each
    block's weights again (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135).
    """

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        """Attend.

        Args:
            query: (B, M, N), already scaled, on the CPU.
            key: (B, L, N).
            value: (B, L, N).
            dropout: probability in [0, 1) of the weights; drawn from PyTorch's global generator.

        Returns:
            Tensor: (B, M, N).
        """
        drop = _Dropout(dropout, int(torch.randint(2**62, ()))) if dropout else None
        highest = query.new_full((*query.shape[:2], 1), -torch.inf, dtype=torch.float32)
        total = torch.zeros_like(highest)
        mixed = torch.zeros_like(query, dtype=torch.float32)
        for number, b, queries, keys in _blocks(query, key):
            weights = query[b, queries] @ key[b, keys].T
            top = torch.maximum(highest[b, queries], weights.amax(dim=1, keepdim=True).float())
            weights.sub_(top).exp_()
            shrink = (highest[b, queries] - top).exp_()
            highest[b, queries] = top
            total[b, queries] = total[b, queries] * shrink + weights.sum(1, keepdim=True, dtype=torch.float32)
            if drop:
                weights.masked_fill_(drop(number, weights.shape), 0)
            mixed[b, queries] = mixed[b, queries] * shrink + weights @ value[b, keys]
        out = (mixed / (total * drop.keep if drop else total)).to(query.dtype)
        ctx.save_for_backward(query, key, value, out, highest + total.log())
        ctx.drop = drop
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of query, key and value; dropout has none."""
        query, key, value, out, log_total = ctx.saved_tensors
        drop = ctx.drop
        grad_query, grad_key, grad_value = (
            torch.zeros_like(each, dtype=torch.float32) for each in (query, key, value)
        )
        grad_dot_out = (grad.float() * out.float()).sum(dim=2, keepdim=True)
        if drop:
            grad = grad / drop.keep
        for number, b, queries, keys in _blocks(query, key):
            weights = (query[b, queries] @ key[b, keys].T).sub_(log_total[b, queries]).exp_()
            grad_weights = grad[b, queries] @ value[b, keys].T
            kept = weights
            if drop:
                dropped = drop(number, weights.shape)
                grad_weights.masked_fill_(dropped, 0)
                kept = weights.masked_fill(dropped, 0)
            grad_value[b, keys] += kept.T @ grad[b, queries]
            grad_scores = grad_weights.sub_(grad_dot_out[b, queries]).mul_(weights)
            grad_query[b, queries] += grad_scores @ key[b, keys]
            grad_key[b, keys] += grad_scores.T @ query[b, queries]
        return grad_query.to(query.dtype), grad_key.to(key.dtype), grad_value.to(value.dtype), None
