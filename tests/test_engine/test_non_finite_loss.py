"""A loss that stays NaN ends the run with its name."""

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from allspark_mmseg.engine import NonFiniteLossHook
from allspark_mmseg.engine.hooks import non_finite_loss

from .test_safe_checkpoint import NanWeights

GOOD, BAD = {'loss': torch.tensor(1.0)}, {'loss': torch.tensor(torch.nan), 'sup.loss_ce': torch.tensor(1.0)}


class FakeRunner:
    iter = 0
    message_hub = type('Hub', (), {'runtime_info': {'last_ckpt': 'iter_5.pth'}})


def feed(hook: NonFiniteLossHook, *outputs: dict) -> int:
    """Return the number of steps until the error, or of all."""
    runner = FakeRunner()
    for runner.iter, output in enumerate(outputs):
        try:
            hook.after_train_iter(runner, 0, None, output)
        except FloatingPointError:
            return runner.iter + 1
    return len(outputs) + 1


@pytest.mark.parametrize(
    ('outputs', 'end'),
    [
        ([BAD] * 5, 3),
        ([BAD, BAD, GOOD, BAD, BAD, BAD], 6),
        ([BAD, GOOD, BAD, GOOD] * 4, 17),
        ([{'loss': float('inf')}] * 4, 3),
        ([{'acc_seg': torch.tensor(torch.nan), 'loss': torch.tensor(0.5)}] * 4, 5),
    ],
)
def test_iterations_are_counted_in_a_row(outputs, end):
    assert feed(NonFiniteLossHook(patience=3), *outputs) == end


def test_the_loss_is_named():
    output = dict(BAD, **{'unsup.loss_ce': torch.tensor(torch.inf), 'pseudo.share': torch.tensor(torch.nan)})
    with pytest.raises(FloatingPointError, match=r'^unsup\.loss_ce was NaN .*iteration 1\. .*iter_5\.pth'):
        NonFiniteLossHook(patience=1).after_train_iter(FakeRunner(), 0, None, output)


def test_processes_end_together(monkeypatch):
    """The loss of another process is NaN; both look at the third step."""
    monkeypatch.setattr(non_finite_loss, 'is_distributed', lambda: True)
    monkeypatch.setattr(non_finite_loss, 'all_gather_object', lambda own: [own, (3, ['loss'])])
    assert feed(NonFiniteLossHook(patience=3), *[GOOD] * 5) == 3


def test_a_run_ends_and_keeps_its_last_good_checkpoint(config, runner_of):
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=20)
    checkpoint = dict(type='allspark_mmseg.SafeCheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=1)
    config.default_hooks.checkpoint.update(checkpoint)
    config.default_hooks.non_finite_loss = dict(type='allspark_mmseg.NonFiniteLossHook', patience=2)
    runner: Runner = runner_of(config)
    runner.register_hook(NanWeights(2))
    message = r'loss\S* was NaN or infinite in 2 iterations in a row, until iteration 4\. .*iter_1\.pth'
    with pytest.raises(FloatingPointError, match=message):
        runner.train()
    assert [path.name for path in Path(runner.work_dir).glob('*.pth')] == ['iter_1.pth']
