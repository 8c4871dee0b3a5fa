"""The AllSpark bottleneck: grouping, streams, memory and arguments."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allspark_mmseg.methods.allspark import AllSparkBottleneck, group_channels

from ..helpers.naive_memory import NaiveMemory
from ..helpers.ranks import on_two_ranks

CHANNELS, CLASSES, SIZE = 6, 3, (2, 3)


def bottleneck(**overrides) -> AllSparkBottleneck:
    arguments = dict(crop_size=(64, 96), channels=8, num_heads=2, dropout=0.0) | overrides
    return AllSparkBottleneck(CHANNELS, CLASSES, **arguments)


def semi_input(labeled: int = 1, unlabeled: int = 2) -> tuple[torch.Tensor, int, torch.Tensor]:
    return torch.randn(labeled + unlabeled, CHANNELS, *SIZE), labeled, torch.randn(unlabeled, CLASSES, 16, 24)


def naive_resize(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, align_corners False, without antialiasing."""
    out = np.empty(size)
    for y in range(size[0]):
        for x in range(size[1]):
            corners = []
            for position, target, source in ((y, size[0], plane.shape[0]), (x, size[1], plane.shape[1])):
                place = max((position + 0.5) * source / target - 0.5, 0.0)
                low = int(place)
                corners.append((low, min(low + 1, source - 1), place - low))
            (top, bottom, v), (left, right, h) = corners
            out[y, x] = (1 - v) * ((1 - h) * plane[top, left] + h * plane[top, right]) + v * (
                (1 - h) * plane[bottom, left] + h * plane[bottom, right]
            )
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(2, 9), st.integers(2, 9), st.integers(0, 2**31))
def test_grouping_equals_the_formula(num_classes, width, height_in, width_in, seed):
    torch.manual_seed(seed)
    logits = torch.randn(2, num_classes, height_in, width_in)
    tokens = torch.randn(2, math.prod(SIZE), width)
    found = group_channels(logits, tokens, SIZE)
    assert found.shape == (2, width)
    assert found.dtype == torch.int64
    for b in range(2):
        maps = [naive_resize(logits[b, k].double().numpy(), SIZE).ravel() for k in range(num_classes)]
        for d in range(width):
            channel = tokens[b, :, d].double().numpy()
            similarity = [m @ channel / (np.linalg.norm(m) * np.linalg.norm(channel)) for m in maps]
            chosen = int(found[b, d])
            assert similarity[chosen] >= max(similarity) - 1e-5  # rounding may decide a near tie
            assert max(similarity) - min(similarity) < 1e-5 or chosen != int(np.argmin(similarity))


def test_grouping_gives_the_first_class_a_tie_and_survives_zeros():
    tokens = torch.randn(1, 6, 5)
    same = torch.randn(1, 1, 2, 3).expand(1, 4, 2, 3)
    assert group_channels(same, tokens, SIZE).eq(0).all()
    assert group_channels(torch.randn(1, 4, 2, 3), torch.zeros(1, 6, 5), SIZE).eq(0).all()


@torch.no_grad()
def test_per_image_makes_images_independent():
    net = bottleneck().eval()
    feature = torch.randn(3, CHANNELS, *SIZE)
    alone = torch.cat([net(image[None]) for image in feature])
    torch.testing.assert_close(net(feature, per_image=True), alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(net(feature), alone, atol=1e-3)


@torch.no_grad()
def test_evaluation_takes_maps_of_any_size_and_keeps_the_memory():
    net = bottleneck().eval()
    before = {name: value.clone() for name, value in net.memory.named_buffers()}
    assert net(torch.randn(1, CHANNELS, 4, 5)).shape == (1, CHANNELS, 4, 5)
    assert all(torch.equal(value, before[name]) for name, value in net.memory.named_buffers())


def test_dropout_acts_only_in_training():
    feature = torch.randn(2, CHANNELS, *SIZE)
    net = bottleneck(dropout=0.5)
    assert not torch.equal(net.train()(feature), net(feature))
    assert torch.equal(net.eval()(feature), net(feature))


def test_images_affect_others_only_as_keys():
    """A labeled image changes nothing for others; an unlabeled one changes the labeled ones' keys."""
    net = bottleneck()
    feature, labeled, logits = semi_input(2, 2)

    def outputs(changed: int | None) -> torch.Tensor:
        changed_feature = feature.clone()
        if changed is not None:
            changed_feature[changed] += torch.randn(CHANNELS, *SIZE)
        return net.forward_semi(changed_feature, labeled, logits, read_memory=False)

    plain = outputs(None)
    moved = [
        [i for i in range(4) if not torch.allclose(outputs(changed)[i], plain[i], atol=1e-5)]
        for changed in range(4)
    ]
    assert moved == [[0], [1], [0, 1, 2], [0, 1, 3]]


@pytest.mark.parametrize('read_memory', [False, True])
def test_gradient_reaches_unlabeled_features_in_warm_up_only(read_memory):
    net = bottleneck()
    feature, labeled, logits = semi_input()
    feature.requires_grad_()
    out = net.forward_semi(feature, labeled, logits, read_memory=read_memory)
    out[:labeled].square().sum().backward()
    assert feature.grad[:labeled].abs().max() > 0
    assert (feature.grad[labeled:].abs().max() > 0) == (not read_memory)
    for linear in (net.labeled_attention.key, net.labeled_attention.value):
        assert linear.weight.grad.abs().max() > 0


def test_the_memory_holds_the_channels_of_the_batch_that_reads_it():
    net = bottleneck()
    feature, labeled, logits = semi_input(1, 3)
    with torch.no_grad():
        tokens = net.norm_in(net.map_in(feature[labeled:]).flatten(2).transpose(1, 2))
    naive = NaiveMemory(net.memory.rows)
    naive.update(tokens, group_channels(logits, tokens, SIZE))
    read = []
    original = net.memory.read
    net.memory.read = lambda: read.append(original()) or read[-1]
    net.forward_semi(feature, labeled, logits, read_memory=True)
    torch.testing.assert_close(read[0], naive.rows)


def test_a_second_step_keeps_the_graph_of_the_first_intact():
    net = bottleneck()
    outs = [net.forward_semi(*semi_input(), read_memory=True) for _ in range(2)]
    sum(out.sum() for out in outs).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize(
    'crop, stride, expected',
    [(65, 32, (3, 3)), (64, 32, (2, 2)), ((513, 801), 32, (17, 26)), ((513, 513), 8, (65, 65))],
)
def test_map_size_is_rounded_up(crop, stride, expected):
    net = AllSparkBottleneck(2, 1, crop_size=crop, stride=stride)
    assert net.map_size == expected
    assert net.memory.rows.shape == (1, 2, math.prod(expected))
    net.check_map_size(torch.Size(expected))
    with pytest.raises(ValueError, match=f'made for {expected[0]} x {expected[1]}'):
        net.check_map_size(expected[::-1] if expected[0] != expected[1] else (expected[0], 1))


@pytest.mark.parametrize('name', ['in_channels', 'num_classes', 'num_heads', 'stride', 'channels'])
@pytest.mark.parametrize('value', [0, -1])
def test_arguments_must_be_positive(name, value):
    arguments = dict(in_channels=4, num_classes=3, crop_size=65) | {name: value}
    with pytest.raises(ValueError, match=f'{name} is {value}, expected a number of at least 1'):
        AllSparkBottleneck(**arguments)


@pytest.mark.parametrize('crop', [0, (65, 0), (-1, 65)])
def test_crop_must_be_positive(crop):
    with pytest.raises(ValueError, match=r'crop_.* is .*, expected a number of at least 1'):
        AllSparkBottleneck(4, 3, crop_size=crop)


@pytest.fixture
def warnings_logged(monkeypatch):
    """What the memory messages by ``print_log``."""
    messages = []
    monkeypatch.setattr(
        'allspark_mmseg.methods.allspark.semantic_memory.print_log',
        lambda text, *_, **__: messages.append(text),
    )
    return messages


def test_a_memory_of_another_crop_is_dropped_with_a_warning(warnings_logged):
    stored = bottleneck(crop_size=(96, 96))
    stored.forward_semi(torch.randn(2, CHANNELS, 3, 3), 1, torch.randn(1, CLASSES, 9, 9), read_memory=False)
    assert stored.memory.written.sum() > 0
    net = bottleneck()
    own = {name: value.clone() for name, value in net.memory.named_buffers()}
    net.load_state_dict(stored.state_dict())
    assert all(torch.equal(value, own[name]) for name, value in net.memory.named_buffers())
    assert torch.equal(net.map_in[0].weight, stored.map_in[0].weight)
    assert len(warnings_logged) == 1
    assert '(3, 8, 9)' in warnings_logged[0]
    assert '(3, 8, 6)' in warnings_logged[0]


def test_a_memory_of_the_same_crop_is_loaded_without_a_warning(warnings_logged):
    stored, net = bottleneck(), bottleneck()
    stored.forward_semi(*semi_input(), read_memory=False)
    net.load_state_dict(stored.state_dict())
    for name, value in net.memory.named_buffers():
        assert torch.equal(value, stored.memory.get_buffer(name))
    assert not warnings_logged


def _write_on_one_rank(rank: int, memory_sync: str) -> dict:
    torch.manual_seed(0)
    net = bottleneck(memory_sync=memory_sync)
    torch.manual_seed(10 + rank)
    feature, labeled, logits = semi_input(1, 2)
    with torch.no_grad():
        tokens = net.norm_in(net.map_in(feature[labeled:]).flatten(2).transpose(1, 2))
    start = net.memory.rows.clone()
    net.forward_semi(feature, labeled, logits, read_memory=True).sum().backward()
    return dict(memory=net.memory.state_dict(), start=start, tokens=tokens, logits=logits)


@pytest.mark.parametrize('memory_sync', ['all', 'rank'])
def test_memories_of_two_ranks_are_equal_if_synchronized(memory_sync, tmp_path):
    ranks = on_two_ranks(tmp_path, _write_on_one_rank, memory_sync)
    assert not torch.equal(ranks[0]['tokens'], ranks[1]['tokens'])
    for own in ranks:
        naive = NaiveMemory(own['start'])
        for rank in ranks if memory_sync == 'all' else [own]:  # in the order of the ranks
            naive.update(rank['tokens'], group_channels(rank['logits'], rank['tokens'], SIZE))
        assert torch.equal(own['memory']['rows'], naive.rows)
        assert own['memory']['pointer'].tolist() == naive.pointer
        assert own['memory']['written'].tolist() == naive.written
    equal = torch.equal(ranks[0]['memory']['rows'], ranks[1]['memory']['rows'])
    assert equal == (memory_sync == 'all')


def test_grouping_by_probabilities_differs_from_logits():
    """Softmax over the classes at full size, then as with logits; the two group differently."""
    feature, labeled, logits = semi_input(1, 3)
    nets = {}
    for grouping in ('logits', 'probabilities'):
        torch.manual_seed(5)
        nets[grouping] = bottleneck(grouping=grouping)
        nets[grouping].forward_semi(feature, labeled, logits, read_memory=False)
    net = nets['probabilities']
    with torch.no_grad():
        tokens = net.norm_in(net.map_in(feature[labeled:]).flatten(2).transpose(1, 2))
    owners = group_channels(logits.softmax(1), tokens, SIZE)
    assert net.memory.written.tolist() == owners.flatten().bincount(minlength=CLASSES).clamp(max=8).tolist()
    assert not torch.equal(owners, group_channels(logits, tokens, SIZE))
    assert not torch.equal(net.memory.rows, nets['logits'].memory.rows)


def test_an_empty_memory_of_zeros_adds_nothing():
    net = bottleneck(memory_init='zeros')
    assert net.memory.rows.eq(0).all()
    attended = net.labeled_attention(torch.randn(1, 6, 8), net.memory.read())
    assert attended.eq(0).all()
    assert bottleneck().memory.rows.std() > 0.5


@pytest.mark.parametrize('name', ['grouping', 'memory_sync', 'memory_init'])
def test_unknown_choices_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 'both', expected one of"):
        bottleneck(**{name: 'both'})
