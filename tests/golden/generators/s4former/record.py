"""Vectors of S4Former, and the random inputs for them."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from common import to_array
from torch import Tensor

T = TypeVar('T')
INTEGER_TYPES = (np.uint8, np.int16, np.int64)


def holds(dtype: type, array: np.ndarray) -> bool:
    """Return whether an integer type holds all values of an array."""
    limits = np.iinfo(dtype)
    return array.size == 0 or bool(limits.min <= array.min() and array.max() <= limits.max)


def smallest_type(array: np.ndarray) -> np.ndarray:
    """Convert to the smallest type that holds the values exactly.

    The types are uint8, int16 and int64 for integers and booleans, float32 and float64 for floats.
    """
    if array.dtype.kind == 'b':
        return array.astype(np.uint8)
    if array.dtype.kind in 'iu':
        return array.astype(next(dtype for dtype in INTEGER_TYPES if holds(dtype, array)))
    if array.dtype.kind == 'f':
        single = array.astype(np.float32)
        exact = np.array_equal(single.astype(np.float64), array)
        return single if exact else array.astype(np.float64)
    return array


class Vectors(dict[str, np.ndarray]):
    """Arrays by key; no key is written twice."""

    def put(self, key: str, value: Any) -> None:
        """Add a copy of a value in the smallest type that holds it exactly."""
        if key in self:
            raise KeyError(f'{key} is recorded twice')
        self[key] = smallest_type(to_array(value)).copy()

    def put_all(self, prefix: str, **values: Any) -> None:
        """Add values under ``<prefix>.<name>``."""
        for name, value in values.items():
            self.put(f'{prefix}.{name}', value)


def seed_global_generators(seed: int) -> None:
    """Seed NumPy and PyTorch, from which the released code draws."""
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class Draws:
    """Random inputs from a generator of their own, apart from the global ones."""

    def __init__(self, seed: int):
        self.seed = seed
        self.random = np.random.RandomState(seed)

    def grid(self, *shape: int, scale: float = 1.0, step: int = 256) -> Tensor:
        """Draw normal values rounded to multiples of 1 / ``step``: short mantissas make a small file."""
        return torch.from_numpy(np.round(self.random.standard_normal(shape) * scale * step) / step)

    def blocks(self, n: int, channels: int, height: int, width: int, side: int = 4) -> Tensor:
        """Draw images (N, C, H, W) of squares of one color."""
        small = self.grid(n, channels, height // side, width // side, step=64)
        return small.repeat_interleave(side, 2).repeat_interleave(side, 3)

    def integers(self, high: int, *shape: int, low: int = 0) -> Tensor:
        """Draw integers from ``low`` to ``high`` - 1."""
        return torch.from_numpy(self.random.randint(low, high, shape))

    def whole_numbers(self, high: int, *shape: int, low: int = 0) -> Tensor:
        """Draw integers as float64."""
        return self.integers(high, *shape, low=low).double()

    def chance(self, share: float, *shape: int) -> Tensor:
        """Draw booleans that are true with probability ``share``."""
        return torch.from_numpy(self.random.rand(*shape) < share)

    def distinct(self, side: int, parts: int = 256) -> Tensor:
        """Draw a map (side, side) of different multiples of 1 / ``parts``, from 0 to 1."""
        return torch.from_numpy(self.random.permutation(parts + 1)[: side * side].reshape(side, side) / parts)

    def first(self, run: Callable[[], T], is_suitable: Callable[[T], bool], what: str) -> T:
        """Return the first suitable result of ``run`` in a fixed list of seeds of the global generators.

        Unsuitable results have ties, or a permutation that cannot show an error.
        """
        for n in range(500):
            seed_global_generators(self.seed * 1000 + n)
            result = run()
            if is_suitable(result):
                return result
        raise RuntimeError(f'no suitable draw for {what}; use another seed')


def is_identity(permutation: Tensor) -> bool:
    """Return whether a permutation (K,) moves nothing."""
    return bool((permutation == torch.arange(len(permutation))).all())


def differs_from_inverse(permutation: Tensor) -> bool:
    """Return whether a permutation (K,) is not its own inverse."""
    return len(permutation) > 0 and bool((torch.argsort(permutation) != permutation).any())
