"""Vectors of CSS, and the random inputs for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import to_array
from torch import Tensor

INTEGER_TYPES = (np.int8, np.uint8, np.int16, np.int32, np.int64)


def smallest_type(array: np.ndarray) -> np.ndarray:
    """Convert integers to the smallest type, booleans to uint8 and float64 arrays to float32."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind in 'iu':
        return next(
            array.astype(dtype) for dtype in INTEGER_TYPES if np.array_equal(array.astype(dtype), array)
        )
    if array.dtype == np.float64 and array.ndim:
        return array.astype(np.float32)
    return array


class Vectors(dict[str, np.ndarray]):
    """Arrays by key; no key is written twice."""

    def put(self, key: str, value: Any) -> None:
        """Add a value in the smallest type."""
        self.put_exact(key, smallest_type(to_array(value)))

    def put_all(self, prefix: str, **values: Any) -> None:
        """Add values under ``<prefix>.<name>`` in the smallest type."""
        for name, value in values.items():
            self.put(f'{prefix}.{name}', value)

    def put_exact(self, key: str, value: Any) -> None:
        """Add a copy of a value in its own type."""
        if key in self:
            raise KeyError(f'{key} is recorded twice')
        self[key] = np.array(value)


class Draws:
    """Random inputs from a generator of their own, apart from the global ones that the released code uses."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)

    def grid(self, *shape: int, scale: float = 1.0, parts: int = 512) -> Tensor:
        """Draw normal values rounded to multiples of 1 / ``parts``: short mantissas make a small file."""
        return torch.round(self.normal(*shape) * scale * parts) / parts

    def regions(self, n: int, height: int, width: int, classes: Sequence[int]) -> Tensor:
        """Draw label maps (N, H, W) of a few overlapping rectangles."""
        label = self.integers(0, len(classes), n, 1, 1).expand(n, height, width).clone()
        for i in range(n):
            for index in torch.randperm(len(classes), generator=self.generator).tolist():
                top = int(self.integers(0, max(height - 1, 1), 1))
                left = int(self.integers(0, max(width - 1, 1), 1))
                label[i, top : top + max(height // 2, 1), left : left + max(width // 2, 1)] = index
        return torch.tensor(classes)[label]
