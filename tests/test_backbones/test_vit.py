"""The vision transformer that takes an attention bias: MMSegmentation's, otherwise."""

import pytest
import torch
from mmseg.models.backbones import VisionTransformer as MMSegVisionTransformer

from allspark_mmseg.backbones import DINOv2, VisionTransformer

SIZES = dict(
    img_size=32, patch_size=8, patch_bias=True, embed_dims=24, num_layers=3, num_heads=3, mlp_ratio=2
)
TOKENS = 1 + 4 * 5
IMAGES = (2, 3, 32, 40)


def vit(**overrides) -> VisionTransformer:
    backbone = VisionTransformer(**SIZES | dict(out_indices=(0, 2), interpolate_mode='bilinear') | overrides)
    backbone.init_weights()
    return backbone


def stock_vit(**overrides) -> MMSegVisionTransformer:
    return MMSegVisionTransformer(**SIZES | dict(out_indices=(0, 2), interpolate_mode='bilinear') | overrides)


def dinov2(**overrides) -> DINOv2:
    arch = dict(embed_dims=24, depth=3, num_heads=3, out_indices=(0, 2))
    return DINOv2(arch, **overrides)


@torch.no_grad()
@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(final_norm=True),
        dict(with_cls_token=False),
        dict(output_cls_token=True),
        dict(pre_norm=True),
        dict(out_origin=True),
        dict(qkv_bias=False),
    ],
)
def test_without_bias_it_is_mmsegmentations(options):
    ours, stock = vit(**options), stock_vit(**options)
    stock.load_state_dict(ours.state_dict())
    images = torch.randn(IMAGES)
    expected, found = stock(images), ours(images)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize('options', [{}, dict(with_cls_token=False)])
def test_a_bias_is_added_to_the_scores_of_every_head_and_layer(options):
    ours, stock = vit(**options), stock_vit(**options)
    stock.load_state_dict(ours.state_dict())
    images, bias = torch.randn(IMAGES), 3 * torch.randn(2, 1, TOKENS, TOKENS)
    tokens = bias if not options else bias[..., 1:, 1:]
    mask = tokens.expand(-1, SIZES['num_heads'], -1, -1).flatten(0, 1)
    for layer in stock.layers:  # MMCV's own way to add a mask, of each image and head
        layer.attn.forward = lambda x, identity, layer=layer: type(layer.attn).forward(
            layer.attn, x, identity=identity, attn_mask=mask
        )
    for one, other in zip(ours(images, attention_bias=bias), stock(images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert (ours(images)[0] - ours(images, attention_bias=bias)[0]).abs().max() > 1e-3


@pytest.mark.parametrize('make, size', [(vit, 32), (dinov2, 56)])
def test_checkpointing_sees_the_bias(make, size):
    images = torch.randn(2, 3, size, size)
    bias = 3 * torch.randn(2, 1, 17, 17)
    found = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = make(with_cp=with_cp)
        sum(feature.square().sum() for feature in backbone(images, attention_bias=bias)).backward()
        found.append([value.grad for value in backbone.parameters() if value.grad is not None])
    assert len(found[0]) > 20
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize('make, size', [(vit, 32), (dinov2, 56)])
def test_mixed_precision_takes_the_bias(make, size):
    images, bias = torch.randn(2, 3, size, size), 3 * torch.randn(2, 1, 17, 17)
    backbone = make()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        rounded = backbone(images, attention_bias=bias)[-1].float()
    exact = backbone(images, attention_bias=bias)[-1]
    assert (rounded - exact).norm() < 0.05 * exact.norm()
    assert (rounded - exact).norm() < (backbone(images)[-1] - exact).norm()


@torch.no_grad()
def test_dinov2_adds_the_bias_to_its_scores():
    backbone = dinov2(out_indices=(0,), final_norm=False)
    image = torch.randn(1, 3, 28, 28)
    alone = torch.full((1, 1, 5, 5), float('-inf'))
    alone[..., torch.arange(5), torch.arange(5)] = 0  # each token attends to itself
    changed = image.clone()
    changed[..., :14, :14] += 1
    apart = (backbone(image, alone)[0] - backbone(changed, alone)[0]).abs().sum(1)[0]
    assert (apart > 0).tolist() == [[True, False], [False, False]]
    assert ((backbone(image)[0] - backbone(changed)[0]).abs().sum(1)[0] > 0).all()


def test_weights_that_do_not_fill_it_are_refused(tmp_path):
    state = vit().state_dict()
    path = str(tmp_path / 'vit.pth')

    def load(stored: dict) -> VisionTransformer:
        torch.save(stored, path)
        return vit(init_cfg=dict(type='Pretrained', checkpoint=path))

    for stored in (state, dict(state_dict=state)):
        assert torch.equal(load(stored).cls_token, state['cls_token'])
    coarser = dict(state, pos_embed=torch.randn(1, 1 + 9, 24))
    assert torch.equal(load(coarser).pos_embed[:, 0], coarser['pos_embed'][:, 0])
    unconverted = {f'backbone.{key}'.replace('attn.attn', 'attn'): value for key, value in state.items()}
    for stored in (
        unconverted,
        {key: value for key, value in state.items() if key != 'cls_token'},
        dict(state, cls_token=torch.zeros(1, 1, 48)),
        {key: value for key, value in state.items() if key != 'patch_embed.projection.bias'},
    ):
        with pytest.raises(ValueError, match=r'vit\.pth has \d+ of \d+ parameters.*deit2mmseg'):
            load(stored)
