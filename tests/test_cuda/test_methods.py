"""Every method on the device, with and without mixed precision, and without waiting for the device."""

import pytest
import torch
from mmseg.structures import SegDataSample

from ..helpers.method_contract import MethodContract
from ..helpers.synchronization import no_waiting
from ..helpers.tiny_models import CLASSES, gradients, losses_in
from ..test_methods import (
    test_allspark,
    test_css,
    test_fixmatch,
    test_mean_teacher,
    test_s4former,
    test_self_training,
    test_unimatch,
    test_unimatch_v2,
)

pytestmark = pytest.mark.cuda

MODULES = (
    test_allspark, test_css, test_fixmatch, test_mean_teacher, test_s4former, test_self_training,
    test_unimatch, test_unimatch_v2,
)  # fmt: skip
CONTRACTS = {
    name.removeprefix('Test'): value
    for module in MODULES
    for name, value in vars(module).items()
    if name.startswith('Test') and issubclass(value, MethodContract)
}
DTYPES = {'fp32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}


@pytest.fixture(params=CONTRACTS)
def contract(request) -> MethodContract:
    return CONTRACTS[request.param]()


def build(contract: MethodContract, device: str, **overrides) -> torch.nn.Module:
    model = contract.build(**overrides).to(device)
    if hasattr(model, 'reads_memory'):
        model.reads_memory = True
    return model


def batch_on(contract: MethodContract, device: str) -> tuple[dict, dict]:
    inputs, data_samples = contract.batch()
    return (
        {view: images.to(device) for view, images in inputs.items()},
        {view: [sample.to(device) for sample in samples] for view, samples in data_samples.items()},
    )


def test_all_methods_are_here():
    assert {'AllSpark', 'CSSBaseline', 'CSSCross', 'CSSMix', 'FixMatch', 'MeanTeacher', 'S4Former'} < set(
        CONTRACTS
    )
    assert {'SelfTraining', 'UniMatch', 'UniMatchV2'} < set(CONTRACTS)


def pytest_generate_tests(metafunc):
    """On a CPU, MethodContract tests bfloat16."""
    if 'precision' in metafunc.fixturenames:
        on_cpu = metafunc.config.getoption('device') == 'cpu'
        metafunc.parametrize('precision', ['fp32'] if on_cpu else DTYPES)


def test_two_steps_train_the_student(contract, device, precision):
    dtype = DTYPES[precision]
    model = build(contract, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10, enabled=dtype is torch.float16)
    before = {name: value.clone() for name, value in model.student.named_parameters()}
    for _ in range(2):
        with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
            entries = model.loss(*batch_on(contract, device))
        for name, value in entries.items():
            assert torch.isfinite(value).all(), name
            assert 'loss' not in name or value.dtype == torch.float32, name
            assert value.device.type == device, name
        optimizer.zero_grad()
        scaler.scale(losses_in(entries)).backward()
        scaler.unscale_(optimizer)
        found = gradients(model)
        assert all(name.startswith('student.') for name in found)
        assert all(torch.isfinite(gradient).all() for gradient in found.values())
        scaler.step(optimizer)
        scaler.update()
        if model.teacher is not None:
            model.teacher.update_parameters(model.student)
    after = dict(model.student.named_parameters())
    for part in ('backbone.', 'decode_head.'):
        moved = [name for name in before if name.startswith(part) and not before[name].equal(after[name])]
        assert moved, part


def test_a_step_does_not_wait_for_the_device(contract, device, precision):
    """The first step may: it reads the state that a checkpoint could have changed."""
    dtype = DTYPES[precision]
    model = build(contract, device)
    steps = [batch_on(contract, device) for _ in range(2)]
    loss = losses_in(model.loss(*steps[0]))
    if model.teacher is not None:
        model.teacher.update_parameters(model.student)
    loss.backward()
    with no_waiting(device):
        with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
            loss = losses_in(model.loss(*steps[1]))
        if model.teacher is not None:
            model.teacher.update_parameters(model.student)
    loss.backward()


@pytest.mark.parametrize('kind', ['FreeMatch', 'SoftMatch', 'ClassBalanced'])
def test_an_adaptive_threshold_does_not_wait_and_is_deterministic(kind, device):
    contract = CONTRACTS['FixMatch']()
    model = build(contract, device, threshold=dict(type=kind))
    logits = torch.randn(2, CLASSES, 33, 33, device=device)
    image_mask = torch.ones(2, 33, 33, dtype=torch.bool, device=device)
    model.threshold(logits, image_mask)
    torch.use_deterministic_algorithms(True)
    try:
        with no_waiting(device):
            judged = model.threshold(logits, image_mask)
    finally:
        torch.use_deterministic_algorithms(False)
    on_cpu = type(model.threshold)(CLASSES)
    for _ in range(2):
        expected = on_cpu(logits.cpu(), image_mask.cpu())
    assert (judged.float().cpu() - expected.float()).abs().gt(1e-4).float().mean() < 1e-3, (
        'apart from rounding'
    )


def test_a_state_predicts_the_same_on_both_devices(contract, device):
    """After a step on the device, its state is loaded on the CPU."""
    model = build(contract, device)
    model.loss(*batch_on(contract, device))
    on_cpu = contract.build()
    on_cpu.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    image = torch.randn(2, 3, 70, 91)
    with torch.no_grad():
        found = model.eval().predict(image.to(device))
        expected = on_cpu.eval().predict(image)
    for actual, reference in zip(found, expected, strict=True):
        logits, correct = actual.seg_logits.data.cpu(), reference.seg_logits.data
        assert (logits - correct).abs().max() <= 1e-4 * correct.abs().max()


@torch.no_grad()
def test_raw_images_go_through_test_step(contract, device):
    model = build(contract, device).eval()
    size = (70, 91)
    image = torch.randint(256, (3, *size), dtype=torch.uint8)
    sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
    (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
    assert result.pred_sem_seg.data.shape == (1, *size)
    assert result.seg_logits.data.device.type == device
    assert 0 <= int(result.pred_sem_seg.data.min()) <= int(result.pred_sem_seg.data.max()) < CLASSES
