"""The plain bottleneck against the reference's vectors, and the package's against the plain one."""

import pytest
import torch
from torch import nn

from allspark_mmseg.converters.allspark import bottleneck_to_mmseg
from allspark_mmseg.methods.allspark import AllSparkBottleneck, SemanticMemory
from benchmarks.plain_bottleneck import PlainBottleneck, plain_memory_update
from tests.helpers.golden import assert_close_to_largest, strip_prefix


def test_memory_update_equals_the_reference(golden):
    vectors = golden('semantic_memory')
    rows, pointer = vectors['start.kv_queue'].clone(), vectors['start.queue_ptr'].clone()
    steps = sum(key.endswith('.emb') for key in vectors)
    for t in range(steps):
        plain_memory_update(rows, pointer, vectors[f'{t}.emb'][None], vectors[f'{t}.cls'][None])
        assert torch.equal(rows, vectors[f'{t}.kv_queue']), t
        assert torch.equal(pointer, vectors[f'{t}.queue_ptr']), t
    assert steps > 0


@pytest.fixture(params=['allspark_bottleneck', 'allspark_bottleneck_narrow'])
def vectors(request, golden):
    return golden(request.param)


def from_vectors(vectors: dict) -> PlainBottleneck:
    init = strip_prefix(vectors, 'init.')
    num_classes, channels, _ = init['attn.kv_queue'].shape
    in_channels, *size = vectors['x'].shape[1:]
    plain = PlainBottleneck(
        in_channels,
        num_classes,
        crop_size=tuple(32 * side for side in size),
        channels=channels,
        num_heads=init['attn.q_u.weight'].shape[0] // channels,
        dropout=0.0,
    )
    plain.load_state_dict(
        {**bottleneck_to_mmseg(init), 'memory.written': torch.zeros(num_classes, dtype=torch.int64)}
    )
    return plain


@pytest.mark.parametrize('phase', ['warmup', 'memory'])
def test_training_equals_the_reference(vectors, phase):
    expected = strip_prefix(vectors, f'{phase}.')
    plain = from_vectors(vectors).train()
    x = vectors['x'].clone().requires_grad_()
    pseudo_logits = vectors['pseudo_logits']
    y = plain.forward_semi(x, len(x) - len(pseudo_logits), pseudo_logits, read_memory=phase == 'memory')
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()

    assert_close_to_largest(y, expected['y'], 1e-5, 'y')
    assert_close_to_largest(x.grad, expected['grad_x'], 1e-5, 'grad_x')
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters()}
    official = bottleneck_to_mmseg(strip_prefix(expected, 'grad.'))
    assert set(official) == set(gradients)
    for name, gradient in official.items():
        assert_close_to_largest(gradients[name], gradient, 1e-5, name)
    assert_close_to_largest(plain.memory.rows, expected['kv_queue'], 1e-5, 'memory')
    assert torch.equal(plain.memory.pointer, expected['queue_ptr'])


@torch.no_grad()
def test_evaluation_equals_the_reference(vectors):
    plain = from_vectors(vectors).eval()
    x = vectors['x'][:2]
    assert_close_to_largest(plain(x), vectors['eval.batch2'], 1e-5, 'whole batch as keys')
    alone = plain(x, per_image=True)[:1]
    assert_close_to_largest(alone, vectors['eval.single0'], 1e-5, 'own channels as keys')


def pair(in_channels: int, num_classes: int, **arguments) -> tuple[AllSparkBottleneck, PlainBottleneck]:
    """Both bottlenecks with the same state, in training."""
    ours = AllSparkBottleneck(in_channels, num_classes, **arguments)
    with torch.no_grad():  # affine layer norms away from where they start
        for norm in (ours.norm_in, ours.norm_out):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
    plain = PlainBottleneck(in_channels, num_classes, **arguments)
    plain.load_state_dict(ours.state_dict())
    return ours.train(), plain.train()


# in_channels, channels, heads, classes, map, labeled, unlabeled
SIZES = [
    (6, 6, 1, 2, (1, 2), 1, 1),
    (8, 8, 2, 3, (2, 3), 1, 2),
    (12, 20, 3, 6, (4, 4), 3, 1),
    (24, 16, 2, 1, (5, 3), 2, 2),
    (32, 32, 4, 5, (7, 7), 2, 3),
    (16, 40, 2, 81, (3, 5), 4, 4),
    (96, 96, 2, 21, (9, 9), 3, 2),
]


@pytest.mark.parametrize('read_memory', [False, True], ids=['warmup', 'memory'])
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_package_equals_plain(sizes, read_memory):
    in_channels, channels, heads, classes, size, labeled, unlabeled = sizes
    ours, plain = pair(
        in_channels,
        classes,
        crop_size=tuple(32 * side for side in size),
        channels=channels,
        num_heads=heads,
        dropout=0.0,
    )
    feature = torch.randn(labeled + unlabeled, in_channels, *size)
    direction = torch.randn_like(feature)
    logits = [torch.randn(unlabeled, classes, 4 * size[0] + 1, 6 * size[1]) for _ in range(2)]
    found = {}
    for net in (ours, plain):
        net.forward_semi(feature, labeled, logits[0], read_memory=read_memory)  # the ring has begun
        x = feature.clone().requires_grad_()
        y = net.forward_semi(x, labeled, logits[1], read_memory=read_memory)
        y.backward(direction)
        gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
        found[net] = {'y': y, 'grad_x': x.grad, **gradients}
    for name, expected in found[plain].items():
        assert_close_to_largest(found[ours][name], expected, 1e-5, name)
    assert_close_to_largest(ours.memory.rows, plain.memory.rows, 1e-5, 'memory')
    for name in ('pointer', 'written'):
        assert torch.equal(getattr(ours.memory, name), getattr(plain.memory, name)), name
    with torch.no_grad():
        for per_image in (False, True):
            outputs = [net.eval()(feature, per_image=per_image) for net in (ours, plain)]
            assert_close_to_largest(*outputs, 1e-5, f'evaluation, per_image={per_image}')


def test_memory_update_equals_the_package():
    memory = SemanticMemory(4, 10, 3)
    rows, pointer = memory.rows.clone(), memory.pointer.clone()
    for _ in range(5):
        tokens, classes = torch.randn(3, 3, 10), torch.randint(3, (3, 10))
        memory.update(tokens, classes)
        plain_memory_update(rows, pointer, tokens, classes)
        assert torch.equal(memory.rows, rows)
        assert torch.equal(memory.pointer, pointer)


COPIES, CHANNELS, CLASSES, SIDE = 6000, 8, 2, 2


def draws(net: nn.Module, feature: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both streams' attention for copies of one labeled and one unlabeled image: each copy is one draw."""
    both = torch.cat([feature[:1].expand(COPIES, -1, -1, -1), feature[1:].expand(COPIES, -1, -1, -1)])
    # gradients stay enabled: without them the package attends by another kernel
    out = net.forward_semi(both, COPIES, logits.expand(COPIES, -1, -1, -1), read_memory=True).detach()
    return out.flatten(2).transpose(1, 2).chunk(2)  # each (COPIES, N, D)


def spread(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean variance of an element, and that of what the output's own dropout leaves alone.

    All D outputs of a position are equal before that last dropout, which drops each by itself: the covariance
    of two halves of them is the variance that dropout on the attention weights makes.
    """
    centered = samples - samples.mean(dim=0)
    first, second = (half.mean(dim=-1) for half in centered.chunk(2, dim=-1))
    return centered.var(dim=0).mean(), (first * second).mean()


def test_dropout_keeps_the_mean_and_has_the_variance_of_the_plain_one():
    arguments = dict(crop_size=32 * SIDE, num_heads=2)
    nets = pair(CHANNELS, CLASSES, **arguments, dropout=0.3)
    exact = PlainBottleneck(CHANNELS, CLASSES, **arguments, dropout=0.0)
    with torch.no_grad():
        for name in ('labeled_attention', 'unlabeled_attention'):
            weight = nets[0].get_parameter(f'{name}.out.weight')
            weight.copy_(weight[0].expand_as(weight).clone())
    for net in (nets[1], exact):
        net.load_state_dict(nets[0].state_dict())
    for net in (*nets, exact):  # what remains is linear in the attention weights
        net.norm_out = net.map_out = nn.Identity()
    feature = torch.randn(2, CHANNELS, SIDE, SIDE)
    logits = torch.randn(1, CLASSES, 8, 8)
    expected = draws(exact.train(), feature, logits)
    ours, plain = (draws(net, feature, logits) for net in nets)
    for stream in (0, 1):
        for samples in (ours[stream], plain[stream]):
            error = samples.mean(dim=0) - expected[stream][0]
            assert (error.abs() / samples.std(dim=0) * COPIES**0.5).max() < 4.5
        for found, reference in zip(spread(ours[stream]), spread(plain[stream]), strict=True):
            torch.testing.assert_close(found, reference, rtol=0.08, atol=0)


def test_gradients_pass_through_the_mask_that_the_forward_pass_drew():
    ours, _ = pair(CHANNELS, CLASSES, crop_size=32 * SIDE, num_heads=2, dropout=0.3)
    feature, logits = torch.randn(4, CHANNELS, SIDE, SIDE), torch.randn(2, CLASSES, 8, 8)
    direction, weights, step = torch.randn_like(feature), torch.randn_like(feature), 1e-2

    def value(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(7)
        # in warm-up, where the keys carry gradient too
        return (ours.forward_semi(x, 2, logits, read_memory=False) * weights).double().sum()

    x = feature.clone().requires_grad_()
    value(x).backward()
    # gradients stay enabled here, too: the same kernel, so the same seed drops the same weights
    slope = (value(feature + step * direction) - value(feature - step * direction)).detach() / (2 * step)
    torch.testing.assert_close((x.grad * direction).double().sum(), slope, rtol=5e-3, atol=0)
