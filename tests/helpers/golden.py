"""Golden vectors: where they are, how they are read, and how results are compared with them."""

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / 'golden'
GOLDEN = Path(os.environ.get('ALLSPARK_GOLDEN', DEFAULT_FOLDER))


def golden_file(name: str, folder: Path = GOLDEN) -> Path:
    """Return the path of a file of the golden vectors.

    Args:
        name: Name of the file, with its suffix.
        folder: Folder of the golden vectors.

    Raises:
        FileNotFoundError: If the folder has no such file. Golden tests are never skipped.
    """
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} is missing; restore tests/golden or set ALLSPARK_GOLDEN to a folder with golden vectors'
        )
    return path


def load_vectors(name: str, folder: Path = GOLDEN) -> dict:
    """Load ``<name>.npz`` as a dict: numbers become tensors, strings stay arrays."""
    with np.load(golden_file(f'{name}.npz', folder)) as archive:
        return {
            key: torch.from_numpy(value) if value.dtype.kind in 'fiub' else value
            for key, value in archive.items()
        }


def load_rule(folder: Path = GOLDEN) -> ModuleType:
    """Load the ``rule_state.py`` that made the network states of the vectors in ``folder``."""
    spec = importlib.util.spec_from_file_location('rule_state', golden_file('rule_state.py', folder))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recorded_network(vectors: dict) -> tuple[dict[str, Tensor], Tensor]:
    """Return the state dict and the image (1, 3, H, W) of the vectors of a whole network."""
    rule = load_rule()
    spec = {key: json.loads(shape) for key, shape in zip(vectors['keys'], vectors['shapes'], strict=True)}
    state = {key: torch.from_numpy(value) for key, value in rule.rule_state(spec).items()}
    size = vectors['image_size'].tolist()
    return state, torch.from_numpy(rule.rule_tensor('image', (1, 3, *size)))


def strip_prefix(vectors: dict, prefix: str) -> dict:
    """Return the entries whose key starts with ``prefix``, with the prefix removed from their keys."""
    return {key.removeprefix(prefix): value for key, value in vectors.items() if key.startswith(prefix)}


def assert_close_to_largest(actual: Tensor, expected: Tensor, tolerance: float, what: str = '') -> None:
    """Assert that the largest error is at most ``tolerance`` times the largest expected magnitude."""
    error = (actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
    assert error <= tolerance, f'{what}: {error:.2e} relative to the largest value, {tolerance:.0e} allowed'
