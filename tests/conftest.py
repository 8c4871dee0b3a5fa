"""Fixtures for all tests."""

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from .helpers.golden import load_vectors

# the networks of the tests are tiny: a second thread costs more time than it saves
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Exclude modules and collected tests from garbage collection.

    MMEngine collects garbage for each data set that it builds, which takes 0.3 s with these objects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def golden() -> Callable[[str], dict]:
    """The function that loads a file of golden vectors by its name."""
    return load_vectors


@pytest.fixture(autouse=True)
def _seeds_and_default_scope():
    init_default_scope('mmseg')
    torch.manual_seed(0)
    np.random.seed(0)
