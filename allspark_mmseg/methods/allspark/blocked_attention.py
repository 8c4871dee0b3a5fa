"""Channel attention for training on a CPU. It computes the score map and the keys block by block.

PyTorch's fused kernel does not build the score map either. With dropout on a CPU, however, it builds the
whole map, and its backward pass uses one thread per head.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_BYTES = 2**21  # size of the scores of a block; fits into the caches of two cores
_RESCALE_THRESHOLD = 40.0  # e^40 is far from overflow; a score above it changes the row's shift
_DROPOUT_LEVELS = 2**16  # the dropout probability is rounded to a multiple of 1 / 65536


class _Dropout:
    """The dropout mask of each block. The backward pass draws it again from the same seed.

    Args:
        probability (float): Dropout probability, in [0, 1).
        seed (int): Seed of all blocks.
    """

    def __init__(self, probability: float, seed: int) -> None:
        self.cut = round(probability * _DROPOUT_LEVELS)
        self.scale = _DROPOUT_LEVELS / (_DROPOUT_LEVELS - self.cut)
        self.seed = seed

    def draw(self, block: int, out: Tensor) -> Tensor:
        """Fill ``out`` (rows, O) with 1 for kept weights of a block and 0 for dropped ones; return it."""
        # NumPy's generator, with four 16-bit numbers per draw, is several times faster than PyTorch's
        words = np.random.SFC64((self.seed, block)).random_raw(-(-out.numel() // 4))
        uniform = torch.from_numpy(words.view(np.int16))[: out.numel()].view(out.shape)
        return out.copy_(uniform.ge_(self.cut - _DROPOUT_LEVELS // 2))


class _Workspace:
    """Buffers that all blocks reuse, because allocating them for each block takes longer than its arithmetic.

    Args:
        query (Tensor): (M, N).
        keys (int): Keys O of a group.
        masks (bool): Whether the blocks have dropout masks.
    """

    def __init__(self, query: Tensor, keys: int, masks: bool) -> None:
        self.blocks = query.new_empty(3 if masks else 2, _block_rows(query, keys), keys)

    def scores(self, rows: slice) -> Tensor:
        """Memory (rows, O) for the scores of a block."""
        return self.blocks[0, : rows.stop - rows.start]

    def gradients(self, rows: slice) -> Tensor:
        """Memory (rows, O) for the gradients of the scores of a block."""
        return self.blocks[1, : rows.stop - rows.start]

    def mask(self, rows: slice) -> Tensor:
        """Memory (rows, O) for the dropout mask of a block."""
        return self.blocks[2, : rows.stop - rows.start]


def _block_rows(query: Tensor, keys: int) -> int:
    """Return the number of queries in a block."""
    return min(len(query), max(1, _BLOCK_BYTES // (keys * query.element_size())))


def _iterate_blocks(query: Tensor, groups: int, keys: int) -> Iterator[tuple[int, int, slice]]:
    """Yield (block, group of keys, slice of queries); the queries vary fastest."""
    step = _block_rows(query, keys)
    starts = range(0, len(query), step)
    for block in range(groups * len(starts)):
        group, index = divmod(block, len(starts))
        yield block, group, slice(starts[index], min(starts[index] + step, len(query)))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to ``total``, with the sum in the precision of ``total``."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


class BlockedAttention(torch.autograd.Function):
    """Attention dropout(softmax(Q K^T)) V, with keys W_K R_s and values W_V R_s of groups s.

    This is the online softmax (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135). The
    forward pass stores the output, and the shift and the sum of each query. Both passes compute the keys and
    values of a group, and the weights of a block, when they need them. The shift of a row is the mean of its
    scores, which is known in advance. The shift grows only if a score is too large for ``exp``.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, source: Tensor, key_weight: Tensor, value_weight: Tensor, probability: float
    ) -> Tensor:
        """Compute the attention.

        Args:
            ctx: Autograd context.
            query (Tensor): (M, N) on the CPU, already scaled. All products have its dtype.
            source (Tensor): (S, D, N), the groups R_s.
            key_weight (Tensor): (O, D), W_K.
            value_weight (Tensor): (O, D), W_V.
            probability (float): Dropout probability of the weights, in [0, 1). PyTorch's global generator
                gives the seed.

        Returns:
            Tensor: (M, N).
        """
        dropout = _Dropout(probability, int(torch.randint(2**62, ()))) if probability else None
        query = query.contiguous()
        with torch.autocast('cpu', enabled=False):
            key_mean = key_weight.float().mean(dim=0) @ source.float().mean(dim=0)
            shift = (query.float() @ key_mean)[:, None].to(query.dtype)
            total = torch.zeros_like(shift, dtype=torch.float32)
            weighted = torch.zeros_like(query, dtype=torch.float32)
            to_key, to_value = key_weight.to(query.dtype), value_weight.to(query.dtype)
            key, value = query.new_empty(2, len(to_key), query.shape[1])
            space = _Workspace(query, len(to_key), masks=dropout is not None)
            for block, group, rows in _iterate_blocks(query, len(source), len(to_key)):
                if rows.start == 0:
                    channels = source[group].to(query.dtype)
                    torch.mm(to_key, channels, out=key)
                    torch.mm(to_value, channels, out=value)
                weights = torch.mm(query[rows], key.T, out=space.scores(rows)).sub_(shift[rows])
                highest = weights.amax(dim=1, keepdim=True)
                if highest.max() > _RESCALE_THRESHOLD:
                    previous = shift[rows].to(torch.float32, copy=True)
                    shift[rows] += highest.clamp_(min=0)
                    rescale = (previous - shift[rows]).exp_()
                    total[rows] *= rescale
                    weighted[rows] *= rescale
                    torch.mm(query[rows], key.T, out=weights).sub_(shift[rows])
                total[rows] += weights.exp_().sum(dim=1, keepdim=True, dtype=torch.float32)
                if dropout:
                    weights.mul_(dropout.draw(block, space.mask(rows)))
                _add_product(weighted[rows], weights, value)
            out = weighted.div_(total)
            if dropout:
                out.mul_(dropout.scale)
        ctx.save_for_backward(query, source, key_weight, value_weight, out, shift, total)
        ctx.dropout = dropout
        return out.to(query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the query, the source and both weights.

        Args:
            ctx: Autograd context.
            grad (Tensor): (M, N).

        Returns:
            tuple: Gradients (M, N), (S, D, N) or None, (O, D), (O, D), and None.
        """
        query, source, key_weight, value_weight, out, shift, total = ctx.saved_tensors
        dropout = ctx.dropout
        grad_dot_out = (grad.float() * out).sum(dim=1, keepdim=True).div_(total).to(query.dtype)
        grad = (grad.float() * ((dropout.scale if dropout else 1.0) / total)).to(query.dtype)
        to_key, to_value = key_weight.to(query.dtype), value_weight.to(query.dtype)
        grad_query = torch.zeros_like(query, dtype=torch.float32)
        grad_weights = torch.zeros(2, *key_weight.shape)
        grad_source = torch.zeros_like(source) if ctx.needs_input_grad[1] else None
        grad_key, grad_value = torch.empty(2, len(to_key), query.shape[1])
        key, value = query.new_empty(2, len(to_key), query.shape[1])
        space = _Workspace(query, len(to_key), masks=dropout is not None)
        for block, group, rows in _iterate_blocks(query, len(source), len(to_key)):
            if rows.start == 0:
                channels = source[group].to(query.dtype)
                torch.mm(to_key, channels, out=key)
                torch.mm(to_value, channels, out=value)
                grad_key.zero_()
                grad_value.zero_()
            weights = torch.mm(query[rows], key.T, out=space.scores(rows)).sub_(shift[rows]).exp_()
            grad_scores = torch.mm(grad[rows], value.T, out=space.gradients(rows))
            kept = weights
            if dropout:
                mask = dropout.draw(block, space.mask(rows))
                grad_scores.mul_(mask)
                kept = mask.mul_(weights)
            _add_product(grad_value, kept.T, grad[rows])
            grad_scores.sub_(grad_dot_out[rows]).mul_(weights)
            _add_product(grad_query[rows], grad_scores, key)
            _add_product(grad_key, grad_scores.T, query[rows])
            if rows.stop == len(query):
                for total_grad, part in zip(grad_weights, (grad_key, grad_value), strict=True):
                    _add_product(total_grad, part.to(query.dtype), channels.T)
                if grad_source is not None:
                    grad_source[group] = to_key.T @ grad_key.to(query.dtype)
                    grad_source[group] += to_value.T @ grad_value.to(query.dtype)
        grad_key_weight, grad_value_weight = grad_weights.to(key_weight.dtype)
        return grad_query.to(query.dtype), grad_source, grad_key_weight, grad_value_weight, None
