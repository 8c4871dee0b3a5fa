"""Shared by all tests: where the golden vectors lie, and tiny networks."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

pytest.register_assert_rewrite('tests.method_contract')

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(os.environ.get('ALLSPARK_GOLDEN', ROOT.parent / 'shared' / 'golden'))


@pytest.fixture
def golden():
    """Load a file of golden vectors: name -> {key: tensor (numbers) or array (strings)}."""

    def load(name: str) -> dict:
        path = GOLDEN / f'{name}.npz'
        if not path.is_file():
            pytest.skip(f'golden vectors not found: {path} (set ALLSPARK_GOLDEN to their folder)')
        with np.load(path) as archive:
            return {
                key: torch.from_numpy(value) if value.dtype.kind in 'fiub' else value
                for key, value in archive.items()
            }

    return load


# tiny networks: a second thread costs more than it brings, far more when cores are shared
torch.set_num_threads(1)


def under(vectors: dict, prefix: str) -> dict:
    """Return the entries below a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in vectors.items() if key.startswith(prefix)}


def assert_close_to_largest(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str = ''):
    """Compare relative to the largest expected value, as the golden vectors' tolerances are given."""
    error = (actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
    assert error <= tolerance, f'{what}: {error:.2e} relative to the largest value, {tolerance:.0e} allowed'


@pytest.fixture(autouse=True)
def _seeded_and_scoped():
    init_default_scope('mmseg')  # what a config's default_scope does
    torch.manual_seed(0)
    np.random.seed(0)
