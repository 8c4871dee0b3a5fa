"""Rare cases of a resume: pending gradients, other epochs, other work dirs, and other parts of MMEngine."""

import copy
import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, LOOPS
from mmengine.runner import ValLoop
from torch.utils.data import BatchSampler

from allspark_mmseg.engine.hooks.exact_resume import _advise

from .conftest import log_lines
from .test_exact_resume import (
    accumulate,
    check_equal,
    exact,
    train,
    use_iterations,
    use_labeled_images,
    use_mean_teacher,
    use_two_phases,
)

__all__ = ['exact']  # the fixture
KEPT = []  # validation loops that ran


@LOOPS.register_module()
class OwnValLoop(ValLoop):
    """A loop of the user."""

    def run(self) -> dict:
        KEPT.append(self.runner.iter)
        return super().run()


class Crops(Hook):
    """Remembers the labeled crops of each phase."""

    def __init__(self) -> None:
        self.phases: dict[bool, list[torch.Tensor]] = {True: [], False: []}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        labeled = [views.get('labeled') for views in data_batch['inputs'] if 'labeled' in views]
        self.phases[runner.model.supervised_only].append(labeled[0])


def save_epochs(config: Config) -> None:
    use_mean_teacher(config)
    accumulate(config)
    config.default_hooks.checkpoint.update(by_epoch=True, interval=1)


def save_best(config: Config) -> None:
    use_mean_teacher(config)
    use_iterations(config)
    config.optim_wrapper.accumulative_counts = 8
    config.default_hooks.checkpoint.update(
        type='allspark_mmseg.SafeCheckpointHook', by_epoch=False, interval=3, save_best='mIoU'
    )


def save_phase(config: Config) -> None:
    use_two_phases(config)
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
    config.optim_wrapper.accumulative_counts = 2
    config.default_hooks.checkpoint.update(by_epoch=True, interval=1)
    config.custom_hooks[-1].update(max_iters=4, val_interval=1)


@pytest.mark.parametrize(('change', 'kill_at'), [(save_epochs, 3), (save_best, 5), (save_phase, 2)])
def test_pending_gradients_are_in_every_checkpoint(exact, runner_of, change, kill_at):
    """In those after an epoch, of the best network, and of the supervised phase."""
    change(exact)
    whole = train(runner_of, exact, 'whole')
    train(runner_of, exact, 'killed', kill_at)
    resumed = train(runner_of, exact, 'killed', resume=True)
    assert min(resumed.steps) > 0
    check_equal(whole, resumed)


def test_epochs_of_another_length_go_on_at_the_same_place(exact, runner_of):
    use_mean_teacher(exact)
    exact.default_hooks.checkpoint.update(by_epoch=True, interval=1)
    exact.train_dataloader.batch_size, exact.train_dataloader.sampler.unlabeled = 2, 1
    killed = train(runner_of, exact, 'killed', kill_at=12)
    length = len(killed.runner.train_dataloader)
    assert length == 5  # two epochs, and two steps of the third
    exact.train_dataloader.batch_size, exact.train_dataloader.sampler.unlabeled = 3, 2
    exact.default_hooks.exact_resume.allow_new_batch = True
    resumed = train(runner_of, exact, 'killed', resume=True)
    assert len(resumed.runner.train_dataloader) == 2
    assert sorted(resumed.steps) == [10, 11] and resumed.runner.epoch == 3
    again = train(runner_of, exact, 'killed', resume=True)
    assert not again.steps and again.runner.train_loop.max_iters == 12


def test_the_phases_have_different_crops(exact, runner_of):
    use_two_phases(exact)
    runner, crops = runner_of(exact), Crops()
    runner.register_hook(crops)
    runner.train()
    pairs = list(zip(crops.phases[True], crops.phases[False], strict=True))
    assert len(pairs) == 3 and not any(torch.equal(one, other) for one, other in pairs)


def test_a_batch_sampler_without_a_batch_size(exact, runner_of):
    use_labeled_images('DefaultSampler', exact)
    DATA_SAMPLERS.register_module(module=BatchSampler, name='PlainBatchSampler', force=True)
    del exact.train_dataloader['batch_size']
    exact.train_dataloader.batch_sampler = dict(type='PlainBatchSampler', drop_last=False, batch_size=2)
    killed = train(runner_of, exact, 'killed', kill_at=3)
    assert Path(killed.runner.work_dir, 'last_checkpoint').is_file()
    assert max(train(runner_of, exact, 'killed', resume=True).steps) > 3


def test_averaged_weights_of_mmengine_are_refused_beside_two_phases(exact, runner_of):
    use_two_phases(exact)
    exact.custom_hooks.append(dict(type='EMAHook'))
    with pytest.raises(ValueError, match='the config has an EMAHook, whose averaged weights'):
        runner_of(exact).train()


def test_a_validation_loop_of_the_user_stays(exact, runner_of):
    use_two_phases(exact)
    exact.val_cfg = dict(type='OwnValLoop')
    exact.log_level = 'WARNING'
    KEPT.clear()
    runner = runner_of(exact)
    runner.train()
    assert len(KEPT) == 4
    assert any('val_cfg has a OwnValLoop' in line for line in log_lines(runner))


def test_the_best_checkpoint_of_another_work_dir_stays(exact, runner_of):
    save_best(exact)
    exact.optim_wrapper.accumulative_counts = 1
    exact.default_hooks.checkpoint.interval = 1
    first = train(runner_of, exact, 'first', kill_at=4)
    (best,) = Path(first.runner.work_dir).glob('best_*.pth')
    exact.load_from = Path(first.runner.work_dir, 'last_checkpoint').read_text()
    second = train(runner_of, exact, 'second', resume=True)
    assert second.runner.iter == 6 and best.is_file()


def test_a_validation_alone_ends_well(exact, runner_of):
    exact.default_hooks.stop_signal = dict(type='allspark_mmseg.StopSignalHook')
    assert 'mIoU' in runner_of(exact).val()


def test_another_label_to_ignore_is_refused(exact, runner_of):
    use_mean_teacher(exact)
    exact.default_hooks.startup_check = dict(type='allspark_mmseg.StartupCheckHook')
    exact.model.segmentor.decode_head.ignore_index = 254
    with pytest.raises(ValueError, match='has ignore_index=254, expected 255'):
        runner_of(exact).train()


def test_the_options_for_the_same_step_are_those_of_the_second_phase(exact, runner_of):
    """The supervised phase has a batch of its labeled images."""
    use_two_phases(exact)
    train(runner_of, exact, 'killed', kill_at=2)
    exact.train_dataloader.batch_size = 6
    exact.train_dataloader.sampler.update(labeled=2, unlabeled=4)
    with pytest.raises(ValueError, match=r'_dataloader\.batch_size=3 train_dataloader\.sampler\.labeled=1 '):
        train(runner_of, exact, 'killed', resume=True)
    exact.custom_hooks[-1]['batch_size'] = 3
    runner = runner_of(exact)
    runner.register_hook(Crops())
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.call_hook('before_run')
    assert _advise(runner.train_loop, 1).startswith('Set the batch sizes so that')


class Signal(Hook):
    """Sends SIGTERM in the first validation."""

    priority = 'VERY_HIGH'

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_while_weights_of_load_from_are_validated(exact, runner_of):
    """The resume has the second phase alone, too."""
    use_two_phases(exact)
    exact.default_hooks.stop_signal = dict(type='allspark_mmseg.StopSignalHook')
    first = train(runner_of, exact, 'first')
    exact.load_from = str(Path(first.runner.work_dir, 'supervised.pth'))
    whole = train(runner_of, exact, 'whole')
    stopped = copy.deepcopy(exact)
    stopped.work_dir, stopped.experiment_name = f'{exact.work_dir}/stopped', exact.experiment_name + 'stopped'
    runner = runner_of(stopped)
    runner.register_hook(Signal())
    with pytest.raises(SystemExit):
        runner.train()
    exact.load_from = None
    resumed = train(runner_of, exact, 'stopped', resume=True)
    check_equal(whole, resumed)
    assert sorted(resumed.steps) == [0, 1, 2]
