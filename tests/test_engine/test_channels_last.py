"""ChannelsLastHook changes the memory format of the weights, and nothing else."""

import copy

import torch


def test_weights_change_their_format_and_keep_their_values(config, runner_of):
    config.custom_hooks.append(dict(type='allspark_mmseg.ChannelsLastHook'))
    plain = copy.deepcopy(config)
    plain.custom_hooks = plain.custom_hooks[:-1]
    plain.work_dir = f'{config.work_dir}_plain'
    models = []
    for each in (config, plain):
        torch.manual_seed(0)
        runner = runner_of(each)
        runner.train()
        models.append(runner.model)
    weights = [model.student.backbone.layers[0][0].projection.weight for model in models]
    assert weights[0].is_contiguous(memory_format=torch.channels_last)
    assert not weights[1].is_contiguous(memory_format=torch.channels_last)
    for (name, value), expected in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(value, expected, atol=1e-5), name
