"""Fast channel attention against the plain formula."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from allspark_mmseg.methods.allspark import attention_blocks
from allspark_mmseg.methods.allspark.attention_blocks import Blocks, Dropout
from allspark_mmseg.methods.allspark.blocked_attention import attend, attend_backward, blocked_attention
from allspark_mmseg.methods.allspark.channel_attention import ChannelCrossAttention, channel_attention
from allspark_mmseg.methods.allspark.fast_attention import fast_channel_attention, softmax_attention
from allspark_mmseg.methods.allspark.score_moments import score_scale

from ..helpers.golden import assert_close_to_largest


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Several blocks each way, the last ones incomplete."""
    monkeypatch.setattr(attention_blocks, '_CPU_BLOCK_BYTES', 80)
    monkeypatch.setattr(attention_blocks, '_ACCELERATOR_BLOCK_BYTES', 80)
    monkeypatch.setattr('allspark_mmseg.methods.allspark.score_moments._CHUNK', 2)


@pytest.fixture(params=['cpu', 'accelerator', 'accelerator with several groups in a block'])
def kind(request, monkeypatch):
    """The branches for a CPU, and those for other devices."""
    if request.param != 'cpu':
        monkeypatch.setattr(attention_blocks, 'is_cpu', lambda device: False)
    if 'several' in request.param:
        monkeypatch.setattr(attention_blocks, '_ACCELERATOR_BLOCK_BYTES', 2**10)
    return request.param


def projected(source, weight):
    """The keys, or values, of all groups: (B, S, D, N), (H, O, D) -> (B, H, S*O, N)."""
    return torch.einsum('hod,bsdn->bhson', weight, source).flatten(2, 3)


def plain(query, source, key_weight, value_weight):
    """The plain formula on the projected keys and values."""
    return channel_attention(query, projected(source, key_weight), projected(source, value_weight))


def inputs(images=1, heads=1, queries=6, groups=3, keys=4, channels=5, positions=7, *, shared=True):
    """Query, source, and the weights of keys and values."""
    return (
        torch.randn(images, heads, queries, positions),
        torch.randn(1 if shared else images, groups, channels, positions),
        *torch.randn(2, heads, keys, channels).div(channels**0.5),
    )


def with_gradients(function, *inputs):
    """Output, and the gradients of a sum in which no element counts like another."""
    inputs = [each.detach().clone().requires_grad_() for each in inputs]
    out = function(*inputs)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return [out.detach(), *(each.grad for each in inputs)]


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(
        st.integers(1, 3), st.integers(1, 2), st.integers(3, 11), st.integers(1, 4), st.integers(2, 7),
        st.integers(2, 6), st.integers(2, 9),
    ),
    st.booleans(),
    st.sampled_from([1e-2, 1.0, 30.0]),
    st.integers(0, 2**31),
    st.sampled_from([None, 80, 2**10]),
)  # fmt: skip
def test_fast_attention_equals_the_plain_formula(shape, shared, size, seed, accelerator):
    torch.manual_seed(seed)
    query, *others = inputs(*shape, shared=shared)
    given = [size * query, *others]
    with pytest.MonkeyPatch.context() as patch:
        if accelerator is not None:
            patch.setattr(attention_blocks, 'is_cpu', lambda device: False)
            patch.setattr(attention_blocks, '_ACCELERATOR_BLOCK_BYTES', accelerator)
        found = with_gradients(fast_channel_attention, *given)
    expected = with_gradients(plain, *(each.double() for each in given))
    # some maps are ill-conditioned: then the whole map in float32 is not better
    for actual, exact, whole in zip(found, expected, with_gradients(plain, *given), strict=True):
        allowed = 1e-4 * exact.abs().max() + 10 * (whole - exact).abs().max() + 1e-6
        assert (actual - exact).abs().max() <= allowed


def test_the_result_without_gradient_is_the_same():
    for shared in (False, True):
        given = inputs(2, 2, shared=shared)
        expected = fast_channel_attention(*(each.requires_grad_() for each in given))
        with torch.no_grad():
            assert_close_to_largest(fast_channel_attention(*given), expected, 1e-5)


def test_scores_far_above_their_mean_do_not_overflow(kind):
    """Two keys of 400 fit each query: e^200 and more above the mean, in the last block and in the first."""
    query, source, key_weight, value_weight = inputs(queries=9, groups=5)
    source[0, [0, -1]] *= 200
    found = with_gradients(softmax_attention, query, source, key_weight, value_weight)

    def whole(query, source, key_weight, value_weight):
        scores = query @ projected(source, key_weight).transpose(-2, -1)
        return scores.softmax(-1) @ projected(source, value_weight)

    scores = query @ projected(source, key_weight).transpose(-2, -1)
    assert (scores - scores.mean(-1, keepdim=True)).max() > 200
    given = (each.double() for each in (query, source, key_weight, value_weight))
    for actual, exact in zip(found, with_gradients(whole, *given), strict=True):
        assert_close_to_largest(actual.double(), exact, 1e-4)


@pytest.mark.parametrize('offset', [0.0, 10.0, 300.0])
def test_nothing_cancels_in_the_variance(offset):
    """Means far larger than deviations: a mean of squares minus a squared mean would lose all digits."""
    query, source, key_weight, _ = inputs(queries=11)
    query, key_weight = query + offset, key_weight + offset
    scores = query.double() @ projected(source.double(), key_weight.double()).transpose(-2, -1)
    expected = (scores.var((-2, -1), unbiased=False, keepdim=True) + 1e-5).rsqrt()
    torch.testing.assert_close(score_scale(query, source, key_weight).double(), expected, rtol=1e-4, atol=0)


def test_a_constant_map_gives_the_mean_of_the_values():
    query, _, key_weight, value_weight = inputs()
    source = torch.ones(1, 3, 5, 7)
    key_weight = torch.ones_like(key_weight)
    out = fast_channel_attention(query.fill_(1).requires_grad_(), source, key_weight, value_weight)
    torch.testing.assert_close(out, projected(source, value_weight).mean(2, keepdim=True).expand_as(out))
    out.sum().backward()
    assert torch.isfinite(query.grad).all()


def single_map(**sizes):
    """A query, source and weights as ``blocked_attention`` takes them."""
    query, source, key_weight, value_weight = inputs(**sizes)
    return [query[0, 0], source[0], key_weight[0], value_weight[0]]


def dropout_mask(query, source, weight, probability, seed):
    """The weights that the next call would keep, scaled as dropout scales them."""
    torch.manual_seed(seed)
    drop = Dropout(probability, int(torch.randint(2**62, ())), query.device)
    kept = torch.empty(len(query), len(source), len(weight))
    for block in Blocks(query, source, weight, weight, buffers=1):
        part = kept[block.rows, block.groups]
        part.copy_(drop.draw(block.number, torch.empty(part.shape).flatten(1)).view_as(part))
    return kept.flatten(1) * drop.scale


def test_forward_and_backward_pass_use_the_same_dropout_mask(kind):
    given = single_map(queries=9)
    kept = dropout_mask(*given[:3], 0.3, seed=5)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7], rel=1e-4)
    torch.manual_seed(5)
    found = with_gradients(lambda *each: blocked_attention(*each, 0.3), *given)

    def whole(query, source, key_weight, value_weight):
        key, value = (projected(source[None], weight[None])[0, 0] for weight in (key_weight, value_weight))
        return (query @ key.T).softmax(-1).mul(kept) @ value

    for actual, exact in zip(found, with_gradients(whole, *given), strict=True):
        assert_close_to_largest(actual, exact, 1e-5)


@pytest.mark.parametrize('probability', [0.05, 0.1, 0.5, 0.9])
def test_dropout_drops_with_its_probability(kind, probability):
    draws = torch.ones(20, 200, 301)
    for number, out in enumerate(draws):
        Dropout(probability, 7, draws.device).draw(number, out)
    draws = draws == 0
    spread = (probability * (1 - probability) / draws.numel()) ** 0.5
    assert draws.float().mean().item() == pytest.approx(probability, abs=5 * spread)
    # independent: neighbors, and equal places of two blocks, meet as often as chance lets them
    for one, other in ((draws[:, :, 1:], draws[:, :, :-1]), (draws[1:], draws[:-1])):
        assert (one & other).float().mean().item() == pytest.approx(probability**2, abs=10 * spread)


def test_dropout_follows_the_seed_and_changes_from_step_to_step(kind):
    given = single_map()
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append([blocked_attention(*given, 0.5) for _ in range(2)])
    assert torch.equal(outs[0][0], outs[1][0]) and torch.equal(outs[0][1], outs[1][1])
    assert not torch.equal(outs[0][0], outs[0][1])
    assert not torch.equal(outs[0][0], outs[2][0])


def test_dropout_has_the_mean_and_variance_of_pytorch(kind, draws=1000):
    given = single_map(queries=3, groups=8, keys=5, positions=4)
    query, source, *weights = given
    key, value = (projected(source[None], weight[None])[0, 0] for weight in weights)
    weights = (query @ key.T).softmax(-1)
    ours = torch.stack([blocked_attention(*given, 0.1) for _ in range(draws)])
    theirs = torch.stack([F.dropout(weights, 0.1) @ value for _ in range(draws)])
    error = theirs.std(0) / draws**0.5
    assert ((ours.mean(0) - weights @ value).abs() < 5 * error).all()
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.15, atol=0)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('dropout', [0.0, 0.1])
def test_mixed_precision_keeps_its_statistics_in_float32(monkeypatch, kind, dropout, dtype):
    # one block in either precision, so that both drop the same weights
    for name in ('_CPU_BLOCK_BYTES', '_ACCELERATOR_BLOCK_BYTES'):
        monkeypatch.setattr(attention_blocks, name, 2**20)
    torch.manual_seed(0)
    attention = ChannelCrossAttention(6, 2, dropout=dropout).train()
    tokens, source = torch.randn(2, 9, 6), torch.randn(2, 6, 9)
    torch.manual_seed(1)
    exact = attention(tokens, source)
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype):
        found = attention(tokens, source)
    assert found.dtype == dtype
    found.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in attention.parameters())
    assert_close_to_largest(found.float(), exact, 0.05)
    query, source, key_weight, _ = inputs()
    with torch.autocast('cpu', dtype):
        assert score_scale(query.to(dtype), source, key_weight).dtype == torch.float32


def test_float16_survives_scores_far_above_their_mean(monkeypatch):
    """On an accelerator. The weights of a row are at most 1, and the gradients keep their size."""
    monkeypatch.setattr(attention_blocks, 'is_cpu', lambda device: False)
    given = single_map(queries=9, groups=40, keys=50)
    given[0][0] *= 30
    exact = with_gradients(blocked_attention, *given)
    found = with_gradients(blocked_attention, *(each.half() for each in given))
    for actual, expected in zip(found, exact, strict=True):
        assert_close_to_largest(actual.float(), expected, 0.03)


def test_the_operator_compiles_without_a_break():
    """With the shapes, the gradients and the registrations that PyTorch expects of an operator."""
    given = [each.requires_grad_() for each in single_map()]
    torch.library.opcheck(
        torch.ops.allspark_mmseg.blocked_attention.default, (*given, 0.3, torch.tensor(5)),
        test_utils=('test_schema', 'test_autograd_registration', 'test_faketensor'),
    )  # fmt: skip
    compiled = torch.compile(blocked_attention, backend='aot_eager', fullgraph=True)
    torch.manual_seed(3)
    expected = with_gradients(blocked_attention, *given)
    torch.manual_seed(3)
    for actual, of_eager in zip(with_gradients(compiled, *given), expected, strict=True):
        torch.testing.assert_close(actual, of_eager)


@pytest.mark.parametrize('dropout', [-0.1, 1.0])
def test_dropout_must_be_a_probability_below_one(dropout):
    with pytest.raises(ValueError, match=rf'dropout is {dropout}, expected a probability in \[0, 1\)'):
        ChannelCrossAttention(4, 2, dropout=dropout)


OPERATORS = {
    'allspark_mmseg.blocked_attention.default': attend,
    'allspark_mmseg.blocked_attention_backward.default': attend_backward,
}


def test_neither_the_map_nor_the_keys_are_materialized(monkeypatch, kind):
    """The largest tensor of a training step is the source, or the buffers of blocks."""
    largest = 0

    class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            inside = OPERATORS.get(str(function))
            if inside:
                with self:
                    return inside(*args)
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.untyped_storage().nbytes() // result.element_size())
            return result

    monkeypatch.setattr('allspark_mmseg.methods.allspark.score_moments._CHUNK', 8)
    for name in ('_CPU_BLOCK_BYTES', '_ACCELERATOR_BLOCK_BYTES'):
        monkeypatch.setattr(attention_blocks, name, 2**16)
    given = [each.requires_grad_() for each in inputs(2, 1, 500, 60, 128, 32, 16)]
    with LargestTensor():
        fast_channel_attention(*given, dropout=0.1).sum().backward()
    assert largest >= 3 * 2**16 // 4 - 3 * 128, 'the blocks were not seen'
    assert largest <= max(3 * 2**16 // 4, given[1].numel()) < 60 * 128 * 16 < 1000 * 60 * 128 / 20
