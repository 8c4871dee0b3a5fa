"""Official UniMatch V2 checkpoints and DINOv2 weights to ours, by the tool as a user starts it."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS

from allspark_mmseg.converters.unimatch_v2 import DINOv2Sizes, UniMatchV2Network
from allspark_mmseg.engine import StartupCheckHook

from ..helpers.official_states import (
    TINY,
    UNUSED,
    assert_same_bits,
    dinov2_spec,
    load_state,
    official_file,
    state_of,
    unimatch_v2_segmentor,
    unimatch_v2_spec,
)

TOOL = 'unimatch_v2_to_mmseg'
OFFICIAL_SIZES = {
    'small': (dict(width=384, depth=12), dict(channels=64, levels=(48, 96, 192, 384), classes=21)),
    'base': (dict(width=768, depth=12), dict(channels=128, levels=(96, 192, 384, 768), classes=21)),
    'large': (dict(width=1024, depth=24), dict(channels=256, levels=(256, 512, 1024, 1024), classes=21)),
}


@pytest.fixture
def official() -> dict:
    return state_of(unimatch_v2_spec())


@pytest.fixture
def ema() -> dict:
    return {key: value + 1 for key, value in state_of(unimatch_v2_spec()).items()}


def expected_names(official: dict) -> dict[str, str]:
    """Our key for each official one, written down one by one where they differ."""
    names = {key: key for key in official if key.startswith('backbone.')}
    for i in range(4):
        for kind in ('weight', 'bias'):
            names[f'head.projects.{i}.{kind}'] = f'decode_head.projects.{i}.{kind}'
            if i != 2:
                names[f'head.resize_layers.{i}.{kind}'] = f'decode_head.resize_layers.{i}.{kind}'
            block, ours = f'head.scratch.refinenet{i + 1}', f'decode_head.fusion_blocks.{i}'
            names[f'{block}.out_conv.{kind}'] = f'{ours}.project.{kind}'
            for unit in (1, 2) if i < 3 else (2,):
                for conv in ('conv1', 'conv2'):
                    names[f'{block}.resConfUnit{unit}.{conv}.{kind}'] = (
                        f'{ours}.res_conv_unit{unit}.{conv}.{kind}'
                    )
        names[f'head.scratch.layer{i + 1}_rn.weight'] = f'decode_head.convs.{i}.weight'
    for kind in ('weight', 'bias'):
        names[f'head.scratch.output_conv.0.{kind}'] = f'decode_head.project.{kind}'
        names[f'head.scratch.output_conv.2.{kind}'] = f'decode_head.conv_seg.{kind}'
    return names


def assert_converted(state: dict, official: dict):
    names = expected_names(official)
    assert sorted(set(official) - set(names)) == sorted(key for key in official if key.startswith(UNUSED))
    assert set(state) == set(names.values())
    for key, name in names.items():
        assert torch.equal(state[name], official[key]), key


@pytest.mark.parametrize('name', ['small', 'base'])
def test_keys_and_shapes_equal_the_reference(golden, name):
    vectors = golden(f'unimatch_v2_dinov2_{name}_forward')
    shapes = [tuple(json.loads(shape)) for shape in vectors['shapes']]
    expected = list(zip(vectors['keys'].tolist(), shapes, strict=True))
    backbone, head = OFFICIAL_SIZES[name]
    assert list(unimatch_v2_spec(backbone, head).items()) == expected
    network = UniMatchV2Network(
        DINOv2Sizes(**backbone), head['channels'], head['levels'], num_classes=head['classes']
    )
    assert len(dict(expected)) == len(expected), 'a dict would hide a repeated key'
    assert {key: tuple(value.shape) for key, value in network.official_state().items()} == dict(expected)


def test_student_and_teacher_are_converted(convert, tmp_path, official, ema):
    teacher = {f'module.{key}': value for key, value in ema.items()}
    others = dict(epoch=59, previous_best=86.5, best_epoch_ema=57, previous_best_ema=86.25, optimizer={})
    source = official_file(tmp_path / 'best.pth', official, model_ema=teacher, **others)
    printed = convert(TOOL, source, tmp_path / 'student.pth')
    assert 'student of UniMatch V2, DINOv2 of width 24 and depth 4, DPT of 8, 5 classes' in printed
    assert 'epoch 59, previous_best 86.5, best_epoch_ema 57, previous_best_ema 86.25' in printed
    dropped = printed.split('never used: ')[1].split('\n')[0].split(', ')
    assert dropped == [key for key in official if key.startswith(UNUSED)] and len(dropped) == 4
    assert_converted(load_state(tmp_path / 'student.pth'), official)

    assert 'EMA teacher of UniMatch V2' in convert(TOOL, '--ema', source, tmp_path / 'teacher.pth')
    assert_converted(load_state(tmp_path / 'teacher.pth'), ema)
    # a teacher saved without the wrapper of distributed training gives the same
    source = official_file(tmp_path / 'latest.pth', official, model_ema=ema)
    convert(TOOL, '--ema', source, tmp_path / 'again.pth')
    assert_same_bits(load_state(tmp_path / 'again.pth'), load_state(tmp_path / 'teacher.pth'))


@pytest.mark.parametrize('wrap', [lambda state: state, lambda state: {'state_dict': state}])
def test_every_wrapping_gives_the_same_result(convert, tmp_path, official, wrap):
    torch.save(wrap(official), tmp_path / 'best.pth')
    convert(TOOL, tmp_path / 'best.pth', tmp_path / 'ours.pth')
    assert_converted(load_state(tmp_path / 'ours.pth'), official)


@pytest.mark.parametrize('model_ema', [None, {}, {'decay': 0.996}])
def test_a_missing_teacher_is_refused(convert, tmp_path, official, model_ema):
    others = {} if model_ema is None else dict(model_ema=model_ema)
    source = official_file(tmp_path / 'best.pth', official, epoch=3, **others)
    printed = convert(TOOL, '--ema', source, tmp_path / 'ours.pth', refused=True)
    expected = 'expected the complete state dict' if model_ema == {} else "the EMA teacher under 'model_ema'"
    assert expected in printed and not (tmp_path / 'ours.pth').exists(), printed
    if model_ema is None:
        assert 'found only weights, epoch. Omit --ema.' in printed


@pytest.mark.parametrize('swiglu', [False, True])
@pytest.mark.parametrize('method', [None, 'allspark_mmseg.SelfTraining'])
def test_every_segmentor_loads_its_checkpoint(convert, tmp_path, swiglu, method):
    sizes = dict(TINY, swiglu=swiglu)
    official = state_of(unimatch_v2_spec(sizes))
    convert(TOOL, official_file(tmp_path / 'best.pth', official), tmp_path / 'ours.pth')
    checkpoint = torch.load(tmp_path / 'ours.pth', weights_only=True)
    config = unimatch_v2_segmentor(sizes)
    model = MODELS.build(dict(type=method, segmentor=config) if method else config)
    runner = SimpleNamespace(model=model, _load_from='ours.pth', _resume=False)
    StartupCheckHook().after_load_checkpoint(runner, checkpoint)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    assert_converted((model.student if method else model).state_dict(), official)


@pytest.mark.parametrize('wrap', [lambda state: state, lambda state: {'model': state}])
def test_dinov2_s_own_weights_are_checked(convert, tmp_path, wrap):
    weights = state_of(dinov2_spec(**TINY))
    torch.save(wrap(weights), tmp_path / 'dinov2_pretrain.pth')
    printed = convert(TOOL, tmp_path / 'dinov2_pretrain.pth', tmp_path / 'ours.pth')
    assert 'dinov2_pretrain.pth: DINOv2 of width 24 and depth 4\n' in printed
    assert_same_bits(load_state(tmp_path / 'ours.pth'), weights)


@pytest.mark.parametrize('converted', [False, True])
def test_initializing_fills_the_backbone(convert, tmp_path, converted):
    """Every parameter and ``mask_token``, from the file as it comes or as converted."""
    weights = state_of(dinov2_spec(**TINY))
    path = tmp_path / 'dinov2_pretrain.pth'
    torch.save(weights, path)
    if converted:
        convert(TOOL, path, tmp_path / 'ours.pth')
        path = tmp_path / 'ours.pth'
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    backbone = MODELS.build(dict(unimatch_v2_segmentor()['backbone'], init_cfg=init_cfg))
    for value in backbone.state_dict().values():
        value.fill_(torch.nan)
    backbone.init_weights()
    own = backbone.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[key], value) for key, value in weights.items())


@pytest.mark.parametrize(
    'sizes, name',
    [((384, 12), 'ViT-S/14'), ((768, 12), 'ViT-B/14'), ((1024, 24), 'ViT-L/14'), ((1536, 40), 'ViT-g/14')],
)
def test_the_variant_is_named(sizes, name):
    with torch.device('meta'):
        weights = {key: torch.empty(shape) for key, shape in dinov2_spec(*sizes).items()}
    assert str(DINOv2Sizes.from_state_dict(weights)) == f'DINOv2 {name}'


def test_mmengine_loads_the_result_strictly(convert, tmp_path, official):
    convert(TOOL, official_file(tmp_path / 'best.pth', official), tmp_path / 'ours.pth')
    model = MODELS.build(unimatch_v2_segmentor())
    load_checkpoint(model, str(tmp_path / 'ours.pth'), strict=True)
    assert_converted(model.state_dict(), official)


def edited(state: dict, *, drop: tuple[str, ...] = (), add: dict | None = None) -> dict:
    kept = {key: value for key, value in state.items() if not (drop and key.startswith(drop))}
    return {**kept, **(add or {})}


@pytest.mark.parametrize(
    'edit, messages',
    [
        (dict(add={'head.extra': torch.zeros(2)}), ['1 unexpected key: head.extra.']),
        (dict(add={'neck.x': torch.zeros(2)}), ['1 unexpected key: neck.x.']),
        (
            dict(drop=('backbone.blocks.1.mlp.fc1.bias',)),
            ['1 missing key: backbone.blocks.1.mlp.fc1.bias. Use the file'],
        ),
        (dict(drop=('backbone.mask_token',)), ['1 missing key: backbone.mask_token.']),
        (dict(drop=(UNUSED,)), [f'4 missing keys: {UNUSED}conv1.weight']),
        (dict(drop=('head.',)), ['missing keys: head.projects.0.weight', 'or weights of DINOv2 alone']),
        (
            dict(add={'backbone.pos_embed': torch.zeros(1, 257, 24)}),
            ['backbone.pos_embed (1, 257, 24) instead of (1, 1370, 24)'],
        ),
        (
            dict(add={'head.scratch.output_conv.2.bias': torch.zeros(4)}),
            ['head.scratch.output_conv.2.bias (4,) instead of (5,)'],
        ),
    ],
    ids=['unknown', 'part', 'missing', 'mask_token', 'unused', 'head', 'grid', 'shape'],
)
def test_an_incomplete_or_foreign_file_is_refused(convert, tmp_path, official, edit, messages):
    source = official_file(tmp_path / 'best.pth', edited(official, **edit))
    printed = convert(TOOL, source, tmp_path / 'ours.pth', refused=True)
    assert printed.startswith(
        f'{source}: expected the complete state dict of an official UniMatch V2 model, found'
    )
    assert all(message in printed for message in messages), printed
    assert list(tmp_path.iterdir()) == [source]


def test_dinov2_with_registers_is_refused(convert, tmp_path):
    weights = state_of(dinov2_spec(**TINY)) | {'register_tokens': torch.zeros(1, 4, 24)}
    torch.save(weights, tmp_path / 'reg4.pth')
    printed = convert(TOOL, tmp_path / 'reg4.pth', tmp_path / 'ours.pth', refused=True)
    assert '1 unexpected key: register_tokens' in printed and 'without "reg4"' in printed
