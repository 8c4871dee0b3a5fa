"""NVlabs' ImageNet weights to MMSegmentation's backbone, by the tool as a user starts it."""

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS

from allspark_mmseg.converters import mit_to_mmseg

from ..helpers.official_states import assert_same_bits, load_state, mit_spec, official_file, state_of

BACKBONE = dict(
    type='allspark_mmseg.MixVisionTransformer', embed_dims=8, num_layers=[1, 2, 1, 1], num_heads=[1, 2, 5, 8]
)


@pytest.fixture
def backbone() -> dict:
    return state_of(mit_spec())


@pytest.fixture
def imagenet(backbone) -> dict:
    return {**backbone, 'head.weight': torch.rand(10, 64), 'head.bias': torch.rand(10)}


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        lambda state: {'state_dict': {f'backbone.{key}': value for key, value in state.items()}},
        lambda state: {'model': {f'module.backbone.{key}': value for key, value in state.items()}},
        lambda state: {f'backbone.module.{key}': value for key, value in state.items()},
    ],
)
def test_every_wrapping_gives_the_same_result(convert, tmp_path, backbone, imagenet, wrap):
    torch.save(wrap(imagenet), tmp_path / 'mit.pth')
    printed = convert('mit2mmseg', tmp_path / 'mit.pth', tmp_path / 'ours.pth')
    assert 'not converted, the classifier: head.weight, head.bias' in printed
    assert_same_bits(load_state(tmp_path / 'ours.pth'), mit_to_mmseg(backbone))


def test_initializing_fills_every_parameter(convert, tmp_path, backbone, imagenet):
    torch.save(imagenet, tmp_path / 'mit.pth')
    convert('mit2mmseg', tmp_path / 'mit.pth', tmp_path / 'ours.pth')
    weights = dict(type='Pretrained', checkpoint=str(tmp_path / 'ours.pth'))
    model = MODELS.build({**BACKBONE, 'init_cfg': weights})
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    model.init_weights()
    expected = mit_to_mmseg(backbone)
    own = model.state_dict()
    assert set(own) == set(expected)
    assert all(torch.equal(own[key], value) for key, value in expected.items())


def test_load_from_fills_only_the_backbone(convert, tmp_path, backbone, imagenet):
    torch.save(imagenet, tmp_path / 'mit.pth')
    convert('mit2mmseg', '--prefix', 'backbone.', tmp_path / 'mit.pth', tmp_path / 'ours.pth')
    head = dict(type='allspark_mmseg.AllMLPHead', in_channels=[8, 16, 40, 64], channels=8, num_classes=3)
    segmentor = dict(type='EncoderDecoder', backbone=BACKBONE, decode_head=head)
    model = MODELS.build(dict(type='allspark_mmseg.SelfTraining', segmentor=segmentor))
    load_checkpoint(model, str(tmp_path / 'ours.pth'))
    own = model.student.backbone.state_dict()
    assert all(torch.equal(own[key], value) for key, value in mit_to_mmseg(backbone).items())


@pytest.mark.parametrize(
    'depths, widths, name',
    [
        ((2, 2, 2, 2), (32, 64, 160, 256), 'MiT-B0'),
        ((2, 2, 2, 2), (64, 128, 320, 512), 'MiT-B1'),
        ((3, 4, 6, 3), (64, 128, 320, 512), 'MiT-B2'),
    ],
)
def test_the_variant_is_named(convert, tmp_path, depths, widths, name):
    torch.save(state_of(mit_spec(depths, widths)), tmp_path / 'mit.pth')
    assert f'mit.pth: {name}\n' in convert('mit2mmseg', tmp_path / 'mit.pth', tmp_path / 'ours.pth')


def test_other_files_are_refused(convert, tmp_path, backbone):
    del backbone['block1.0.attn.kv.weight']
    backbone['fc.weight'] = torch.rand(2)
    torch.save(backbone, tmp_path / 'mit.pth')
    printed = convert('mit2mmseg', tmp_path / 'mit.pth', tmp_path / 'ours.pth', refused=True)
    assert '1 unexpected key: fc.weight; 1 missing key: block1.0.attn.kv.weight.' in printed
    whole = {f'backbone.{key}': torch.rand(2) for key in mit_spec()} | {'decoder.x': torch.rand(2)}
    source = official_file(tmp_path / 'best.pth', whole)
    printed = convert('mit2mmseg', source, tmp_path / 'ours.pth', refused=True)
    assert 'allspark2mmseg.py' in printed and not (tmp_path / 'ours.pth').exists()
