"""SegFormer's backbone against what its authors' code says; its outputs are in test_allspark_golden.py."""

import pytest
import torch
from mmcv.cnn.bricks.drop import DropPath
from torch import nn

from allspark_mmseg.backbones import MixVisionTransformer

DEPTHS = [2, 1, 3, 2]


@pytest.fixture
def mit() -> MixVisionTransformer:
    net = MixVisionTransformer(embed_dims=16, num_layers=DEPTHS, num_heads=[1, 2, 5, 8], drop_path_rate=0.1)
    net.init_weights()
    return net


def test_epsilons(mit):
    """1e-5 in the patch embeddings and behind the reduction of keys and values, 1e-6 elsewhere."""
    found = {name: m.eps for name, m in mit.named_modules() if isinstance(m, nn.LayerNorm)}
    for name, eps in found.items():
        is_small = name.endswith(('.0.norm', '.attn.norm'))
        assert eps == (1e-5 if is_small else 1e-6), name
    assert set(found.values()) == {1e-5, 1e-6}


def test_drop_path_grows_linearly_over_all_blocks(mit):
    """From 0 in the first block to the whole rate in the last, alike in attention and MLP."""
    blocks = [block for stage in mit.layers for block in stage[1]]
    expected = torch.linspace(0, 0.1, sum(DEPTHS)).tolist()
    for block, rate in zip(blocks, expected, strict=True):
        for branch in (block.attn, block.ffn):
            assert isinstance(branch.dropout_layer, DropPath)
            assert branch.dropout_layer.drop_prob == pytest.approx(rate)


def test_drop_path_leaves_out_whole_images():
    drop = MixVisionTransformer(embed_dims=16, num_layers=[1, 1, 1, 2], drop_path_rate=0.5)
    layer = drop.layers[3][1][1].ffn.dropout_layer.train()
    kept = layer(torch.ones(4000, 3, 2))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(kept[:, :1, :1].expand_as(kept), kept)
    assert kept[:, 0, 0].mean() == pytest.approx(1.0, abs=0.1)


def test_no_other_dropout(mit):
    assert all(m.p == 0 for m in mit.modules() if isinstance(m, nn.Dropout))


def test_initialization(mit):
    """Linear layers by a truncated normal of 0.02, convolutions by a normal of fan-out, no bias."""
    linear, conv = {}, {}
    for name, parameter in mit.named_parameters():
        if name.endswith('bias'):
            assert parameter.eq(0).all(), name
        elif 'norm' in name or '.layers.0.2.' in name or parameter.ndim == 1:
            assert parameter.eq(1).all(), name
        elif parameter.numel() >= 2000:  # smaller ones deviate by chance
            of_mlp = name.endswith(('ffn.layers.0.weight', 'ffn.layers.4.weight'))
            (linear if parameter.ndim == 2 or of_mlp else conv)[name] = parameter
    assert any('in_proj' in name for name in linear) and any('ffn' in name for name in linear)
    for name, parameter in linear.items():
        assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
    assert any('projection' in name for name in conv) and any('attn.sr' in name for name in conv)
    for name, parameter in conv.items():
        fan_out = parameter[0, 0].numel() * (1 if 'ffn.layers.1' in name else len(parameter))
        assert parameter.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name
