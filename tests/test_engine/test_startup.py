"""Starting on a machine with and without an accelerator."""

from datetime import timedelta

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmseg.registry import MODELS

from allspark_mmseg.engine import startup

from ..helpers.tiny_models import tiny_segmentor


@pytest.fixture(autouse=True)
def groups(monkeypatch):
    """Backends of the process groups asked for; MMEngine's loader is put back afterwards."""
    asked = []
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda backend, **_: asked.append(backend))
    stock = CheckpointLoader._schemes['']
    yield asked
    CheckpointLoader.register_scheme('', stock, force=True)


@pytest.fixture
def device(monkeypatch):
    def choose(name: str) -> None:
        monkeypatch.setattr(startup, 'get_device', lambda: name)

    return choose


def config(**more) -> Config:
    model = tiny_segmentor()
    model['backbone']['norm_cfg'] = dict(type='SyncBN', requires_grad=True)
    model['decode_head']['norm_cfg'] = dict(type='SyncBN', requires_grad=True)
    return Config(
        dict(default_scope='mmseg', model=dict(type='allspark_mmseg.SelfTraining', segmentor=model)) | more
    )


def sync_bns(cfg: Config) -> int:
    return str(cfg.to_dict()).count('SyncBN')


def test_sync_bn_becomes_bn_wherever_it_is():
    nested = dict(
        norm_cfg=dict(type='SyncBN', eps=1e-3),
        convs=[dict(norm_cfg=dict(type='SyncBN'), act=dict(type='ReLU')), (dict(type='SyncBN'),)],
        other=dict(type='LN', names=['SyncBN']),
    )
    assert startup._replace_sync_bn(nested) == 3
    assert nested == dict(
        norm_cfg=dict(type='BN', eps=1e-3),
        convs=[dict(norm_cfg=dict(type='BN'), act=dict(type='ReLU')), (dict(type='BN'),)],
        other=dict(type='LN', names=['SyncBN']),
    )
    assert startup._replace_sync_bn(nested) == 0


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_clusters_need_an_accelerator(device, groups, launcher):
    device('cpu')
    with pytest.raises(ValueError, match=f'--launcher {launcher} needs an accelerator.*dist_train.sh'):
        startup.prepare_launch(config(), launcher)
    assert not groups


@pytest.mark.parametrize('launcher', ['none', 'pytorch', 'slurm', 'mpi'])
def test_with_an_accelerator_the_config_stays(device, groups, launcher):
    device('cuda')
    cfg = config()
    startup.prepare_launch(cfg, launcher)
    assert cfg.to_dict() == config(launcher=launcher).to_dict()
    assert not groups


def test_one_process_without_an_accelerator_needs_no_group(device, groups):
    device('cpu')
    cfg = config()
    startup.prepare_launch(cfg, 'none')
    assert cfg.launcher == 'none'
    assert not groups


def test_several_processes_without_an_accelerator(device, groups):
    device('cpu')
    cfg = config(find_unused_parameters=True, sync_bn='torch')
    startup.prepare_launch(cfg, 'pytorch')
    assert groups == ['gloo']
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=True,
        device_ids=None,
    )
    assert cfg.sync_bn is None
    assert sync_bns(cfg) == 0
    model = MODELS.build(cfg.model)
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())


def test_a_wrapper_of_one_s_own_is_kept(device):
    device('cpu')
    cfg = config(model_wrapper_cfg=dict(type='MMDistributedDataParallel', static_graph=True, device_ids=[0]))
    startup.prepare_launch(cfg, 'pytorch')
    assert cfg.model_wrapper_cfg == dict(type='MMDistributedDataParallel', static_graph=True, device_ids=None)


@pytest.mark.parametrize('launcher', ['none', 'pytorch'])
def test_checkpoints_are_read_safely_from_then_on(device, tmp_path, launcher):
    device('cpu')
    startup.prepare_launch(config(), launcher)
    (tmp_path / 'broken.pth').write_bytes(b'no checkpoint')
    with pytest.raises(ValueError, match=r'broken\.pth'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'broken.pth'))


@pytest.mark.parametrize(
    'path, expected',
    [
        ('configs/allspark/voc_92.py', 'work_dirs/allspark/voc_92'),
        ('configs/supervised/voc_92.py', 'work_dirs/supervised/voc_92'),
        ('/data/configs/old/configs/css/mix/voc_92.py', 'work_dirs/css/mix/voc_92'),
        ('configs/mine.py', 'work_dirs/mine'),
        ('mine.v2.py', 'work_dirs/mine.v2'),
        ('/home/me/mine.py', 'work_dirs/mine'),
    ],
)
def test_runs_of_two_methods_do_not_share_a_work_dir(path, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert startup.default_work_dir(path) == expected


def test_the_time_limit_of_the_config_holds_without_an_accelerator(device, monkeypatch):
    device('cpu')
    given = {}
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda backend, **more: given.update(more))
    startup.prepare_launch(config(env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=7))), 'pytorch')
    assert given == {'timeout': timedelta(seconds=7)}
