"""Seeds of training images: the random numbers of an image depend on its draw alone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Sampler


class Draw(int):
    """An index of a data set with the key of its draw.

    A sampler yields draws. They behave like integers, and survive the pickling on the way to a worker.

    Attributes:
        key (tuple[int, ...]): Nonnegative numbers, for example (seed, stream, epoch, position).
    """

    key: tuple[int, ...]

    def __new__(cls, index: int, key: tuple[int, ...]) -> 'Draw':
        """Make a draw.

        Args:
            index (int): Index in the data set.
            key (tuple[int, ...]): The key.

        Returns:
            Draw: The draw.
        """
        draw = super().__new__(cls, index)
        draw.key = key
        return draw

    def __reduce__(self) -> tuple:
        return Draw, (int(self), self.key)


def seed_generators(*key: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch (CPU) with a function of a key.

    Args:
        *key (int): Nonnegative numbers.
    """
    words = np.random.SeedSequence(key).generate_state(8)
    random.seed(words[:4].tobytes())
    np.random.seed(words[4:6])
    # not torch.manual_seed, which also seeds the generators of the accelerators
    torch.default_generator.manual_seed(int(words[6]) << 31 | int(words[7]) >> 1)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Run a block with generators that are seeded by a key, and restore their states afterwards.

    Stock transforms use all three generators: Python's, NumPy's and PyTorch's.

    Args:
        *key (int): Nonnegative numbers.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_generators(*key)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class DrawSampler(Sampler):
    """Makes the indices of another sampler :class:`Draw` objects, and can begin at a later step.

    It is for MMEngine's ``DefaultSampler`` and ``InfiniteSampler``. :class:`DualStreamSampler` yields draws.

    Args:
        sampler (Sampler): The sampler. Its order must be a function of its ``seed`` and ``epoch``, and
            process r of W must get the indices r, r + W, ... of it.
        dataloader (DataLoader): The data loader, for its batch size and its length.
    """

    def __init__(self, sampler: Any, dataloader: DataLoader) -> None:
        self.sampler = sampler
        self.dataloader = dataloader
        self.rank, self.world_size = get_dist_info()
        self.first = 0

    @property
    def epoch(self) -> int:
        """The epoch of the sampler; 0 if it does not count epochs."""
        return getattr(self.sampler, 'epoch', 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, counted from 0."""
        self.first = 0
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def set_position(self, step: int) -> None:
        """Start at a step of the run, counted from 0, without loading the images before it."""
        counts_epochs = hasattr(self.sampler, 'set_epoch') and hasattr(self.sampler, 'epoch')
        epoch, first = divmod(step, len(self.dataloader)) if counts_epochs else (0, step)
        self.set_epoch(epoch)
        self.first = first * (self.dataloader.batch_size or 1)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Draw]:
        first, self.first = self.first, 0
        seed = getattr(self.sampler, 'seed', 0)
        for number, index in enumerate(self.sampler):
            if number >= first:
                yield Draw(index, (seed, self.epoch, 0, number * self.world_size + self.rank))


def draw_from(dataloader: DataLoader) -> None:
    """Let the sampler of a data loader yield :class:`Draw` objects.

    Args:
        dataloader (DataLoader): The data loader. A custom batch sampler is left as it is.
    """
    batches: Any = dataloader.batch_sampler
    sampler = getattr(batches, 'sampler', None)
    if sampler is not None and not hasattr(sampler, 'set_position'):
        batches.sampler = DrawSampler(sampler, dataloader)
