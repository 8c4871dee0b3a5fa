"""The learning-rate schedule of the shipped configs when the training gets another length."""

import pytest
from mmengine.config import Config

from allspark_mmseg.cli import train
from allspark_mmseg.engine.schedule_length import scale_schedule, training_length

from ..helpers.configs import CONFIGS

CASES = {  # option, (begin, end) of each scheduler
    'allspark/voc_183.py': ('train_cfg.max_epochs=20', [(0, 20)]),
    'allspark/camvid_1over8.py': ('train_cfg.max_epochs=3', [(0, 3)]),
    'allspark/demo.py': ('train_cfg.max_iters=100', [(0, 100)]),
    'css/css_voc_r101-d8.py': ('train_cfg.max_epochs=40', [(0, 40_000)]),
    '_base_/recipes/fixmatch.py': ('train_cfg.max_iters=2500', [(0, 2500)]),
}


def read(config: str, *options: str) -> Config:
    return train.read_config(train.parse_args([str(CONFIGS / config), '--cfg-options', *options]))


@pytest.mark.parametrize('config', CASES)
def test_the_train_verb_scales_the_schedule(config, capsys):
    option, expected = CASES[config]
    cfg = read(config, option)
    assert [(one.begin, one.end) for one in cfg.param_scheduler] == expected
    assert 'the learning-rate schedule is scaled' in capsys.readouterr().out


def test_a_schedule_on_the_command_line_is_not_scaled(capsys):
    cfg = read('allspark/voc_183.py', 'train_cfg.max_epochs=20', 'param_scheduler.0.end=30')
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].end) == (20, 30)
    assert read('allspark/voc_183.py', 'train_cfg.val_interval=2').param_scheduler[0].end == 80
    assert 'scaled' not in capsys.readouterr().out


def test_all_positions_are_scaled():
    cfg = Config(
        dict(
            train_cfg=dict(max_iters=500),
            param_scheduler=[
                dict(type='LinearLR', begin=0, end=100),
                dict(type='MultiStepLR', begin=100, milestones=[400, 800], gamma=0.1),
                dict(type='CosineAnnealingLR', begin=100, T_max=900, eta_min=1),
            ],
        )
    )
    assert 'max_iters is 500 instead of 1000' in scale_schedule(cfg, dict(max_epochs=None, max_iters=1000))
    linear, steps, cosine = cfg.param_scheduler
    assert (linear.end, steps.begin, steps.milestones, cosine.T_max) == (50, 50, [200, 400], 450)
    assert (steps.gamma, cosine.eta_min) == (0.1, 1)
    assert scale_schedule(cfg, training_length(cfg)) is None
