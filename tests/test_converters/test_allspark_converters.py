"""Official AllSpark checkpoints to ours and back, by the tools as a user starts them."""

import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging.history_buffer import HistoryBuffer
from mmseg.apis import init_model
from mmseg.registry import MODELS

from allspark_mmseg.converters import allspark_to_mmseg
from allspark_mmseg.engine import StartupCheckHook

from ..helpers.allspark_reference import reference_network, train_four_steps
from ..helpers.configs import ROOT
from ..helpers.golden import assert_close_to_largest, strip_prefix
from ..helpers.official_states import (
    allspark_spec,
    assert_same_bits,
    load_state,
    official_file,
    state_of,
)

VOC = ROOT / 'configs' / 'allspark' / 'voc_1over16.py'
B5 = dict(depths=(3, 6, 40, 3), widths=(64, 128, 320, 512), channels=768, classes=21, positions=289)
SEMI = dict(AllSpark='allspark_mmseg.AllSpark', SelfTraining='allspark_mmseg.SelfTraining')


@pytest.fixture
def official() -> dict:
    return state_of(allspark_spec())


@pytest.fixture
def baseline() -> dict:
    return state_of(allspark_spec(positions=0))


def build(kind: str, official: dict, crop: int = 65):
    """The model of an official state: the segmentor alone, or in a semi-supervised one."""
    segmentor = reference_network(official, crop=crop)
    return MODELS.build(segmentor if kind not in SEMI else dict(type=SEMI[kind], segmentor=segmentor))


@pytest.mark.parametrize('name', ['init', 'final'])
def test_golden_checkpoints_convert_to_ours_and_back(golden, convert, tmp_path, name):
    vectors = golden('allspark_train')
    official = strip_prefix(vectors, f'{name}.')
    crop = vectors['0.labeled'].shape[-1]
    source = official_file(tmp_path / 'best.pth', official, epoch=3)
    convert('allspark2mmseg', source, tmp_path / 'ours.pth')
    model = build('AllSpark', official, crop)
    model.load_state_dict(load_state(tmp_path / 'ours.pth'), strict=True)
    if name == 'final':
        model.eval()
        image = vectors['eval.image']
        metas = [dict(img_shape=image.shape[2:], ori_shape=image.shape[2:])]
        with torch.no_grad():
            logits = model.encode_decode(image, metas)
        assert_close_to_largest(logits, vectors['eval.logits'], 5e-6, 'eval.logits')
    else:
        _, losses, pseudo = next(train_four_steps(model.train(), vectors))
        loss = losses['sup.decode.loss_ce'] + losses['unsup.loss_ce']
        torch.testing.assert_close(loss, vectors['0.loss'], rtol=2e-6, atol=0)
        assert torch.equal(pseudo.label, vectors['0.pseudo'].long())

    convert('mmseg2allspark', tmp_path / 'ours.pth', tmp_path / 'back.pth')
    expected = torch.load(source, weights_only=True)['model']
    assert_same_bits(torch.load(tmp_path / 'back.pth', weights_only=True)['model'], expected)


def test_a_model_of_published_size_converts_to_ours_and_back(convert, tmp_path):
    official = state_of(allspark_spec(**{**B5, 'positions': 289}))
    assert len(official) == 1086
    source = official_file(tmp_path / 'best.pth', official)
    printed = convert('allspark2mmseg', source, tmp_path / 'ours.pth')
    assert 'AllSpark, MiT-B5, 21 classes, 89.33 M' in printed
    assert '17 x 17 positions (crops of 513 to 544 pixels)' in printed

    config = Config.fromfile(VOC).model
    config.segmentor.backbone.init_cfg = None
    model = MODELS.build(config)
    model.load_state_dict(load_state(tmp_path / 'ours.pth'), strict=True)
    # of the model, so that the values have been in its parameters
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'epoch_1.pth')
    convert('mmseg2allspark', tmp_path / 'epoch_1.pth', tmp_path / 'back.pth')
    back = torch.load(tmp_path / 'back.pth', weights_only=True)['model']
    assert_same_bits({key.removeprefix('module.'): value for key, value in back.items()}, official)


@pytest.mark.parametrize(
    'name, sizes',
    [
        ('allspark_pascal_mit_b5', B5),
        ('allspark_cityscapes_mit_b3', {**B5, 'depths': (3, 4, 18, 3), 'classes': 19, 'positions': 676}),
        ('baseline_pascal_mit_b4', {**B5, 'depths': (3, 8, 27, 3), 'positions': 0}),
    ],
)
def test_the_specification_equals_the_reference(golden, name, sizes):
    vectors = golden(f'{name}_forward')
    shapes = [tuple(json.loads(shape)) for shape in vectors['shapes']]
    expected = list(zip(vectors['keys'].tolist(), shapes, strict=True))
    assert list(allspark_spec(**sizes).items()) == expected


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        lambda state: {'state_dict': state},
        lambda state: {'model': state, 'optimizer': {'state': {0: {'momentum_buffer': torch.ones(3)}}}},
        lambda state: {'state_dict': {f'module.{key}': value for key, value in state.items()}},
    ],
    ids=['bare', 'state_dict', 'model', 'module'],
)
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_every_wrapping_gives_the_same_result(convert, tmp_path, official, wrap, zipped):
    torch.save(wrap(official), tmp_path / 'best.pth', _use_new_zipfile_serialization=zipped)
    convert('allspark2mmseg', '--plain', tmp_path / 'best.pth', tmp_path / 'new' / 'ours.pth')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['ours.pth']
    state = load_state(tmp_path / 'new' / 'ours.pth')
    pointer = official['decoder.allspark.attn.queue_ptr']
    expected = {**allspark_to_mmseg(official), 'decode_head.bottleneck.memory.written': pointer}
    assert_same_bits(state, expected)


def test_scalars_of_older_numpy_are_read(convert, tmp_path, official):
    others = dict(epoch=79, best_epoch=71, previous_best=np.float64(78.3125), log=np.arange(3.0))
    new = official_file(tmp_path / 'new.pth', official, **others)
    place = np.arange(1).__reduce__()[0].__module__.encode()
    with zipfile.ZipFile(new) as read:
        content = {name: read.read(name) for name in read.namelist()}
    for name in (b'numpy.core.multiarray', b'numpy._core.multiarray'):
        with zipfile.ZipFile(tmp_path / 'best.pth', 'w') as write:
            for member, data in content.items():
                write.writestr(member, data.replace(b'c' + place + b'\n', b'c' + name + b'\n'))
        assert name in (tmp_path / 'best.pth').read_bytes()
        printed = convert('allspark2mmseg', tmp_path / 'best.pth', tmp_path / 'ours.pth')
        assert 'AllSpark, MiT of depths (1, 2, 1, 1) and widths (8, 16, 40, 64), 4 classes' in printed
        assert 'epoch 79, best_epoch 71, previous_best 78.3125' in printed


@pytest.mark.parametrize(
    'kind, bottleneck',
    [
        ('AllSpark', True),
        ('SelfTraining', True),
        ('SelfTraining', False),
        ('EncoderDecoder', True),
        ('EncoderDecoder', False),
    ],
)
def test_every_segmentor_loads_its_checkpoint(convert, tmp_path, official, baseline, kind, bottleneck):
    state = official if bottleneck else baseline
    source = official_file(tmp_path / 'best.pth', state)
    plain = [] if kind == 'AllSpark' else ['--plain']
    convert('allspark2mmseg', *plain, source, tmp_path / 'ours.pth')
    checkpoint = torch.load(tmp_path / 'ours.pth', weights_only=True)
    model = build(kind, state)
    runner = SimpleNamespace(model=model, _load_from='ours.pth', _resume=False)
    StartupCheckHook().after_load_checkpoint(runner, checkpoint)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    assert_same_bits_in(model, allspark_to_mmseg(state), '' if kind == 'EncoderDecoder' else 'student.')


def assert_same_bits_in(model, expected: dict, prefix: str):
    own = model.state_dict()
    assert all(torch.equal(own[prefix + key], value) for key, value in expected.items())


def test_keys_without_official_counterpart_are_filled(convert, tmp_path, official):
    source = official_file(tmp_path / 'best.pth', official)
    convert('allspark2mmseg', source, tmp_path / 'ours.pth')
    state = load_state(tmp_path / 'ours.pth')
    pointer = official['decoder.allspark.attn.queue_ptr']
    assert torch.equal(state['student.decode_head.bottleneck.memory.written'], pointer)
    assert not state['memory_ready']


def test_a_memory_of_another_crop_is_dropped_on_loading(convert, tmp_path, official):
    convert('allspark2mmseg', official_file(tmp_path / 'best.pth', official), tmp_path / 'ours.pth')
    model = build('AllSpark', official, crop=129)
    fresh = model.memory.rows.clone()
    model.load_state_dict(load_state(tmp_path / 'ours.pth'), strict=True)
    assert torch.equal(model.memory.rows, fresh) and not model.memory.written.any()
    assert_same_bits_in(model, strip_prefix(allspark_to_mmseg(official), 'backbone.'), 'student.backbone.')


def test_init_model_loads_a_converted_checkpoint(convert, tmp_path, baseline):
    convert('allspark2mmseg', official_file(tmp_path / 'best.pth', baseline), tmp_path / 'ours.pth')
    config = Config(dict(model=reference_network(baseline, crop=65), default_scope='mmseg'))
    model = init_model(config, str(tmp_path / 'ours.pth'), device='cpu')
    assert_same_bits_in(model, allspark_to_mmseg(baseline), '')


@pytest.mark.parametrize('kind', ['AllSpark', 'EncoderDecoder'])
def test_a_training_checkpoint_converts_to_official_keys(convert, tmp_path, official, kind):
    model = build(kind, official)
    torch.save(
        {
            'meta': dict(epoch=2, cfg='model = ...'),
            'state_dict': model.state_dict(),
            'message_hub': {'log_scalars': {'train/loss': HistoryBuffer([1.0, 2.0], [1, 1])}},
            'optimizer': torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9).state_dict(),
        },
        tmp_path / 'epoch_2.pth',
    )
    convert('mmseg2allspark', tmp_path / 'epoch_2.pth', tmp_path / 'theirs.pth')
    written = torch.load(tmp_path / 'theirs.pth', weights_only=True)
    assert list(written) == ['model']
    shapes = {key: tuple(value.shape) for key, value in written['model'].items()}
    assert shapes == {f'module.{key}': shape for key, shape in allspark_spec().items()}
    assert list(shapes) == [f'module.{key}' for key in allspark_spec()]
