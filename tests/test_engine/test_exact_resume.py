"""A run that was killed and resumed equals one that was never killed, bit for bit."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement

from allspark_mmseg.engine import ExactResumeHook, load_checkpoint_file
from allspark_mmseg.engine.hooks import exact_resume
from allspark_mmseg.engine.hooks.exact_resume import FORMAT
from allspark_mmseg.engine.loops import PhaseTrainLoop, ResumableEpochLoop

from ..helpers.tiny_models import tiny_segmentor


class Killed(BaseException):
    """In place of SIGKILL: the run ends without any further code of the hooks."""


class Watch(Hook):
    """Notes the images and the losses of each step, and kills the run before a step."""

    priority = 'LOWEST'

    def __init__(self, kill_at: int | None = None) -> None:
        self.kill_at = kill_at
        self.steps: dict[int, tuple] = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        images = []
        for image in data_batch['inputs']:
            views = sorted(image.keys()) if isinstance(image, BaseDataElement) else []
            images += [image.get(name) for name in views] or [image]
        losses = {name: value.item() for name, value in outputs.items()}
        self.steps[runner.iter] = (torch.stack(images), losses)
        if runner.iter + 1 == self.kill_at:
            raise Killed


@pytest.fixture
def exact(with_validation) -> Config:
    """Three epochs of two iterations: random crops, flips and colors, dropout, and a teacher."""
    config = with_validation
    for stream in ('labeled', 'unlabeled'):
        config.train_dataloader.dataset[stream].pipeline.insert(-1, dict(type='RandomFlip', prob=0.5))
        config.train_dataloader.dataset[stream].pipeline.insert(-1, dict(type='PhotoMetricDistortion'))
    config.model.segmentor.decode_head.decoder.dropout_ratio = 0.5
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=1)
    config.default_hooks.checkpoint.update(by_epoch=False, interval=1)
    config.default_hooks.exact_resume = dict(type='allspark_mmseg.ExactResumeHook')
    config.custom_hooks += [
        dict(type='allspark_mmseg.MeanTeacherHook'),
        dict(type='allspark_mmseg.MemoryWarmUpHook', iters=2),
    ]
    config.randomness = dict(seed=3, diff_rank_seed=True)
    return config


def use_iterations(config: Config) -> None:
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=2)


def use_mean_teacher(config: Config) -> None:
    config.model = dict(
        type='allspark_mmseg.MeanTeacher', segmentor=tiny_segmentor(), unlabeled_view='weak',
        teacher=dict(momentum=0.1),
    )  # fmt: skip
    config.custom_hooks = config.custom_hooks[:-1]


def use_labeled_images(sampler: str, config: Config) -> None:
    config.model = tiny_segmentor()
    dataset = config.train_dataloader.dataset
    dataset.unlabeled = None
    dataset.labeled.pipeline[-1] = dict(type='PackSegInputs')
    config.train_dataloader.batch_size = 2
    config.train_dataloader.sampler = ConfigDict(type=sampler, shuffle=True)
    config.custom_hooks = config.custom_hooks[:-2]


def use_default_sampler(config: Config) -> None:
    use_labeled_images('DefaultSampler', config)


def use_infinite_sampler(config: Config) -> None:
    use_labeled_images('InfiniteSampler', config)
    use_iterations(config)


def use_two_phases(config: Config) -> None:
    use_mean_teacher(config)
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=3, val_interval=2)
    config.custom_hooks.append(dict(type='allspark_mmseg.WarmStartHook', max_iters=3, val_interval=2))


def accumulate(config: Config) -> None:
    config.optim_wrapper.accumulative_counts = 4


def train(runner_of, config: Config, name: str, kill_at: int | None = None, resume: bool = False) -> Watch:
    config = copy.deepcopy(config)
    config.work_dir = str(Path(config.work_dir, name))
    config.experiment_name += f'{name}_{kill_at}_{resume}'
    config.visualizer.name += f'{name}_{kill_at}_{resume}'
    config.resume = resume
    runner, watch = runner_of(config), Watch(kill_at)
    runner.register_hook(watch)
    if kill_at is None:
        runner.train()
    else:
        with pytest.raises(Killed):
            runner.train()
    watch.state = copy.deepcopy(runner.model.state_dict())
    watch.runner = runner
    return watch


def check_equal(one: Watch, other: Watch) -> None:
    for step in other.steps:
        assert torch.equal(one.steps[step][0], other.steps[step][0]), f'images of step {step}'
        assert one.steps[step][1] == other.steps[step][1], f'losses of step {step}'
    assert one.state.keys() == other.state.keys()
    for key, value in one.state.items():
        assert torch.equal(value, other.state[key]), key


@pytest.mark.parametrize(
    ('change', 'kill_at'),
    [
        (None, 1),
        (None, 2),
        (use_iterations, 3),
        (use_mean_teacher, 3),
        (use_two_phases, 2),
        (use_two_phases, 5),
        (use_default_sampler, 3),
        (use_infinite_sampler, 3),
        (accumulate, 3),
    ],
)
def test_a_killed_run_ends_with_the_same_bits(exact, runner_of, change, kill_at):
    if change is not None:
        change(exact)
    whole = train(runner_of, exact, 'whole')
    assert sorted(whole.steps) == list(range(6))
    train(runner_of, exact, 'killed', kill_at)
    resumed = train(runner_of, exact, 'killed', resume=True)
    # the kill comes before the checkpoint of its step or after it, with equal priority
    assert sorted(resumed.steps) in ([*range(kill_at, 6)], [*range(kill_at - 1, 6)])
    check_equal(whole, resumed)


@pytest.mark.parametrize('workers', [1, 3])
def test_workers_do_not_change_the_images(exact, runner_of, workers):
    """Also with persistent workers, which MMEngine seeds once."""
    alone = train(runner_of, exact, 'alone')
    exact.train_dataloader.update(num_workers=workers, persistent_workers=workers == 1)
    check_equal(alone, train(runner_of, exact, 'workers'))


def test_images_differ_between_epochs_and_positions(exact, runner_of):
    """Three labeled images: each occurs twice in six steps, with other crops."""
    watch = train(runner_of, exact, 'whole')
    images = torch.cat([images for images, _ in watch.steps.values()])
    assert len({image.numpy().tobytes() for image in images}) == len(images) == 18


def test_stock_loops_are_replaced(exact, runner_of):
    assert type(train(runner_of, exact, 'epochs').runner.train_loop) is ResumableEpochLoop
    use_iterations(exact)
    assert type(train(runner_of, exact, 'iterations').runner.train_loop) is PhaseTrainLoop


def test_a_cut_off_validation_is_repeated(exact, runner_of):
    class KillInValidation(Hook):
        def before_val(self, runner):
            raise Killed

    config = copy.deepcopy(exact)
    config.work_dir = str(Path(config.work_dir, 'killed'))
    runner = runner_of(config)
    runner.register_hook(KillInValidation())
    with pytest.raises(Killed):
        runner.train()
    resumed = train(runner_of, exact, 'killed', resume=True)
    scores = resumed.runner.message_hub.get_scalar('val/mIoU').data[0]
    assert len(scores) == 3


def test_another_number_of_images_per_step_is_refused(exact, runner_of):
    train(runner_of, exact, 'killed', 3)
    exact.train_dataloader.batch_size = 4
    exact.train_dataloader.sampler.labeled = 2
    message = r'3 images per step \(1 processes\), but this run has 4 \(1 processes\)'
    with pytest.raises(ValueError, match=message):
        train(runner_of, exact, 'killed', resume=True)
    exact.default_hooks.exact_resume.allow_new_batch = True
    resumed = train(runner_of, exact, 'killed', resume=True)
    assert max(resumed.steps) == 5


def test_a_checkpoint_without_the_hook_is_resumed_with_a_warning(exact, runner_of, tmp_path):
    hook = exact.default_hooks.pop('exact_resume')
    train(runner_of, exact, 'killed', 2)
    exact.default_hooks.exact_resume = hook
    exact.log_level = 'WARNING'
    resumed = train(runner_of, exact, 'killed', resume=True)
    (log, *_) = sorted(Path(resumed.runner.work_dir).glob('*/*.log'), reverse=True)
    assert 'ExactResumeHook: the checkpoint is from a run without this hook' in log.read_text()


def test_a_complete_run_has_nothing_to_resume(exact, runner_of):
    exact.log_level = 'WARNING'
    train(runner_of, exact, 'whole')
    resumed = train(runner_of, exact, 'whole', resume=True)
    (log, *_) = sorted(Path(resumed.runner.work_dir).glob('*/*.log'), reverse=True)
    assert 'is complete: 6 of 6 iterations. To train again' in log.read_text() and not resumed.steps


def test_a_checkpoint_of_a_newer_version_is_refused(exact, runner_of):
    killed = train(runner_of, exact, 'killed', 3)
    path = Path(Path(killed.runner.work_dir, 'last_checkpoint').read_text())
    checkpoint = load_checkpoint_file(path)
    checkpoint['exact_resume'].update(format=FORMAT + 1, version='9.0')
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r'from allspark_mmseg 9\.0, whose checkpoints .*Update'):
        train(runner_of, exact, 'killed', resume=True)


def test_processes_that_resume_at_different_iterations_are_refused(exact, runner_of, monkeypatch):
    train(runner_of, exact, 'killed', 3)
    monkeypatch.setattr(exact_resume, 'all_gather_object', lambda value: [value, value - 1])
    with pytest.raises(ValueError, match='processes have resumed at different iterations'):
        train(runner_of, exact, 'killed', resume=True)


def test_generators_are_a_function_of_seed_process_and_iteration(monkeypatch):
    class FakeRunner:
        iter = 5

    def draw(seed: int, rank: int, iteration: int) -> float:
        monkeypatch.setattr('allspark_mmseg.engine.hooks.exact_resume.get_rank', lambda: rank)
        hook, runner = ExactResumeHook(), FakeRunner()
        hook.seed, runner.iter = seed, iteration
        hook.before_train_iter(runner, 0)
        return torch.rand(()).item()

    keys = [(seed, rank, step) for seed in (0, 1) for rank in (0, 1) for step in (0, 1)]
    values = [draw(*key) for key in keys]
    assert len(set(values)) == len(values)
    assert values == [draw(*key) for key in keys]


def test_without_the_hook_the_runs_differ(exact, runner_of):
    """The comparison above can fail."""
    del exact.default_hooks.exact_resume
    whole = train(runner_of, exact, 'whole')
    train(runner_of, exact, 'killed', 3)
    with pytest.raises((AssertionError, KeyError)):
        check_equal(whole, train(runner_of, exact, 'killed', resume=True))
