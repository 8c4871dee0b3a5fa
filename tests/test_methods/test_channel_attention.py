"""Attention that never builds its score map, against attention that does."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from allspark_mmseg.methods.allspark import blocked_attention as blocked
from allspark_mmseg.methods.allspark.blocked_attention import BlockedAttention
from allspark_mmseg.methods.allspark.channel_attention import (
    ChannelCrossAttention,
    attend,
    scale_queries,
    score_scale,
)

from ..conftest import assert_close_to_largest


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Several blocks each way, the last ones incomplete."""
    monkeypatch.setattr(blocked, '_QUERIES', 4)
    monkeypatch.setattr(blocked, '_KEYS', 5)
    monkeypatch.setattr('allspark_mmseg.methods.allspark.channel_attention._CHUNK', 3)


def channel_attention(query, key, value, dropout=0.0):
    return attend(scale_queries(query, key), key, value, dropout)


def plain(query, key, value, kept=1.0):
    """The whole map: instance norm, softmax, weights that are kept, values."""
    scores = query @ key.transpose(-2, -1)
    mean, variance = scores.mean((-2, -1), True), scores.var((-2, -1), unbiased=False, keepdim=True)
    return ((scores - mean) * (variance + 1e-5).rsqrt()).softmax(-1).mul(kept) @ value


def with_gradients(function, *inputs):
    """Output, and the gradients of a sum in which no element counts like another."""
    inputs = [each.detach().clone().requires_grad_() for each in inputs]
    out = function(*inputs)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return [out.detach(), *(each.grad for each in inputs)]


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(
        st.integers(1, 3), st.integers(1, 2), st.integers(3, 11), st.integers(4, 13), st.integers(2, 9)
    ),
    st.booleans(),
    st.sampled_from([1e-2, 1.0, 30.0]),
    st.integers(0, 2**31),
)
def test_outputs_and_gradients_are_those_of_the_whole_map(shape, shared, size, seed):
    torch.manual_seed(seed)
    images, heads, queries, keys, positions = shape
    query = size * torch.randn(images, heads, queries, positions)
    key, value = torch.randn(2, 1 if shared else images, heads, keys, positions)
    found = with_gradients(channel_attention, query, key, value)
    expected = with_gradients(plain, query.double(), key.double(), value.double())
    # some maps are ill-conditioned: then the whole map in float32 is not better
    for actual, exact, whole in zip(found, expected, with_gradients(plain, query, key, value), strict=True):
        allowed = 1e-4 * exact.abs().max() + 10 * (whole - exact).abs().max() + 1e-6
        assert (actual - exact).abs().max() <= allowed


def test_without_gradient_the_result_is_the_same():
    query, key, value = torch.randn(3, 2, 2, 6, 7)
    expected = channel_attention(query, key, value)
    with torch.no_grad():
        assert_close_to_largest(channel_attention(query, key, value), expected, 1e-5)


@pytest.mark.parametrize('offset', [0.0, 10.0, 300.0])
def test_nothing_cancels_in_the_variance(offset):
    """Means far larger than deviations: a mean of squares minus a squared mean would lose all digits."""
    query, key = torch.randn(2, 1, 11, 6).add(offset), torch.randn(1, 1, 13, 6).add(offset)
    expected = (query.double() @ key.double().transpose(-2, -1)).var((-2, -1), unbiased=False, keepdim=True)
    torch.testing.assert_close(score_scale(query, key).double(), (expected + 1e-5).rsqrt(), rtol=1e-4, atol=0)


def test_a_constant_map_gives_the_mean_of_the_values():
    query, key, value = torch.ones(1, 1, 3, 4), torch.ones(1, 1, 6, 4), torch.randn(1, 1, 6, 4)
    out = channel_attention(query.requires_grad_(), key, value)
    torch.testing.assert_close(out, value.mean(2, keepdim=True).expand_as(out))
    out.sum().backward()
    assert torch.isfinite(query.grad).all()


def dropout_masks(query, key, probability, seed):
    """The weights that the next call would keep, scaled as dropout scales them."""
    torch.manual_seed(seed)
    drop = blocked._Dropout(probability, int(torch.randint(2**62, ())))
    kept = torch.empty(*query.shape[:2], key.shape[1])
    for number, b, queries, keys in blocked._blocks(query, key):
        part = kept[b, queries, keys]
        part.copy_(~drop(number, part.shape))
    return kept / drop.keep


def test_dropout_multiplies_the_weights_and_is_the_same_in_the_backward_pass():
    query, key, value = torch.randn(2, 9, 6), torch.randn(2, 12, 6), torch.randn(2, 12, 6)
    kept = dropout_masks(query, key, 0.3, seed=5)
    assert 0 < (kept == 0).float().mean() < 1
    torch.manual_seed(5)
    found = with_gradients(lambda q, k, v: BlockedAttention.apply(q, k, v, 0.3), query, key, value)
    expected = with_gradients(
        lambda q, k, v: (q @ k.transpose(1, 2)).softmax(-1).mul(kept) @ v, query, key, value
    )
    for actual, exact in zip(found, expected, strict=True):
        assert_close_to_largest(actual, exact, 1e-5)


@pytest.mark.parametrize('probability', [0.05, 0.1, 0.5, 0.9])
def test_dropout_drops_as_often_as_it_says(probability):
    draws = torch.stack([blocked._Dropout(probability, seed)(seed, (200, 301)) for seed in range(20)])
    spread = (probability * (1 - probability) / draws.numel()) ** 0.5
    assert draws.float().mean().item() == pytest.approx(probability, abs=5 * spread)
    # independent: neighbours, and equal places of two blocks, meet as often as chance lets them
    for one, other in ((draws[:, :, 1:], draws[:, :, :-1]), (draws[1:], draws[:-1])):
        assert (one & other).float().mean().item() == pytest.approx(probability**2, abs=10 * spread)


def test_dropout_follows_the_seed_and_changes_from_step_to_step():
    query, key, value = torch.randn(3, 1, 6, 7)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append([BlockedAttention.apply(query, key, value, 0.5) for _ in range(2)])
    assert torch.equal(outs[0][0], outs[1][0]) and torch.equal(outs[0][1], outs[1][1])
    assert not torch.equal(outs[0][0], outs[0][1])
    assert not torch.equal(outs[0][0], outs[2][0])


def test_dropout_leaves_the_mean_and_has_the_variance_of_pytorch_s():
    query, key, value = torch.randn(1, 3, 4), torch.randn(1, 40, 4), torch.randn(1, 40, 4)
    weights = (query @ key.transpose(1, 2)).softmax(-1)
    ours = torch.stack([BlockedAttention.apply(query, key, value, 0.1) for _ in range(3000)])
    theirs = torch.stack([F.dropout(weights, 0.1) @ value for _ in range(3000)])
    error = theirs.std(0) / 3000**0.5
    assert ((ours.mean(0) - weights @ value).abs() < 5 * error).all()
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.15, atol=0)


@pytest.mark.parametrize('dropout', [0.0, 0.1])
def test_mixed_precision_keeps_its_statistics_in_float32(dropout):
    torch.manual_seed(0)
    attention = ChannelCrossAttention(6, 2, dropout=dropout).train()
    tokens, source = torch.randn(2, 2, 9, 6)
    torch.manual_seed(1)
    exact = attention(tokens, source)
    torch.manual_seed(1)
    with torch.autocast('cpu', torch.bfloat16):
        found = attention(tokens, source)
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in attention.parameters())
    assert_close_to_largest(found.float(), exact, 0.05)
    key = torch.randn(1, 1, 5, 4, dtype=torch.bfloat16)
    with torch.autocast('cpu', torch.bfloat16):
        assert score_scale(key, key).dtype == torch.float32


@pytest.mark.parametrize('dropout', [-0.1, 1.0])
def test_dropout_must_be_a_probability_below_one(dropout):
    with pytest.raises(ValueError, match=rf'dropout is {dropout}, expected one in \[0, 1\)'):
        ChannelCrossAttention(4, 2, dropout=dropout)


def test_the_map_is_never_whole(monkeypatch):
    """The largest tensor of a training step stays far below queries x keys."""
    monkeypatch.undo()
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.untyped_storage().nbytes() // result.element_size())
            return result

    query, key, value = (torch.randn(1, 1, size, 4, requires_grad=True) for size in (3000, 6000, 6000))
    with Watch():
        channel_attention(query, key, value, dropout=0.1).sum().backward()
    assert largest <= max(blocked._QUERIES * blocked._KEYS, 6000 * 4) < 3000 * 6000 / 20
