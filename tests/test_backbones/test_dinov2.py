"""DINOv2 against UniMatch V2's reference network, and its contract as an MMSegmentation backbone."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor

from allspark_mmseg.backbones import DINOv2

GOLDEN = Path(
    os.environ.get('ALLSPARK_GOLDEN', Path(__file__).resolve().parents[2].parent / 'shared' / 'golden')
)
TINY = {'embed_dims': 24, 'depth': 4, 'num_heads': 3, 'out_indices': (0, 1, 2, 3)}


def golden_case(name: str) -> tuple[dict, dict, Tensor]:
    path = GOLDEN / f'{name}.npz'
    if not path.is_file():
        pytest.skip(f'golden vectors not found: {path} (set ALLSPARK_GOLDEN)')
    spec = importlib.util.spec_from_file_location('rule_state', GOLDEN / 'rule_state.py')
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    golden = dict(np.load(path))
    shapes = {
        str(key): json.loads(str(shape)) for key, shape in zip(golden['keys'], golden['shapes'], strict=True)
    }
    state = {key: torch.from_numpy(value) for key, value in rule.rule_state(shapes).items()}
    return golden, state, torch.from_numpy(rule.rule_tensor('image', (1, 3, *golden['image_size'])))


def dpt_head(levels: tuple[Tensor, ...], state: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
    """The dense prediction head of UniMatch V2, after its description; reads the state dict by key."""

    def conv(x, name, **options):
        return F.conv2d(x, state[f'head.{name}.weight'], state.get(f'head.{name}.bias'), **options)

    def upsampled(x, name, factor):
        weight, bias = (state[f'head.resize_layers.{name}.{kind}'] for kind in ('weight', 'bias'))
        return F.conv_transpose2d(x, weight, bias, stride=factor)

    def unit(x, name):
        return x + conv(F.relu(conv(F.relu(x), f'{name}.conv1', padding=1)), f'{name}.conv2', padding=1)

    def bilinear(x, target):
        return F.interpolate(x, size=tuple(target), mode='bilinear', align_corners=True)

    maps = [conv(level, f'projects.{i}') for i, level in enumerate(levels)]
    maps[0], maps[1] = upsampled(maps[0], 0, 4), upsampled(maps[1], 1, 2)
    maps[3] = conv(maps[3], 'resize_layers.3', stride=2, padding=1)
    maps = [conv(x, f'scratch.layer{i}_rn', padding=1) for i, x in enumerate(maps, start=1)]
    path = None
    for i in (4, 3, 2, 1):
        name = f'scratch.refinenet{i}'
        lateral = maps[i - 1]
        x = lateral if path is None else path + unit(lateral, f'{name}.resConfUnit1')
        target = maps[i - 2].shape[2:] if i > 1 else [2 * side for side in x.shape[2:]]
        path = conv(bilinear(unit(x, f'{name}.resConfUnit2'), target), f'{name}.out_conv')
    x = F.relu(conv(path, 'scratch.output_conv.0', padding=1))
    return bilinear(conv(x, 'scratch.output_conv.2'), size)


@pytest.mark.parametrize('arch', ['small', 'base'])
@torch.no_grad()
def test_gives_the_reference_networks_logits(arch):
    golden, state, image = golden_case(f'unimatch_v2_dinov2_{arch}_forward')
    backbone = DINOv2(arch).eval()
    backbone.load_state_dict(
        {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')},
        strict=True,
    )
    logits = dpt_head(backbone(image), state, tuple(golden['image_size']))
    np.testing.assert_allclose(logits[:, :, ::4, ::4].numpy(), golden['logits_every_4th'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits.mean((2, 3)).numpy(), golden['logits_mean'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits.flatten(2).std(2).numpy(), golden['logits_std'], rtol=0, atol=1e-5)
    assert (logits.argmax(1).numpy() == golden['argmax']).mean() > 0.999


@pytest.mark.parametrize(
    'arch, millions, levels',
    [('small', 22.06, (2, 5, 8, 11)), ('base', 86.58, (2, 5, 8, 11)), ('large', 304.37, (4, 11, 17, 23))],
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
    'options', [{}, {'out_indices': (1,)}, {'final_norm': False}, {'arch': {**TINY, 'out_indices': (0, 2)}}]
)
def test_every_trainable_parameter_gets_a_gradient(options):
    backbone = DINOv2(**{'arch': TINY, **options})
    sum(feature.pow(2).sum() for feature in backbone(torch.randn(1, 3, 28, 42))).backward()
    without = [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert 'mask_token' in backbone.state_dict()


def test_frozen_trains_nothing():
    assert not any(p.requires_grad for p in DINOv2(TINY, frozen=True).parameters())
    assert all(p.requires_grad for p in DINOv2(TINY).parameters())


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
    with pytest.raises(ValueError, match=f'found {size[0]} x {size[1]} .*{hint}'):
        DINOv2(TINY)(torch.zeros(1, 3, *size))


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match='small, base, large or a dict, found "tiny"'):
        DINOv2('tiny')
    with pytest.raises(ValueError, match=r'blocks 0 to 3, found \(3, 4\)'):
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
