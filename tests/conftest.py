"""Fixtures for all tests."""

import faulthandler
import gc
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from .helpers.golden import load_vectors

# the networks of the tests are tiny: a second thread costs more time than it saves
torch.set_num_threads(1)


def _begin_forked_process() -> None:
    """Keep forked processes from waiting forever.

    They never destroy objects of this process that nothing uses any more: the destructors of some wait for
    threads, which a forked process does not have. One that hangs nevertheless shows where, and ends.
    """
    gc.freeze()
    gc.enable()
    signal.alarm(240)  # seconds, less than the limit of a test in pyproject.toml


faulthandler.register(signal.SIGALRM, chain=True)
# hooks of other modules, which run first in the child, must not collect anything, either
os.register_at_fork(before=gc.disable, after_in_parent=gc.enable, after_in_child=_begin_forked_process)


def pytest_addoption(parser):
    """The device of the tests with the marker ``cuda``; see CONTRIBUTING.md."""
    device = os.environ.get('ALLSPARK_DEVICE', 'cpu')
    parser.addoption('--device', choices=['cpu', 'cuda'], default=device, help='default: %(default)s')
    parser.addoption('--tiny', action='store_true', help='without networks of published size, as on a CPU')


@pytest.fixture(autouse=True, scope='session')
def _fast_runners():
    """Leave out what MMEngine does at each start of a run, and what takes seconds.

    It asks the compilers for their versions, formats the config with YAPF, and collects garbage for each
    data set. Subprocesses do all this.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.runner.runner.collect_env', dict)
        for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):  # which one depends on the version
            patch.setattr(f'{module}.FormatCode', lambda text, **_: (text, True), raising=False)
        patch.setattr('mmengine.dataset.base_dataset.gc', SimpleNamespace(collect=lambda: 0))
        yield


@pytest.fixture
def golden() -> Callable[[str], dict]:
    """The function that loads a file of golden vectors by its name."""
    return load_vectors


@pytest.fixture(autouse=True)
def _seeds_and_default_scope():
    init_default_scope('mmseg')
    torch.manual_seed(0)
    np.random.seed(0)
