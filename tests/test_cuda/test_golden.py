"""The golden tests on the device: the tests of the CPU, with models and vectors on the device.

In float32 without TensorFloat-32, the errors on a GPU may be 30 times those that are allowed on a CPU,
because its sums have another order. The errors with TensorFloat-32 and with bfloat16 are only printed.
"""

from contextlib import nullcontext

import pytest
import torch

from benchmarks.networks import tensor_float_32

from .. import test_dpt_dinov2, test_unimatch_networks
from ..helpers import css_golden, golden
from ..test_methods import test_allspark_golden, test_css_golden, test_s4former_golden, test_unimatch_golden

pytestmark = pytest.mark.cuda

FACTOR = 30
MODULES = (
    css_golden, test_allspark_golden, test_css_golden, test_dpt_dinov2, test_s4former_golden,
    test_unimatch_golden, test_unimatch_networks,
)  # fmt: skip


class Comparisons:
    """Comparisons of tensors with a tolerance times ``factor``. It remembers the largest relative error."""

    def __init__(self, factor: float):
        self.factor = factor
        self.largest = 0.0
        self.count = 0
        self.assert_close_of_torch = torch.testing.assert_close

    def _remember(self, actual, expected) -> None:
        self.count += 1
        if isinstance(actual, torch.Tensor) and actual.is_floating_point() and actual.numel():
            error = (actual.double() - expected.double()).abs().max()
            self.largest = max(self.largest, float(error / expected.double().abs().max().clamp(min=1e-12)))

    def assert_close(self, actual, expected, *, rtol=1.3e-6, atol=1e-5, msg=None) -> None:
        self._remember(actual, expected)
        self.assert_close_of_torch(
            actual, expected, rtol=rtol * self.factor, atol=atol * self.factor, msg=msg, check_dtype=False
        )

    def assert_close_to_largest(self, actual, expected, tolerance, what='') -> None:
        self._remember(actual, expected)
        golden.assert_close_to_largest(actual, expected, tolerance * self.factor, what)


def pytest_generate_tests(metafunc):
    """On a CPU, there are no errors of other precisions to print."""
    if 'on_device' in metafunc.fixturenames:
        on_cpu = metafunc.config.getoption('device') == 'cpu'
        metafunc.parametrize('on_device', ['fp32'] if on_cpu else ['fp32', 'tf32', 'bf16'], indirect=True)


@pytest.fixture
def on_device(request, device, monkeypatch, report):
    """The function that runs a golden test on the device; with TF32 and bf16, it only prints the error."""
    exact = request.param == 'fp32'
    comparisons = Comparisons((1 if device == 'cpu' else FACTOR) if exact else float('inf'))

    def recorded_network(vectors):
        state, image = golden.recorded_network(vectors)
        return state, image.to(device)

    replaced = dict(
        assert_close_to_largest=comparisons.assert_close_to_largest, recorded_network=recorded_network
    )
    monkeypatch.setattr(torch.testing, 'assert_close', comparisons.assert_close)
    for module in MODULES:
        for name, replacement in replaced.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, replacement)

    def load(name):
        return move(golden.load_vectors(name), device)

    def run(test, *arguments):
        half = torch.autocast(device, torch.bfloat16) if request.param == 'bf16' else nullcontext()
        try:
            with torch.device(device), half, tensor_float_32(request.param == 'tf32'):
                test(load, *arguments)
        except AssertionError:
            if exact:
                raise
        name = ', '.join([test.__name__, *(text for text in arguments if isinstance(text, str))])
        report(f'{name}, {request.param}: largest relative error {comparisons.largest:.1e}')
        assert comparisons.count or not exact

    return run


def move(vectors: dict, device: str) -> dict:
    return {key: value.to(device) if torch.is_tensor(value) else value for key, value in vectors.items()}


def test_memory(device):
    with torch.device(device):
        test_allspark_golden.test_semantic_memory_matches_the_reference(
            lambda name: move(golden.load_vectors(name), device)
        )


@pytest.mark.parametrize('name', ['allspark_bottleneck', 'allspark_bottleneck_narrow'])
@pytest.mark.parametrize('phase', ['warmup', 'memory'])
def test_bottleneck(on_device, name, phase):
    def outputs_and_gradients(load, name, phase):
        test_allspark_golden.test_bottleneck_outputs_and_gradients_match_the_reference(load(name), phase)

    on_device(outputs_and_gradients, name, phase)


@pytest.mark.parametrize('name', ['allspark_bottleneck', 'allspark_bottleneck_narrow'])
def test_bottleneck_predictions(on_device, name):
    on_device(lambda load: test_allspark_golden.test_bottleneck_predictions_match_the_reference(load(name)))


def test_allspark_trains_four_steps(on_device):
    on_device(test_allspark_golden.test_four_training_steps_match_the_reference)


@pytest.mark.parametrize('name', ['mix.0', 'cross.1', 'baseline.0'])
def test_css_step(on_device, name):
    on_device(test_css_golden.test_a_step_matches_the_release, name)


@pytest.mark.parametrize('name', test_unimatch_golden.METHODS)
def test_unimatch_step(on_device, name):
    on_device(test_unimatch_golden.test_a_step_is_that_of_the_released_loop, name)


def test_s4former_step(on_device):
    """In float64."""
    on_device(test_s4former_golden.test_a_step_with_cutmix_matches_the_release, False)


NETWORKS = [
    ('allspark_pascal_mit_b2', 513), ('allspark_cityscapes_mit_b3', 801), ('allspark_pascal_mit_b5', 513)
]  # fmt: skip


@pytest.mark.parametrize('name, crop', NETWORKS)
def test_allspark_networks(on_device, tiny, name, crop):
    if tiny:
        pytest.skip('a network of published size takes seconds on a CPU')
    on_device(test_allspark_golden.test_networks_of_published_size_match_the_reference, name, crop)


@pytest.mark.parametrize('name', ['resnet101', 'xception'])
def test_deeplab_networks(on_device, tiny, name):
    if tiny:
        pytest.skip('a network of published size takes seconds on a CPU')
    on_device(test_unimatch_networks.test_network_of_real_size_gives_the_released_logits, name)


@pytest.mark.parametrize('name, size', [('small', 's'), ('base', 'b')])
def test_dinov2_networks(on_device, tiny, name, size):
    if tiny:
        pytest.skip('a network of published size takes seconds on a CPU')
    on_device(test_dpt_dinov2.test_network_of_real_size_gives_the_released_logits, name, size)
