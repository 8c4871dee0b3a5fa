"""The attention of the bottleneck, the memory and a compiled backbone on the device."""

import pytest
import torch

from allspark_mmseg.methods.allspark import AllSparkBottleneck, attention_blocks, fast_attention
from allspark_mmseg.methods.allspark.blocked_attention import blocked_attention
from allspark_mmseg.methods.allspark.channel_attention import channel_attention

from ..helpers.synchronization import no_waiting
from ..helpers.tiny_models import CROP, batch, behind_bottleneck, build_model, losses_in, tiny_segmentor

pytestmark = pytest.mark.cuda

# largest error relative to the largest value, of results and gradients
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.04, torch.float16: 0.01}
SIZES = [(40, 3, 16, 12, 9), (200, 5, 32, 24, 49)]  # queries, groups, keys, channels, positions
LARGE = (2048, 21, 1024, 512, 289)  # Pascal, crop 513, two labeled images


@pytest.fixture(autouse=True)
def _branches_of_an_accelerator(monkeypatch):
    """Also on a CPU. No map is small."""
    for module in (attention_blocks, fast_attention):
        monkeypatch.setattr(module, 'is_cpu', lambda device: False)
    monkeypatch.setattr(fast_attention, '_SMALL_MAP', 0)


def make_inputs(device, queries, groups, keys, channels, positions):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator).to(device)

    weights = (random(keys, channels) / channels**0.5 for _ in range(2))
    return [random(queries, positions), random(groups, channels, positions), *weights]


def results(function, given, direction):
    given = [each.detach().requires_grad_() for each in given]
    out = function(*given)
    (out * direction.to(out)).sum().backward()
    return [out.detach(), *(each.grad for each in given)]


def whole(query, source, key_weight, value_weight):
    """The plain formula."""
    key, value = ((weight @ source).flatten(0, 1) for weight in (key_weight, value_weight))
    return channel_attention(query[None, None], key[None, None], value[None, None])[0, 0]


def blocks(query, source, *weights):
    heads = (each[None] for each in weights)
    return fast_attention.fast_channel_attention(query[None, None], source[None], *heads)[0, 0]


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('block_bytes', [2**10, 2**26])
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_blocks_equal_the_formula(device, report, monkeypatch, dtype, block_bytes, sizes):
    monkeypatch.setattr(attention_blocks, '_ACCELERATOR_BLOCK_BYTES', block_bytes)
    compare(device, report, dtype, sizes)


@pytest.mark.parametrize('dtype', TOLERANCES)
def test_blocks_equal_the_formula_at_a_published_size(device, tiny, report, dtype):
    if tiny:
        pytest.skip('its map takes seconds on a CPU')
    compare(device, report, dtype, LARGE)


def compare(device, report, dtype, sizes):
    given = make_inputs(device, *sizes)
    direction = torch.randn(sizes[0], sizes[-1], device=device)
    found = results(blocks, [each.to(dtype) for each in given], direction)
    expected = results(whole, given if sizes == LARGE else [each.double() for each in given], direction)
    errors = [
        float((actual.double() - exact.double()).abs().max() / exact.double().abs().max())
        for actual, exact in zip(found, expected, strict=True)
    ]
    shown = ', '.join(f'{error:.1e}' for error in errors)
    report(f'attention {sizes}, {dtype}: errors of output and gradients {shown}')
    assert max(errors) <= TOLERANCES[dtype] * (3 if sizes == LARGE else 1), shown


@pytest.mark.parametrize('dtype', TOLERANCES)
def test_both_passes_draw_the_same_dropout(device, dtype):
    """With a fixed mask, the output is linear in the weight of the values."""
    query, source, key_weight, value_weight = (each.to(dtype) for each in make_inputs(device, *SIZES[0]))

    def attend(weight):
        torch.manual_seed(3)
        return blocked_attention(query, source, key_weight, weight, 0.3)

    direction = torch.randn(query.shape, device=device)
    leaf = value_weight.clone().requires_grad_()
    (attend(leaf).float() * direction).sum().backward()
    linear = (leaf.grad.float() * value_weight.float()).sum()
    total = (attend(value_weight).float() * direction).sum()
    scale = (attend(value_weight).float() * direction).abs().sum()
    assert abs(linear - total) <= TOLERANCES[dtype] * scale
    torch.manual_seed(4)
    other = blocked_attention(query, source, key_weight, value_weight, 0.3)
    assert not torch.equal(attend(value_weight), other)
    assert torch.equal(attend(value_weight), attend(value_weight))


@pytest.mark.parametrize('dropout', [0.0, 0.3])
def test_the_bottleneck_waits_in_neither_pass(device, dropout):
    net = AllSparkBottleneck(8, 3, crop_size=97, dropout=dropout).to(device).train()
    feature = torch.randn(4, 8, 4, 4, device=device, requires_grad=True)
    logits = torch.randn(2, 3, 13, 13, device=device)
    with no_waiting(device):
        net.forward_semi(feature, 2, logits, read_memory=True).sum().backward()
    assert torch.isfinite(feature.grad).all()


def test_a_compiled_backbone_gives_the_same_loss(device):
    """By Inductor on a GPU. On a CPU, that takes a minute, so there the graph of a part runs as it is."""
    step = batch()
    inputs = {view: images.to(device) for view, images in step[0].items()}
    samples = {view: [sample.to(device) for sample in each] for view, each in step[1].items()}
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        segmentor = behind_bottleneck(tiny_segmentor())
        model = build_model(dict(type='allspark_mmseg.AllSpark', segmentor=segmentor)).to(device).train()
        if compiled:
            backbone = model.student.backbone
            backbone.layers[0][0].compile(backend='eager') if device == 'cpu' else backbone.compile()
        loss = losses_in(model.loss(inputs, samples))
        loss.backward()
        gradient = model.student.backbone.layers[0][0].projection.weight.grad
        found.append((loss.detach(), gradient))
    for plain, of_graph in zip(*found, strict=True):
        torch.testing.assert_close(of_graph, plain, rtol=1e-3, atol=1e-5)
    assert inputs['labeled'].shape[2:] == CROP
