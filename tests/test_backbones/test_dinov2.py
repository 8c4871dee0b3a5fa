"""DINOv2's contract as an MMSegmentation backbone; its values are compared in test_dpt_dinov2.py."""

import pytest
import torch
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS

from allspark_mmseg.backbones import DINOv2

TINY = {'embed_dims': 24, 'depth': 4, 'num_heads': 3, 'out_indices': (0, 1, 2, 3)}


@pytest.mark.parametrize(
    'arch, millions, levels',
    [
        ('small', 22.06, (2, 5, 8, 11)),
        ('base', 86.58, (2, 5, 8, 11)),
        ('large', 304.37, (4, 11, 17, 23)),
        ('giant', 1136.48, (9, 19, 29, 39)),
    ],
)
def test_sizes_of_the_official_models(arch, millions, levels):
    with torch.device('meta'):
        backbone = DINOv2(arch)
    state = backbone.state_dict()
    assert sum(tensor.numel() for tensor in state.values()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert state['pos_embed'].shape == (1, 1370, backbone.embed_dims)
    assert backbone.out_indices == levels


def test_every_level_is_a_map_of_stride_14():
    features = DINOv2(TINY)(torch.randn(2, 3, 70, 98))
    assert [tuple(feature.shape) for feature in features] == [(2, 24, 5, 7)] * 4


def test_a_map_keeps_the_places_of_its_patches():
    backbone = DINOv2(TINY, out_indices=(0,), final_norm=False).eval()
    image = torch.zeros(1, 3, 42, 70)
    changed = image.clone()
    changed[:, :, 14:28, 42:56] = 5
    # With little attention only the changed patch, row 1 and column 3, moves far.
    backbone.blocks[0].ls1.gamma.data.fill_(1e-3)
    with torch.no_grad():
        distance = (backbone(image)[0] - backbone(changed)[0]).abs().sum(1)[0]
    assert divmod(int(distance.argmax()), 5) == (1, 3)


@torch.no_grad()
def test_on_the_trained_grid_positions_are_used_as_they_are():
    backbone = DINOv2(TINY)
    assert torch.equal(backbone._positions(37, 37), backbone.pos_embed)
    near, exact = backbone._positions(36, 37), DINOv2(TINY, interpolate_offset=0)
    exact.load_state_dict(backbone.state_dict())
    assert near.shape == (1, 1 + 36 * 37, 24)
    assert torch.equal(near[:, 0], backbone.pos_embed[:, 0])
    assert 0 < (near - exact._positions(36, 37)).abs().max() < 0.02


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'out_indices': (1,)},
        {'final_norm': False},
        {'arch': {**TINY, 'out_indices': (0, 2)}},
        {'arch': {**TINY, 'ffn': 'swiglu'}},
    ],
)
def test_every_trainable_parameter_gets_a_gradient(options):
    backbone = DINOv2(**{'arch': TINY, **options})
    sum(feature.pow(2).sum() for feature in backbone(torch.randn(1, 3, 28, 42))).backward()
    without = [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert 'mask_token' in backbone.state_dict()


def test_frozen_trains_nothing():
    backbone = DINOv2(TINY, frozen=True, drop_path_rate=0.5, with_cp=True)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(p.requires_grad for p in DINOv2(TINY).parameters())
    # a method sets the mode of the whole model
    torch.nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.modules())
    image = torch.randn(2, 3, 28, 28)
    features = backbone(image)
    assert not any(feature.requires_grad for feature in features)
    assert torch.equal(features[-1], backbone(image)[-1])


@pytest.mark.parametrize('drop_path_rate', [0, 0.5])
def test_checkpointing_saves_memory_and_changes_nothing(drop_path_rate):
    image, kept, results = torch.randn(2, 3, 28, 42), [], []
    state = DINOv2(TINY).state_dict()
    for with_cp in (False, True):
        backbone = DINOv2(TINY, with_cp=with_cp, drop_path_rate=drop_path_rate).train()
        backbone.load_state_dict(state)
        torch.manual_seed(0)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t
        ):
            features = backbone(image)
        kept.append(sum(sizes))
        sum(feature.pow(2).sum() for feature in features).backward()
        gradients = [parameter.grad for parameter in backbone.parameters()]
        results.append([*features, *gradients])
    assert all(torch.equal(plain, again) for plain, again in zip(*results, strict=True))
    assert kept[1] < kept[0] / 2


def test_drop_path_acts_in_training_only():
    backbone = DINOv2(TINY, drop_path_rate=0.5)
    assert [block.drop_path.drop_prob for block in backbone.blocks] == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2])
    image = torch.randn(4, 3, 28, 28)
    torch.manual_seed(0)
    assert not torch.equal(backbone(image)[-1], backbone(image)[-1])
    backbone.eval()
    assert torch.equal(backbone(image)[-1], backbone(image)[-1])


@pytest.mark.parametrize(
    'size, hint', [((500, 375), 'H = 490 or 504, W = 364 or 378'), ((28, 9), 'H = 28, W = 14')]
)
def test_other_sizes_name_the_nearest_multiples(size, hint):
    with pytest.raises(ValueError, match=f'image size is {size[0]} x {size[1]} .*{hint}'):
        DINOv2(TINY)(torch.zeros(1, 3, *size))


def test_wrong_options_are_named():
    with pytest.raises(
        ValueError, match="arch is 'tiny', expected one of small, base, large, giant or a dict"
    ):
        DINOv2('tiny')
    with pytest.raises(ValueError, match=r"arch\.ffn is 'glu', expected one of mlp, swiglu"):
        DINOv2({**TINY, 'ffn': 'glu'})
    with pytest.raises(ValueError, match=r'out_indices is \(3, 4\), expected blocks from 0 to 3'):
        DINOv2(TINY, out_indices=(3, 4))


def test_trains_in_a_plain_mmseg_segmentor(tmp_path):
    checkpoint = tmp_path / 'dinov2.pth'
    pretrained = DINOv2(TINY)
    torch.save({'state_dict': pretrained.state_dict()}, checkpoint)
    model: EncoderDecoder = MODELS.build(
        {
            'type': 'EncoderDecoder',
            'backbone': {
                'type': 'allspark_mmseg.DINOv2',
                'arch': TINY,
                'init_cfg': {'type': 'Pretrained', 'checkpoint': str(checkpoint)},
            },
            'decode_head': {
                'type': 'FCNHead',
                'in_channels': 24,
                'in_index': 3,
                'channels': 8,
                'num_classes': 3,
                'norm_cfg': {'type': 'BN'},
            },
        }
    )
    model.init_weights()
    assert torch.equal(model.backbone.pos_embed, pretrained.pos_embed)
    assert model(torch.randn(1, 3, 28, 42)).shape == (1, 3, 2, 3)
