"""The sums over the blocks of a map of attention scores: of the softmax, and of the gradients."""

import torch
from torch import Tensor

from .attention_blocks import Block, Blocks, project

_RESCALE_THRESHOLD = 40.0  # e^40 is far from overflow; a score above it changes the row's shift


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to ``total`` (M, N), with the sum in the precision of ``total``."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


class RunningSoftmax:
    """The running softmax of each query.

    Args:
        query (Tensor): (M, N').
        shift (Tensor): (M, 1), subtracted from the scores.
    """

    def __init__(self, query: Tensor, shift: Tensor) -> None:
        self.shift = shift
        self.total = torch.zeros_like(shift, dtype=torch.float32)
        self.weighted = torch.zeros_like(query, dtype=torch.float32)

    def rescale(self, rows: slice, previous: Tensor) -> None:
        """Multiply the sums of some rows by exp(previous - shift), with ``previous`` (rows, 1)."""
        factor = (previous - self.shift[rows]).exp_()
        self.total[rows] *= factor
        self.weighted[rows] *= factor

    def weigh_on_cpu(self, blocks: Blocks, block: Block) -> Tensor:
        """Compute exp(scores - shift) of a block, (rows, G * O); the shift grows if a score is too large."""
        rows = block.rows
        weights = blocks.scores(rows).sub_(self.shift[rows])
        highest = weights.amax(dim=1, keepdim=True)
        if highest.max() > _RESCALE_THRESHOLD:
            previous = self.shift[rows].to(torch.float32, copy=True)
            self.shift[rows] += highest.clamp_(min=0)
            self.rescale(rows, previous)
            blocks.scores(rows).sub_(self.shift[rows])
        return weights.exp_()

    def weigh(self, blocks: Blocks, block: Block) -> Tensor:
        """Compute exp(scores - shift) of a block, (rows, G * O); the shift is the largest score so far."""
        rows = block.rows
        scores = blocks.scores(rows)
        previous = self.shift[rows].clone()
        torch.maximum(previous, scores.amax(dim=1, keepdim=True).float(), out=self.shift[rows])
        self.rescale(rows, previous)
        return scores.sub_(self.shift[rows]).exp_()


class Gradients:
    """The sums of the backward pass; ``key`` (G * O, N') and ``value`` are those of the current groups.

    Args:
        blocks (Blocks): The blocks.
        source (Tensor): (S, D, N).
        source_grad (bool): Whether the source needs a gradient.
    """

    key: Tensor
    value: Tensor

    def __init__(self, blocks: Blocks, source: Tensor, source_grad: bool) -> None:
        self.blocks = blocks
        self.query = torch.zeros_like(blocks.query, dtype=torch.float32)
        self.weights = [self.query.new_zeros(blocks.key_weight.shape) for _ in range(2)]
        self.source = torch.zeros_like(source) if source_grad else source.new_empty(0)
        keys = blocks.groups * len(blocks.key_weight)
        self._of_groups = self.query.new_empty(2, keys, blocks.width)

    def begin_groups(self) -> None:
        """Start the sums of new groups."""
        self.key, self.value = self._of_groups[:, : len(self.blocks.key)].zero_()

    def end_groups(self, groups: slice) -> None:
        """Add the gradients of the keys and values of the current groups to those of source and weights."""
        blocks = self.blocks
        channels = blocks.channels.transpose(0, 1).flatten(1)  # (D, G N')
        parts = [
            part.to(channels.dtype).unflatten(0, (len(blocks.channels), -1))
            for part in (self.key, self.value)
        ]
        for total, part in zip(self.weights, parts, strict=True):
            add_product(total, part.transpose(0, 1).flatten(1), channels.T)
        if self.source.numel():
            of_key, of_value = (
                project(weight.T, part, torch.empty_like(blocks.channels))[..., : self.source.shape[2]]
                for weight, part in zip((blocks.key_weight, blocks.value_weight), parts, strict=True)
            )
            self.source[groups] = of_key
            self.source[groups] += of_value
