"""The device of the tests in this folder. On a CPU, they are a rehearsal of the tests on a GPU."""

from collections.abc import Callable, Iterator

import pytest
import torch

from benchmarks.networks import tensor_float_32


@pytest.fixture
def device(request) -> Iterator[str]:
    """``--device``; TensorFloat-32 is off."""
    name = request.config.getoption('device')
    if name == 'cuda' and not torch.cuda.is_available():
        pytest.fail('--device is cuda, but PyTorch finds no CUDA device')
    with tensor_float_32(False):
        yield name


@pytest.fixture
def tiny(request, device) -> bool:
    """Whether to leave out what takes long on a CPU."""
    return device == 'cpu' or request.config.getoption('tiny')


@pytest.fixture
def report(device, capsys) -> Callable[[str], None]:
    """The function that prints a line, also without ``-s``; on a CPU, nothing is printed."""

    def write(text: str) -> None:
        if device != 'cpu':
            with capsys.disabled():
                print(f'\n  {text}', end='')

    return write
