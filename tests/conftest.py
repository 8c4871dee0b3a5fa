"""Fixtures for all tests."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from .helpers.golden import load_vectors

# the networks of the tests are tiny: a second thread costs more time than it saves
torch.set_num_threads(1)


@pytest.fixture
def golden() -> Callable[[str], dict]:
    """The function that loads a file of golden vectors by its name."""
    return load_vectors


@pytest.fixture(autouse=True)
def _seeds_and_default_scope():
    init_default_scope('mmseg')
    torch.manual_seed(0)
    np.random.seed(0)
