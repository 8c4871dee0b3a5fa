"""A full disk and weights that are NaN leave the previous checkpoint, and the training goes on."""

import os
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from allspark_mmseg.engine import load_checkpoint_file

from .conftest import log_lines


class FullDisk(Hook):
    """Puts a device that is always full in place of some of the files that the run writes."""

    priority = 'VERY_HIGH'

    def __init__(self, *names: str) -> None:
        self.names = names

    def before_train(self, runner):
        for name in self.names:
            Path(runner.work_dir, f'{name}.{os.getpid()}.tmp').symlink_to('/dev/full')


class NanWeights(Hook):
    priority = 'HIGH'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            next(runner.model.parameters()).data[0] = torch.nan


@pytest.fixture
def run(with_validation, runner_of):
    """Train four iterations with a checkpoint and a validation after each; return the runner."""

    def train(*hooks: Hook, fails: str = '', **settings):
        config = with_validation
        config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=1)
        checkpoint = dict(type='allspark_mmseg.SafeCheckpointHook', by_epoch=False, interval=1)
        config.default_hooks.checkpoint = dict(checkpoint, **settings)
        runner = runner_of(config)
        for hook in hooks:
            runner.register_hook(hook)
        if fails:
            with pytest.raises(RuntimeError, match=fails):
                runner.train()
        else:
            runner.train()
        return runner

    return train


def regular(runner) -> list[str]:
    return sorted(path.name for path in Path(runner.work_dir).glob('iter_*.pth'))


@pytest.mark.parametrize('keep', [1, 2])
def test_training_goes_on_after_a_full_disk_and_tries_again(run, keep):
    runner = run(FullDisk('iter_3.pth'), max_keep_ckpts=keep)
    (line,) = (line for line in log_lines(runner) if 'could not be saved' in line)
    assert 'iter_3.pth needs ' in line and 'MB free' in line
    assert f'The last good one is {runner.work_dir}/iter_2.pth' in line
    assert regular(runner) == [f'iter_{i}.pth' for i in ([4] if keep == 1 else [2, 4])]
    assert runner.message_hub.get_info('keep_ckpt_ids')[-1] == 4


def test_the_only_checkpoint_survives_and_the_run_does_not_end_well(run):
    names = [f'iter_{i}.pth' for i in (2, 3, 4)]
    pattern = r'last checkpoint of the run could not be saved: .*iter_4\.pth needs .*iter_1\.pth; .*--resume'
    runner = run(FullDisk(*names), max_keep_ckpts=1, fails=pattern)
    assert regular(runner) == ['iter_1.pth']
    assert Path(runner.work_dir, 'last_checkpoint').read_text().endswith('iter_1.pth')


def test_the_best_checkpoint_survives(run, monkeypatch):
    scores = iter([10.0, 20.0, 30.0, 15.0])
    monkeypatch.setattr(
        'mmseg.evaluation.IoUMetric.compute_metrics', lambda self, results: {'mIoU': next(scores)}
    )
    runner = run(FullDisk('best_mIoU_iter_2.pth'), save_best='mIoU', max_keep_ckpts=1)
    found = [path.name for path in Path(runner.work_dir).glob('best_*.pth')]
    assert found == ['best_mIoU_iter_3.pth'] and runner.message_hub.get_info('best_score') == 30
    (line,) = (line for line in log_lines(runner) if 'could not be saved' in line)
    assert 'best_mIoU_iter_2.pth' in line


def test_weights_that_are_nan_are_not_saved(run):
    runner = run(NanWeights(3), max_keep_ckpts=1, fails=r'last checkpoint .* are NaN or .*: student\.')
    assert regular(runner) == ['iter_2.pth']
    state = load_checkpoint_file(f'{runner.work_dir}/iter_2.pth')['state_dict']
    names = [name for name, _ in runner.model.named_parameters()]
    assert all(state[name].isfinite().all() for name in names)
