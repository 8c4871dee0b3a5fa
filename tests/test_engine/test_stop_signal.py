"""A signal ends a run after the step of the optimizer; tests/test_reliability.py sends real ones."""

import copy
import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from allspark_mmseg.engine import StopSignalHook
from allspark_mmseg.engine.hooks.stop_signal import EXIT_CODE


class Signal(Hook):
    """Lets StopSignalHook receive a signal in an iteration."""

    priority = 'VERY_HIGH'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            (hook,) = (hook for hook in runner.hooks if isinstance(hook, StopSignalHook))
            hook._receive(signal.SIGTERM, None)


@pytest.fixture
def train(config, runner_of):
    """Train four iterations, with checkpoints by signals only: (name, iteration, resume) -> runner."""
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4)
    config.default_hooks.checkpoint.update(by_epoch=False, interval=100, save_last=False)
    config.default_hooks.update(
        exact_resume=dict(type='allspark_mmseg.ExactResumeHook'),
        stop_signal=dict(type='allspark_mmseg.StopSignalHook'),
    )

    def call(name: str, iteration: int | None = None, resume: bool = False, counts: int = 1):
        own = copy.deepcopy(config)
        own.optim_wrapper.accumulative_counts = counts
        own.work_dir, own.resume = str(Path(own.work_dir, name)), resume
        own.experiment_name += f'{name}{iteration}{resume}'
        runner = runner_of(own)
        if iteration is None:
            runner.train()
            return runner
        runner.register_hook(Signal(iteration))
        with pytest.raises(SystemExit) as caught:
            runner.train()
        assert caught.value.code == EXIT_CODE
        return runner

    return call


def check_equal(one, other) -> None:
    found = other.model.state_dict()
    for key, value in one.model.state_dict().items():
        assert torch.equal(value, found[key]), key


def test_a_step_of_accumulated_gradients_is_completed(train):
    whole = train('whole', counts=2)
    stopped = train('stopped', iteration=0, counts=2)
    assert (Path(stopped.work_dir) / 'iter_2.pth').is_file()
    assert not (Path(stopped.work_dir) / 'iter_1.pth').exists()
    check_equal(whole, train('stopped', resume=True, counts=2))


def test_a_checkpoint_of_an_earlier_run_is_replaced(train):
    whole = train('whole')
    stale = Path(whole.work_dir).parent / 'stopped' / 'iter_2.pth'
    stale.parent.mkdir()
    stale.write_bytes(b'of an earlier run')
    train('stopped', iteration=1)
    check_equal(whole, train('stopped', resume=True))


def test_a_worker_that_ends_first_does_not_interrupt_the_step(train, monkeypatch):
    """A signal to the process group can end a worker before this process: PyTorch's handler then raises."""

    def fail(number, frame):
        raise RuntimeError('a worker has ended')

    begin, step = StopSignalHook.before_train, StopSignalHook.after_train_iter

    def begin_with_workers(self, runner):
        begin(self, runner)
        signal.signal(signal.SIGCHLD, fail)

    def end_worker(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGCHLD)
        step(self, *args, **kwargs)

    monkeypatch.setattr(StopSignalHook, 'before_train', begin_with_workers)
    monkeypatch.setattr(StopSignalHook, 'after_train_iter', end_worker)
    stopped = train('stopped', iteration=1)
    assert (Path(stopped.work_dir) / 'iter_2.pth').is_file()


def test_a_system_without_signals_of_children(train, monkeypatch):
    """Windows has no SIGCHLD."""
    whole = train('whole')
    with monkeypatch.context() as patch:
        patch.delattr(signal, 'SIGCHLD')
        stopped = train('stopped', iteration=1)
    assert (Path(stopped.work_dir) / 'iter_2.pth').is_file()
    check_equal(whole, train('stopped', resume=True))


@pytest.mark.parametrize('iteration', [None, 1])
def test_the_former_handlers_come_back(train, iteration):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    train('whole', iteration)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
