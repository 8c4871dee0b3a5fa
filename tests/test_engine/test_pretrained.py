"""Weights of init_cfg that cannot be read, fill nothing, or fill a part."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from allspark_mmseg.engine import load_checkpoint_file
from allspark_mmseg.engine.pretrained import watch_pretrained

from ..helpers.tiny_models import build_model, tiny_resnet, tiny_segmentor


def backbone_of(config) -> dict:
    return config.model.segmentor.backbone


@pytest.fixture
def weights(tmp_path):
    """A checkpoint of the tiny backbone, with some changes of its keys."""

    def save(rename=lambda key: key, keep=lambda key: True) -> str:
        state = MODELS.build(tiny_segmentor()['backbone']).state_dict()
        path = tmp_path / 'weights.pth'
        torch.save({'state_dict': {rename(key): value for key, value in state.items() if keep(key)}}, path)
        return str(path)

    return save


@pytest.fixture
def refused(config, runner_of):
    """Train with an init_cfg that must be refused, and return the message."""

    def start(**init_cfg) -> str:
        backbone_of(config)['init_cfg'] = dict(type='Pretrained', **init_cfg)
        with pytest.raises(ValueError) as error:
            runner_of(config).train()
        return str(error.value)

    return start


def log_of(runner) -> str:
    return ''.join(path.read_text() for path in Path(runner.work_dir).glob('*/*.log'))


def test_weights_that_fill_nothing_are_refused(refused, weights):
    path = weights(lambda key: f'encoder.{key}.data')
    message = refused(checkpoint=path)
    assert message.startswith(f'model.segmentor.backbone.init_cfg: checkpoint {path} fills none of the ')
    assert 'encoder.layers.0.0.' in message and 'expected' in message


def test_a_prefix_is_suggested_and_works(refused, weights, config, runner_of):
    path = weights(lambda key: f'backbone.{key}')
    assert "Set prefix='backbone.' in init_cfg." in refused(checkpoint=path)
    backbone_of(config)['init_cfg']['prefix'] = 'backbone.'
    runner_of(config).train()
    assert "no key with the prefix 'encoder'" in refused(checkpoint=path, prefix='encoder')


def test_what_stays_random_is_listed(weights, config, runner_of):
    path = weights(keep=lambda key: not key.startswith('layers.3.2.'))
    backbone_of(config)['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    config.log_level = 'WARNING'
    runner = runner_of(config)
    runner.train()
    (line,) = [line for line in log_of(runner).splitlines() if 'stay random' in line]
    assert line.endswith('These stay random: layers.3.2.weight, layers.3.2.bias.')


def test_complete_weights_give_no_message_and_are_loaded_once(weights, config, runner_of):
    path = weights()
    backbone_of(config)['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    config.log_level = 'WARNING'
    config.optim_wrapper.optimizer.lr = 0.0
    runner = runner_of(config)
    runner.train()
    assert 'stay random' not in log_of(runner)
    expected = load_checkpoint_file(path)['state_dict']
    state = runner.model.student.backbone.state_dict()
    assert all(torch.equal(state[key], value) for key, value in expected.items())


def test_no_network_names_the_address_and_the_cache(refused):
    address = 'http://127.0.0.1:9/pretrain/mit_b0.pth'
    message = refused(checkpoint=address)
    assert f'no access to {address}' in message
    assert str(Path(torch.hub.get_dir(), 'checkpoints', 'mit_b0.pth')) in message


def test_the_address_behind_a_name_is_in_the_message(refused, monkeypatch):
    address = 'http://127.0.0.1:9/resnet18.pth'
    for module in ('allspark_mmseg.engine.pretrained', 'mmengine.runner.checkpoint'):
        monkeypatch.setattr(f'{module}.get_external_models', lambda: {'resnet18_tiny': address})
    message = refused(checkpoint='open-mmlab://resnet18_tiny')
    assert 'checkpoint open-mmlab://resnet18_tiny' in message and f'no access to {address}' in message


def test_a_missing_file_is_named(refused, tmp_path):
    message = refused(checkpoint=str(tmp_path / 'no.pth'))
    assert f'cannot load checkpoint {tmp_path / "no.pth"}' in message and 'Expected a file' in message


def swin() -> dict:
    """A backbone of MMSegmentation that loads its weights itself, past MMEngine's initializer."""
    return dict(type='SwinTransformer', embed_dims=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4)


@pytest.mark.parametrize('own', [swin, lambda: tiny_resnet()['backbone']])
def test_every_backbone_is_watched(own, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({'module.encoder.weight': torch.zeros(3)}, path)
    backbone = own() | dict(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model = build_model(tiny_segmentor(backbone=backbone))
    watch_pretrained(model)
    with pytest.raises(ValueError, match=r'^model\.backbone\.init_cfg: .* fills none of'):
        model.init_weights()


def test_weights_that_a_backbone_renames_are_accepted(tmp_path):
    torch.save(
        {f'backbone.{key}': value for key, value in MODELS.build(swin()).state_dict().items()},
        tmp_path / 'weights.pth',
    )
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    model = build_model(tiny_segmentor(backbone=swin() | dict(init_cfg=init_cfg)))
    (handle,) = watch_pretrained(model)
    model.init_weights()
    assert handle.id not in model.backbone._load_state_dict_pre_hooks  # it saw the weights


def test_a_hub_backbone_is_described_in_the_checkpoint(config, runner_of):
    description = dict(model_type='resnet', embedding_size=8, hidden_sizes=[8, 16, 40, 64], depths=[1] * 4)
    config.model.segmentor.backbone = dict(
        type='allspark_mmseg.TransformersBackbone', out_indices=(1, 2, 3, 4), config=description
    )
    runner = runner_of(config)
    runner.train()
    stored = runner.cfg.model.segmentor.backbone.config
    assert stored['hidden_sizes'] == [8, 16, 40, 64] and stored['model_type'] == 'resnet'
    checkpoint = load_checkpoint_file(f'{runner.work_dir}/epoch_2.pth')
    kept = Config.fromstring(checkpoint['meta']['cfg'], '.py').model.segmentor.backbone.config
    assert kept == stored
