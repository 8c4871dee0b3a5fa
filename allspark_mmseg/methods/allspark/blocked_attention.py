"""Training of channel attention on a CPU block by block: neither the score map nor the keys are ever whole.

PyTorch's own kernel does the former too, but on a CPU it builds the whole map as soon as there is dropout,
and its backward pass runs on one thread for each head.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK = 2**21  # bytes of a block of the score map, which two cores' caches hold
_RESHIFT_MARGIN = (
    40.0  # a score so far above its row's shift makes the shift follow: e^40 is far from overflow
)
_LEVELS = 2**16  # of a uniform random number: dropout's probability is rounded to a multiple of 1/65536


class _Dropout:
    """Which weights of a block are kept; drawn again, equal, in the backward pass."""

    def __init__(self, probability: float, seed: int):
        self.cut = round(probability * _LEVELS)
        self.scale = _LEVELS / (_LEVELS - self.cut)
        self.seed = seed

    def draw(self, number: int, out: Tensor) -> None:
        """Fill ``out`` with ones where block ``number`` keeps its weight, else with zeros."""
        # NumPy's generator, four 16-bit numbers of each draw: PyTorch's take several times as long
        words = np.random.SFC64((self.seed, number)).random_raw(-(-out.numel() // 4))
        uniform = torch.from_numpy(words.view(np.int16))[: out.numel()].view(out.shape)
        out.copy_(uniform.ge_(self.cut - _LEVELS // 2))


def _blocks(query: Tensor, groups: int, keys: int) -> Iterator[tuple[int, int, slice]]:
    """Yield (number, group of keys, slice of queries), queries fastest."""
    step = _rows(query, keys)
    starts = range(0, len(query), step)
    for number in range(groups * len(starts)):
        group, place = divmod(number, len(starts))
        yield number, group, slice(starts[place], min(starts[place] + step, len(query)))


def _rows(query: Tensor, keys: int) -> int:
    """Queries in a block."""
    return min(len(query), max(1, _BLOCK // (keys * query.element_size())))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, with the sum in float32."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


class BlockedAttention(torch.autograd.Function):
    """softmax(Q K^T), dropout, times V, where group s of the keys is W_K R_s, and of the values W_V R_s.

    A group's keys and values are made when its turn comes, and again in the backward pass, as each block's
    weights are; only the output, and each query's shift and sum, are kept (Milakov and Gimelshein,
    arXiv 1805.02867; Dao et al., arXiv 2205.14135). A row's scores are shifted by their mean, known
    beforehand, and further only should a score outgrow what ``exp`` can take.
    """

    @staticmethod
    def forward(
        ctx, query: Tensor, source: Tensor, key_weight: Tensor, value_weight: Tensor, dropout: float
    ) -> Tensor:
        """Attend.

        Args:
            query: (M, N), already scaled, on the CPU; its dtype is that of all products.
            source: (S, D, N), the groups R_s.
            key_weight: (O, D), W_K.
            value_weight: (O, D), W_V.
            dropout: probability in [0, 1) of the weights; drawn from PyTorch's global generator.

        Returns:
            Tensor: (M, N).
        """
        drop = _Dropout(dropout, int(torch.randint(2**62, ()))) if dropout else None
        query = query.contiguous()
        with torch.autocast('cpu', enabled=False):
            mean_key = key_weight.float().mean(dim=0) @ source.float().mean(dim=0)
            shift = (query.float() @ mean_key)[:, None].to(query.dtype)
            total = torch.zeros_like(shift, dtype=torch.float32)
            mixed = torch.zeros_like(query, dtype=torch.float32)
            of_key, of_value = key_weight.to(query.dtype), value_weight.to(query.dtype)
            key, value = query.new_empty(2, len(of_key), query.shape[1])
            space = _Workspace(query, len(of_key), drop)
            for number, group, rows in _blocks(query, len(source), len(of_key)):
                if rows.start == 0:
                    channels = source[group].to(query.dtype)
                    torch.mm(of_key, channels, out=key)
                    torch.mm(of_value, channels, out=value)
                weights = torch.mm(query[rows], key.T, out=space.scores(rows)).sub_(shift[rows])
                highest = weights.amax(dim=1, keepdim=True)
                if highest.max() > _RESHIFT_MARGIN:
                    before = shift[rows].to(torch.float32, copy=True)
                    shift[rows] += highest.clamp_(min=0)
                    shrink = (before - shift[rows]).exp_()
                    total[rows] *= shrink
                    mixed[rows] *= shrink
                    torch.mm(query[rows], key.T, out=weights).sub_(shift[rows])
                total[rows] += weights.exp_().sum(dim=1, keepdim=True, dtype=torch.float32)
                if drop:
                    weights.mul_(space.kept(rows, number))
                _add_product(mixed[rows], weights, value)
            out = mixed.div_(total)
            if drop:
                out.mul_(drop.scale)
        ctx.save_for_backward(query, source, key_weight, value_weight, out, shift, total)
        ctx.drop = drop
        return out.to(query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the query, the source and both weights; dropout has none."""
        query, source, key_weight, value_weight, out, shift, total = ctx.saved_tensors
        drop = ctx.drop
        grad_dot_out = (grad.float() * out).sum(dim=1, keepdim=True).div_(total).to(query.dtype)
        grad = (grad.float() * ((drop.scale if drop else 1.0) / total)).to(query.dtype)
        of_key, of_value = key_weight.to(query.dtype), value_weight.to(query.dtype)
        grad_query = torch.zeros_like(query, dtype=torch.float32)
        grad_weights = torch.zeros(2, *key_weight.shape)
        grad_source = torch.zeros_like(source) if ctx.needs_input_grad[1] else None
        grad_key, grad_value = torch.empty(2, len(of_key), query.shape[1])
        key, value = query.new_empty(2, len(of_key), query.shape[1])
        space = _Workspace(query, len(of_key), drop)
        for number, group, rows in _blocks(query, len(source), len(of_key)):
            if rows.start == 0:
                channels = source[group].to(query.dtype)
                torch.mm(of_key, channels, out=key)
                torch.mm(of_value, channels, out=value)
                grad_key.zero_()
                grad_value.zero_()
            weights = torch.mm(query[rows], key.T, out=space.scores(rows)).sub_(shift[rows]).exp_()
            grad_scores = torch.mm(grad[rows], value.T, out=space.gradients(rows))
            kept = weights
            if drop:
                mask = space.kept(rows, number)
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
                    grad_source[group] = of_key.T @ grad_key.to(query.dtype)
                    grad_source[group] += of_value.T @ grad_value.to(query.dtype)
        grad_key_weight, grad_value_weight = grad_weights.to(key_weight.dtype)
        return grad_query.to(query.dtype), grad_source, grad_key_weight, grad_value_weight, None


class _Workspace:
    """Memory that the blocks use again: a fresh page for each would cost more than the sums done in it."""

    def __init__(self, query: Tensor, keys: int, drop: _Dropout | None):
        self.blocks = query.new_empty(3 if drop else 2, _rows(query, keys), keys)
        self.drop = drop

    def scores(self, rows: slice) -> Tensor:
        return self.blocks[0, : rows.stop - rows.start]

    def gradients(self, rows: slice) -> Tensor:
        return self.blocks[1, : rows.stop - rows.start]

    def kept(self, rows: slice, number: int) -> Tensor:
        mask = self.blocks[2, : rows.stop - rows.start]
        self.drop.draw(number, mask)
        return mask
