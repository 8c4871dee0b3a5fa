"""FSDP of student and teacher in two processes over gloo: the weights of ordinary data parallelism."""

import pytest
import torch

from allspark_mmseg.engine import ShardedStrategy
from benchmarks.kill_and_resume import last_checkpoint, run

from ..helpers.project import write_project

# ruff: noqa: E501
TINY_DINOV2 = """
segmentor.data_preprocessor.test_cfg = dict(size_divisor=14)
segmentor.backbone = dict(
    type='allspark_mmseg.DINOv2', arch=dict(embed_dims=16, depth=2, num_heads=2), out_indices=(0, 1), with_cp=True)
segmentor.decode_head = dict(segmentor.decode_head.decoder, in_channels=[16, 16])
method = dict(type='allspark_mmseg.UniMatchV2', threshold=0.34, ignore_padding=False)
"""
CONFIG = """
_base_ = './method.py'
runner_type = 'FlexibleRunner'
strategy = dict({strategy})
default_hooks = dict(
    _delete_=True, logger=dict(type='LoggerHook', interval=1),
    mean_teacher=dict(type='allspark_mmseg.MeanTeacherHook'), checkpoint=dict(type='CheckpointHook'))
custom_hooks = []
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(_delete_=True, type='ValLoop')
# Adam would turn rounding errors of a bias before a norm, whose gradient is 0, into whole steps
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
"""
STRATEGIES = {
    'copies': "type='DDPStrategy', model_wrapper=dict("
    "type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)",
    'shards': "type='allspark_mmseg.ShardedStrategy', state_dict_cfg='full'",
}


def test_shards_train_like_copies(tmp_path):
    write_project(tmp_path, method=TINY_DINOV2)
    config = tmp_path / 'config.py'
    config.write_text(config.read_text().replace('(65, 65)', '(70, 70)'))
    states = {}
    for name, strategy in STRATEGIES.items():
        path = tmp_path / f'{name}.py'
        path.write_text(CONFIG.format(strategy=strategy))
        assert run(path, tmp_path / name, processes=2)
        states[name] = last_checkpoint(tmp_path / name)['state_dict']
    copies = {key.removeprefix('module.'): value for key, value in states['copies'].items()}
    shards = states['shards']
    assert copies.keys() == shards.keys() and int(shards['teacher.steps']) == 2
    for key, value in copies.items():
        torch.testing.assert_close(shards[key], value, rtol=1e-5, atol=1e-6, msg=key)
    student, teacher = (shards[f'{name}.backbone.norm.weight'] for name in ('student', 'teacher.module'))
    assert not torch.equal(student, teacher)


def test_units_that_no_module_has():
    strategy = ShardedStrategy(units=['layers'])
    with pytest.raises(ValueError, match=r"units is \('layers',\), expected names of modules"):
        strategy._wrap_model(torch.nn.Sequential(torch.nn.Linear(2, 2)))
