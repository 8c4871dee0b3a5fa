"""ChannelsLastHook changes the memory format of the weights, and nothing else."""

import torch

from allspark_mmseg.engine import ChannelsLastHook


def test_weights_change_their_format_and_keep_their_values(config, runner_of):
    runner = runner_of(config)
    model, images = runner.model.eval(), torch.randn(2, 3, 65, 65)
    weight = model.student.backbone.layers[0][0].projection.weight
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        expected = model.encode_decode(images, [dict(img_shape=(65, 65))] * 2)
    assert not weight.is_contiguous(memory_format=torch.channels_last)
    ChannelsLastHook().before_run(runner)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    pointwise = next(w for w in model.parameters() if w.ndim == 4 and w.shape[2:].numel() == 1)
    assert pointwise.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        logits = model.encode_decode(images, [dict(img_shape=(65, 65))] * 2)
    assert torch.allclose(logits, expected, atol=1e-5)


def test_weights_keep_the_format_in_training_and_after_loading(config, runner_of):
    config.custom_hooks.append(dict(type='allspark_mmseg.ChannelsLastHook'))
    runner = runner_of(config)
    runner.train()
    weight = runner.model.student.backbone.layers[0][0].projection.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
