"""Channel attention and its two streams against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allspark_mmseg.methods.allspark.channel_attention import ChannelCrossAttention, ChannelSelfAttention
from allspark_mmseg.methods.allspark.fast_attention import fast_channel_attention


def naive_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """One map: (M, N), (L, N), (L, N) -> (M, N), scores neither scaled nor normalized row by row."""
    scores = query @ key.T
    scores = (scores - scores.mean()) / np.sqrt(scores.var() + 1e-5)
    weights = np.exp(scores)
    return weights / weights.sum(axis=1, keepdims=True) @ value


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 5), st.integers(2, 7), st.integers(1, 5)),
    st.booleans(),
    st.floats(1e-3, 10),
    st.integers(0, 2**31),
)
def test_attention_equals_the_formula(shape, shared, scale, seed):
    torch.manual_seed(seed)
    images, heads, queries, keys, positions = shape
    query = scale * torch.randn(images, heads, queries, positions)
    source = torch.randn(1 if shared else images, 2, 3, positions)
    weights = torch.randn(2, heads, keys, 3)
    found = fast_channel_attention(query, source, *weights).double().numpy()
    for b in range(images):
        for h in range(heads):
            channels = source[0 if shared else b].double().numpy()
            k, v = ((w[h].double().numpy() @ channels).reshape(-1, positions) for w in weights)
            expected = naive_attention(query[b, h].double().numpy(), k, v)
            np.testing.assert_allclose(found[b, h], expected, rtol=1e-3, atol=1e-4)


def in_float64(linear: nn.Linear, tokens: torch.Tensor) -> np.ndarray:
    """(N, D) -> projected (N, out)."""
    return tokens.double().numpy() @ linear.weight.detach().double().numpy().T


@torch.no_grad()
def test_self_attention_is_head_by_head_and_channel_major_behind():
    attention = ChannelSelfAttention(4, 3, dropout=0.0)
    tokens = torch.randn(2, 5, 4)
    found = attention(tokens)
    for image, actual in zip(tokens, found, strict=True):
        q, k, v = (
            in_float64(linear, image).T for linear in (attention.query, attention.key, attention.value)
        )
        mixed = np.empty((12, 5))
        for head in range(3):
            own = slice(4 * head, 4 * head + 4)
            mixed[head::3] = naive_attention(q[own], k[own], v[own])  # d * H + j
        expected = mixed.T @ attention.out.weight.double().numpy().T
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('per_image', [False, True])
def test_cross_attention_has_one_map_over_all_keys(per_image):
    attention = ChannelCrossAttention(4, 3, dropout=0.0)
    tokens, source = torch.randn(2, 2, 5, 4)
    found = attention(tokens, source.transpose(1, 2), per_image=per_image)
    for i in range(2):
        seen = source[i : i + 1] if per_image else source
        q = in_float64(attention.query, tokens[i]).T
        k, v = (
            np.concatenate([in_float64(linear, image).T for image in seen])
            for linear in (attention.key, attention.value)
        )
        expected = naive_attention(q, k, v).T @ attention.out.weight.double().numpy().T
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-4, atol=1e-5)
