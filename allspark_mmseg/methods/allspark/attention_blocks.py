"""The blocks of a map of attention scores: their sizes, keys, values, buffers and dropout masks."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# size of the scores of a block
_CPU_BLOCK_BYTES = 2**21  # fits into the caches of two cores
_ACCELERATOR_BLOCK_BYTES = 2**26  # few kernels are started, and each of them fills the device
_ALIGNMENT = 8  # on an accelerator, fast matrix products need rows of a multiple of 8 values
_DROPOUT_LEVELS = 2**16  # on a CPU, the dropout probability is rounded to a multiple of 1 / 65536


def is_cpu(device: torch.device) -> bool:
    """Return whether a device is a CPU. The tests replace this function, and so run the other branches."""
    return device.type == 'cpu'


class Dropout:
    """The dropout mask of each block. The backward pass draws it again from the same seed.

    Args:
        probability (float): Dropout probability, in [0, 1).
        seed (int): Seed of all blocks.
        device (torch.device): Device of the masks.
    """

    def __init__(self, probability: float, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.generator = None if is_cpu(device) else torch.Generator(device)
        self.cut = round(probability * _DROPOUT_LEVELS)
        self.keep = 1 - (self.cut / _DROPOUT_LEVELS if self.generator is None else probability)

    @property
    def scale(self) -> float:
        """Factor that keeps the expected value of the output."""
        return 1 / self.keep

    def draw(self, block: int, out: Tensor) -> Tensor:
        """Fill ``out`` (rows, O) with 1 for kept weights of a block and 0 for dropped ones; return it."""
        if self.generator is not None:
            self.generator.manual_seed(self.seed + block)  # on the host; it does not wait for the device
            return out.bernoulli_(self.keep, generator=self.generator)
        # NumPy's generator, with four 16-bit numbers per draw, is several times faster than PyTorch's
        words = np.random.SFC64((self.seed, block)).random_raw(-(-out.numel() // 4))
        uniform = torch.from_numpy(words.view(np.int16))[: out.numel()].view(out.shape)
        return out.copy_(uniform.ge_(self.cut - _DROPOUT_LEVELS // 2))


class Block(NamedTuple):
    """A block of scores.

    Attributes:
        number (int): Number of the block, from 0.
        groups (slice): Its groups of keys.
        rows (slice): Its queries.
        first (bool): Whether it is the first block of these groups.
        last (bool): Whether it is the last block of these groups.
    """

    number: int
    groups: slice
    rows: slice
    first: bool
    last: bool


class Blocks:
    """Goes through the map of scores of M queries and S groups of O keys each, block by block.

    The queries vary fastest. The keys W_K R_s and values W_V R_s are computed when the first block of a group
    needs them. On an accelerator, a block can have several groups, and the length of a vector is rounded up
    with zeros, which add nothing. All blocks reuse the same memory.

    Args:
        query (Tensor): (M, N). All products have its dtype.
        source (Tensor): (S, D, N), the groups R_s.
        key_weight (Tensor): (O, D), W_K.
        value_weight (Tensor): (O, D), W_V.
        buffers (int): Number of buffers of the size of a block.
    """

    key: Tensor  # (G * O, N') of the groups of the current block
    value: Tensor  # (G * O, N')
    channels: Tensor  # (G, D, N')

    def __init__(
        self, query: Tensor, source: Tensor, key_weight: Tensor, value_weight: Tensor, buffers: int
    ) -> None:
        self.on_cpu = is_cpu(query.device)
        self.source = source
        self.key_weight, self.value_weight = key_weight.to(query.dtype), value_weight.to(query.dtype)
        self.width = query.shape[1] if self.on_cpu else -(-query.shape[1] // _ALIGNMENT) * _ALIGNMENT
        self.query = self.pad(query)
        self.rows, self.groups = _block_size(len(query), len(source), len(key_weight), query)
        keys = self.groups * len(key_weight)
        self._buffers = query.new_empty(buffers, self.rows * keys)
        self._keys_and_values = query.new_empty(2, keys, self.width)
        self._channels = query.new_zeros(self.groups, source.shape[1], self.width)

    def pad(self, vectors: Tensor) -> Tensor:
        """Append zeros to vectors (..., N), so that their length is N'; contiguous."""
        missing = self.width - vectors.shape[-1]
        return (F.pad(vectors, (0, missing)) if missing else vectors).contiguous()

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks. Before the first one of new groups, compute their keys and values."""
        number, count = 0, len(self.query)
        for group in range(0, len(self.source), self.groups):
            groups = slice(group, min(group + self.groups, len(self.source)))
            self._compute_keys(groups)
            for start in range(0, count, self.rows):
                rows = slice(start, min(start + self.rows, count))
                yield Block(number, groups, rows, first=start == 0, last=rows.stop == count)
                number += 1

    def buffer(self, index: int, rows: slice) -> Tensor:
        """Return memory (rows, G * O) for values of the current block, in the buffer number ``index``."""
        shape = (rows.stop - rows.start, len(self.key))
        return self._buffers[index, : shape[0] * shape[1]].view(shape)

    def scores(self, rows: slice) -> Tensor:
        """Compute the scores (rows, G * O) of the current block in buffer 0."""
        return torch.mm(self.query[rows], self.key.T, out=self.buffer(0, rows))

    def _compute_keys(self, groups: slice) -> None:
        part = self.source[groups]
        if part.dtype == self.query.dtype and part.shape[2] == self.width:
            self.channels = part
        else:
            self.channels = self._channels[: len(part)]
            self.channels[..., : part.shape[2]].copy_(part)
        count = len(part) * len(self.key_weight)
        self.key, self.value = self._keys_and_values[:, :count]
        project(self.key_weight, self.channels, self.key.unflatten(0, (len(part), -1)))
        project(self.value_weight, self.channels, self.value.unflatten(0, (len(part), -1)))


def _block_size(queries: int, groups: int, keys: int, like: Tensor) -> tuple[int, int]:
    """Return the numbers of queries and of groups of a block. On a CPU, a block has one group."""
    on_cpu = is_cpu(like.device)
    scores = (_CPU_BLOCK_BYTES if on_cpu else _ACCELERATOR_BLOCK_BYTES) // like.element_size()
    rows = min(queries, max(1, scores // keys))
    if on_cpu or rows < queries:
        return rows, 1
    most = max(1, min(groups, scores // (rows * keys)))
    return rows, -(-groups // -(-groups // most))  # equal parts


def project(weight: Tensor, channels: Tensor, out: Tensor) -> Tensor:
    """Multiply (O, D) with each of (G, D, N) in ``out`` (G, O, N), and return it."""
    if len(channels) == 1:
        torch.mm(weight, channels[0], out=out[0])
        return out
    return torch.bmm(weight.expand(len(channels), -1, -1), channels, out=out)
