"""Random numbers of a training image that depend on its draw alone, not on the history of a worker."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


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
