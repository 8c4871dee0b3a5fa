"""The statistics of an adaptive threshold in a run that stops and resumes."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict

from ..helpers.tiny_models import same


@pytest.mark.parametrize('kind', ['FreeMatch', 'SoftMatch', 'ClassBalanced'])
def test_a_resumed_run_has_the_statistics_of_the_stopped_one(config, runner_of, kind):
    config.model.threshold = ConfigDict(type=kind, momentum=0.5)
    config.custom_hooks.append(ConfigDict(type='allspark_mmseg.ClassStatisticsHook', interval=1))
    config.train_cfg.max_epochs = 1
    again = copy.deepcopy(config)
    stopped = runner_of(config)
    stopped.train()
    kept = {name: value.clone() for name, value in stopped.model.threshold.named_buffers()}
    assert kept['mean_confidence'] != 1 / 4
    again.train_cfg.max_epochs, again.resume = 2, True
    again.experiment_name += '_resumed'
    resumed = runner_of(again)
    resumed.load_or_resume()
    assert same(dict(resumed.model.threshold.named_buffers()), kept)
    resumed.train()
    assert resumed.iter == 4
    assert not torch.equal(resumed.model.threshold.mean_confidence, kept['mean_confidence'])
