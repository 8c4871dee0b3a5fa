"""Files that are not complete AllSpark checkpoints are refused."""

import pytest
import torch
from mmseg.registry import MODELS

from ..helpers.allspark_reference import reference_network
from ..helpers.official_states import allspark_spec, official_file, state_of


@pytest.fixture
def official() -> dict:
    return state_of(allspark_spec())


def edited(state: dict, *, drop=(), add=()) -> dict:
    kept = {key: value for key, value in state.items() if not (drop and key.startswith(drop))}
    return {**kept, **{key: torch.zeros(2) for key in add}}


@pytest.mark.parametrize(
    'edit, messages',
    [
        (
            dict(add=[f'decoder.extra{i}' for i in range(7)]),
            ['7 unexpected keys: decoder.extra0, decoder.extra1', 'decoder.extra4, ... and 2 more'],
        ),
        (dict(add=['teacher.backbone.norm1.weight']), ['1 unexpected key: teacher.backbone.norm1.weight.']),
        (
            dict(drop='backbone.block2.0.mlp.fc1.bias'),
            ['1 missing key: backbone.block2.0.mlp.fc1.bias. Use the file'],
        ),
        (dict(drop='backbone.block3.'), ['20 missing keys: backbone.block3.0.norm1.weight']),
        (dict(drop='decoder.'), ['16 missing keys: decoder.decoder.linear_c4.proj.weight', 'mit2mmseg.py']),
        (dict(drop='decoder.allspark.attn.kv_queue'), ['1 missing key: decoder.allspark.attn.kv_queue.']),
        (
            dict(add=['decoder.decoder.linear_c1.proj.bias']),
            ['wrongly shaped key: decoder.decoder.linear_c1.proj.bias (2,) instead of (32,)'],
        ),
    ],
    ids=['unknown', 'teacher', 'missing', 'stage', 'head', 'memory', 'shape'],
)
def test_an_incomplete_or_foreign_file_is_refused(convert, tmp_path, official, edit, messages):
    source = official_file(tmp_path / 'best.pth', edited(official, **edit))
    printed = convert('allspark2mmseg', source, tmp_path / 'ours.pth', refused=True)
    assert printed.startswith(f'{source}: expected the complete state dict of an official AllSpark model')
    assert all(message in printed for message in messages), printed
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    'edit, message',
    [
        (
            dict(drop='student.backbone.layers.1.1.0.'),
            '18 missing keys: backbone.layers.1.1.0.norm1.weight',
        ),
        (dict(drop='student.decode_head.decoder.'), '16 missing keys: decode_head.decoder.conv_seg.weight'),
    ],
)
def test_a_network_without_official_counterpart_is_refused(convert, tmp_path, official, edit, message):
    segmentor = reference_network(official, crop=65)
    model = MODELS.build(dict(type='allspark_mmseg.AllSpark', segmentor=segmentor))
    state = edited(model.state_dict(), **edit)
    torch.save({'state_dict': state}, tmp_path / 'epoch_1.pth')
    printed = convert('mmseg2allspark', tmp_path / 'epoch_1.pth', tmp_path / 'theirs.pth', refused=True)
    assert message in printed and 'MixVisionTransformer' in printed, printed
    assert not (tmp_path / 'theirs.pth').exists()


def test_checkpoints_of_the_recipes(convert, tmp_path, official):
    """They have an adaptive threshold, which is omitted, and a teacher, of which the user must know."""
    settings = dict(type='allspark_mmseg.AllSpark', segmentor=reference_network(official, crop=65))
    plain = MODELS.build(dict(settings)).state_dict()
    torch.save({'state_dict': plain}, tmp_path / 'plain.pth')
    state = plain | {'threshold.mean_confidence': torch.tensor(0.5)}
    torch.save({'state_dict': state}, tmp_path / 'adaptive.pth')
    torch.save({'state_dict': state | {'teacher.steps': torch.tensor(1)}}, tmp_path / 'teacher.pth')
    for name in ('plain', 'adaptive'):
        convert('mmseg2allspark', tmp_path / f'{name}.pth', tmp_path / f'{name}_official.pth')
    first, second = (torch.load(tmp_path / f'{name}_official.pth')['model'] for name in ('plain', 'adaptive'))
    assert first.keys() == second.keys()
    printed = convert('mmseg2allspark', tmp_path / 'teacher.pth', tmp_path / 'x.pth', refused=True)
    assert 'a student and a teacher' in printed and 'extract_segmentor.py' in printed
