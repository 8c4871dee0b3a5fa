"""UniMatch's CNN checkpoints and ImageNet weights to ours, by the tool as a user starts it.

That converted weights give the release's outputs is in test_unimatch_networks.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from allspark_mmseg.converters import convert_unimatch, convert_unimatch_imagenet
from allspark_mmseg.converters.unimatch import UniMatchBackbone, UniMatchNetwork
from allspark_mmseg.engine import StartupCheckHook

from ..helpers.deeplab_configs import config_of
from ..helpers.golden import strip_prefix
from ..helpers.official_states import assert_same_bits, load_state, official_file
from ..helpers.reference_deeplab import reference_state

TOOL = 'unimatch2mmseg'
NETWORKS = {'resnet50': 'ResNet-50', 'resnet101': 'ResNet-101', 'xception': 'Xception-65'}
ADVICE = 'Use a model of UniMatch (v1)'


@pytest.fixture
def official() -> dict:
    return reference_state('resnet50', 7)


def imagenet(name: str, *, counters: bool = False) -> dict:
    """A backbone's ImageNet file: with a classifier, and in general without PyTorch's counters."""
    backbone = strip_prefix(reference_state(name, 7), 'backbone.')
    kept = {k: v for k, v in backbone.items() if counters or not k.endswith('num_batches_tracked')}
    extra = {'fc.weight': torch.zeros(2, 2048), 'fc.bias': torch.zeros(2)}
    if name == 'xception':
        extra |= {f'bn1.{key}': torch.zeros(1) for key in ('running_itr', '_tmp_running_mean', 'tracked')}
    return kept | extra


def build(name: str, **options):
    cfg = config_of(name, 7).model
    cfg.backbone.update(options)
    return MODELS.build(cfg)


@pytest.mark.parametrize('name', NETWORKS)
def test_keys_and_shapes_equal_the_reference(golden, name):
    vectors = golden(f'unimatch_{name}_forward')
    shapes = [tuple(json.loads(shape)) for shape in vectors['shapes']]
    expected = list(zip(vectors['keys'].tolist(), shapes, strict=True))
    network = UniMatchNetwork(UniMatchBackbone(NETWORKS[name]), vectors['logits_mean'].shape[1])
    assert len(dict(expected)) == len(expected), 'a dict would hide a repeated key'
    assert {key: shape for key, (_, shape) in network.keys().items()} == dict(expected)


@pytest.mark.parametrize('name, millions', [('resnet50', 40.47), ('resnet101', 59.46), ('xception', 54.71)])
def test_every_key_is_converted_once(convert, tmp_path, name, millions):
    state = reference_state(name, 7)
    others = dict(epoch=79, previous_best=np.float64(78.125), optimizer={'state': {}})
    source = official_file(tmp_path / 'best.pth', state, **others)
    printed = convert(TOOL, source, tmp_path / 'ours.pth')
    assert f'DeepLabv3+, {NETWORKS[name]}, 7 classes, {millions} M parameters' in printed
    assert 'epoch 79, previous_best 78.125' in printed
    assert f'{tmp_path / "ours.pth"}: {len(state)} tensors' in printed
    ours = load_state(tmp_path / 'ours.pth')
    assert_same_bits(ours, convert_unimatch(state))
    # the value of each official key is its number, so none is lost and none is there twice
    assert sorted(value.flatten()[0].item() for value in ours.values()) == list(range(len(state)))
    build(name).load_state_dict(ours, strict=True)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        lambda state: {'state_dict': state},
        lambda state: {'model': state, 'epoch': 3},
        lambda state: {f'module.{key}': value for key, value in state.items()},
    ],
    ids=['bare', 'state_dict', 'model', 'module'],
)
def test_every_wrapping_gives_the_same_result(convert, tmp_path, official, wrap):
    torch.save(wrap(official), tmp_path / 'best.pth')
    convert(TOOL, tmp_path / 'best.pth', tmp_path / 'new' / 'ours.pth')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['ours.pth']
    assert_same_bits(load_state(tmp_path / 'new' / 'ours.pth'), convert_unimatch(official))


@pytest.mark.parametrize('kind', ['EncoderDecoder', 'allspark_mmseg.SelfTraining'])
def test_every_segmentor_loads_a_converted_checkpoint(convert, tmp_path, official, kind):
    convert(TOOL, official_file(tmp_path / 'best.pth', official), tmp_path / 'ours.pth')
    checkpoint = torch.load(tmp_path / 'ours.pth', weights_only=True)
    segmentor = config_of('resnet50', 7).model
    config = segmentor if kind == 'EncoderDecoder' else Config(dict(type=kind, segmentor=segmentor))
    model = MODELS.build(config)
    runner = SimpleNamespace(model=model, _load_from='ours.pth', _resume=False)
    StartupCheckHook().after_load_checkpoint(runner, checkpoint)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    student = getattr(model, 'student', model).state_dict()
    assert all(torch.equal(student[key], value) for key, value in convert_unimatch(official).items())


@pytest.mark.parametrize('counters', [True, False], ids=['with counters', 'without counters'])
@pytest.mark.parametrize('name', NETWORKS)
def test_imagenet_weights_fill_the_backbone(convert, tmp_path, name, counters):
    torch.save(imagenet(name, counters=counters), tmp_path / 'official.pth')
    printed = convert(TOOL, tmp_path / 'official.pth', tmp_path / 'ours.pth')
    dropped = 5 if name == 'xception' else 2
    assert f'ImageNet weights, {NETWORKS[name]}; not converted, {dropped} key(s)' in printed
    assert 'fc.weight, fc.bias' in printed
    backbone = build(name, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'ours.pth'))).backbone
    for parameter in backbone.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    backbone.init_weights()
    expected = strip_prefix(convert_unimatch(reference_state(name, 7)), 'backbone.')
    if not counters:
        expected |= {key: torch.tensor(0) for key in expected if key.endswith('num_batches_tracked')}
    own = backbone.state_dict()
    assert set(own) == set(expected)
    assert all(torch.equal(own[key], value) for key, value in expected.items())


def edited(state: dict, *, drop: str = '\0', add: dict | None = None) -> dict:
    return {key: value for key, value in state.items() if not key.startswith(drop)} | (add or {})


@pytest.mark.parametrize(
    'edit, message',
    [
        (
            dict(add={'decoder.x': torch.zeros(2)}),
            'DeepLabv3+ on ResNet-50, found 1 unexpected key: decoder.x. Use',
        ),
        (dict(drop='fuse.3.'), '1 missing key: fuse.3.weight.'),
        (dict(drop='backbone.layer3.5.'), '18 missing keys: backbone.layer3.5.conv1.weight'),
        (dict(drop='backbone.conv1.0.'), '1 missing key: backbone.conv1.0.weight.'),
        (dict(drop='head.b4.gap.2.num'), '1 missing key: head.b4.gap.2.num_batches_tracked.'),
        (dict(drop='classifier.weight'), '1 missing key: classifier.weight.'),
        (
            dict(add={'classifier.bias': torch.zeros(6)}),
            '1 wrongly shaped key: classifier.bias (6,) instead of (7,).',
        ),
        (
            dict(add={'reduce.0.weight': torch.zeros(64, 256, 1, 1)}),
            '1 wrongly shaped key: reduce.0.weight (64, 256, 1, 1) instead of (48, 256, 1, 1).',
        ),
    ],
    ids=['unknown', 'layer', 'block', 'stem', 'counter', 'classifier', 'classes', 'width'],
)
def test_an_incomplete_or_foreign_file_is_refused(convert, tmp_path, official, edit, message):
    source = official_file(tmp_path / 'best.pth', edited(official, **edit))
    printed = convert(TOOL, source, tmp_path / 'ours.pth', refused=True)
    assert printed.startswith(
        f"{source}: expected the complete state dict of UniMatch's DeepLabv3+ on ResNet-50, found"
    )
    assert message in printed and ADVICE in printed, printed
    assert list(tmp_path.iterdir()) == [source]


def test_another_network_is_refused(convert, tmp_path):
    """UniMatch V2's, for one: DINOv2 and DPT."""
    state = {
        'backbone.blocks.0.norm1.weight': torch.zeros(3),
        'head.scratch.layer1_rn.weight': torch.zeros(3),
    }
    source = official_file(tmp_path / 'best.pth', state)
    printed = convert(TOOL, source, tmp_path / 'ours.pth', refused=True)
    assert f'on ResNet-50, found 2 unexpected keys: {", ".join(state)};' in printed


def test_an_incomplete_imagenet_file_is_refused(convert, tmp_path):
    for name, key in (('resnet101', 'layer3.22.conv2.weight'), ('xception', 'block20.skip.weight')):
        torch.save(edited(imagenet(name), drop=key, add={'x.y': torch.zeros(1)}), tmp_path / 'official.pth')
        printed = convert(TOOL, tmp_path / 'official.pth', tmp_path / 'ours.pth', refused=True)
        assert (
            f"of UniMatch's {NETWORKS[name]}, found 1 unexpected key: x.y; 1 missing key: {key}." in printed
        )
        with pytest.raises(ValueError, match=f'missing key: {key}'):
            convert_unimatch_imagenet(edited(imagenet(name), drop=key))
