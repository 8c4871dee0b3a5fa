"""When the teacher follows: once for each step of the optimizer, on all processes alike."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.runner.priority import get_priority

from allspark_mmseg.engine import MeanTeacherHook, SyncBNStatsHook
from allspark_mmseg.engine.hooks.startup_check import StartupCheckHook

from ..helpers.ranks import on_two_ranks
from ..helpers.tiny_models import batch, build_model, same, tiny_segmentor


def self_training(**overrides) -> ConfigDict:
    return ConfigDict(type='allspark_mmseg.SelfTraining', segmentor=tiny_segmentor(), **overrides)


@pytest.fixture
def with_teacher(config):
    config.model = self_training(teacher=dict(momentum=0.5))
    config.custom_hooks += [ConfigDict(type='allspark_mmseg.MeanTeacherHook')]
    return config


@pytest.mark.parametrize('accumulated, steps', [(1, 4), (3, 2)])
def test_one_update_for_each_step_of_the_optimizer(with_teacher, runner_of, accumulated, steps):
    """Four iterations; what is left at the end makes a step of its own."""
    with_teacher.optim_wrapper.accumulative_counts = accumulated
    runner = runner_of(with_teacher)
    model, students = runner.model, []
    update = model.teacher.update_parameters

    def noting(student):
        students.append(student.decode_head.conv_seg.weight.detach().clone())
        update(student)

    model.teacher.update_parameters = noting
    start = model.student.decode_head.conv_seg.weight.detach().clone()
    runner.train()
    assert runner.iter == 4
    assert model.teacher.steps == len(students) == steps
    states = torch.stack([start, *students])
    assert len(states.unique(dim=0)) == steps + 1, 'it followed before the student moved'
    expected = students[0]  # the first update copies the student
    for student in students[1:]:
        expected = (expected + student) / 2
    torch.testing.assert_close(model.teacher.module.decode_head.conv_seg.weight, expected)


def test_a_resumed_run_keeps_its_teacher(with_teacher, runner_of):
    with_teacher.train_cfg.max_epochs = 1
    first = runner_of(with_teacher)
    first.train()
    with_teacher.train_cfg.max_epochs = 2
    with_teacher.experiment_name += '_again'
    with_teacher.resume, with_teacher.load_from = True, f'{first.work_dir}/epoch_1.pth'
    again = runner_of(with_teacher)
    found = {}

    class AtTheStart(Hook):
        def before_train(self, runner):
            found.update({name: value.clone() for name, value in runner.model.state_dict().items()})

    again.register_hook(AtTheStart())
    again.train()
    assert same(found, first.model.state_dict())
    assert found['teacher.steps'] == 2
    assert again.iter == again.model.teacher.steps == 4


def test_a_new_run_counts_from_0(with_teacher, runner_of):
    with_teacher.train_cfg.max_epochs = 1
    first = runner_of(with_teacher)
    first.train()
    assert first.model.teacher.steps == 2
    with_teacher.experiment_name += '_again'
    with_teacher.load_from = f'{first.work_dir}/epoch_1.pth'
    again = runner_of(with_teacher)
    again.train()
    assert again.model.teacher.steps == again.iter == 2


def test_without_a_teacher_it_does_nothing(with_teacher, runner_of):
    with_teacher.model = self_training()
    runner = runner_of(with_teacher)
    runner.train()
    assert runner.iter == 4
    MeanTeacherHook().after_train_iter(SimpleNamespace(model=build_model(tiny_segmentor())), 0)


def test_it_comes_before_the_statistics_are_averaged():
    assert (
        get_priority(StartupCheckHook.priority)
        < get_priority(MeanTeacherHook.priority)
        < get_priority(SyncBNStatsHook.priority)
    )


def _train_on_one_rank(rank: int, policy: str) -> dict:
    torch.manual_seed(0)
    model = build_model(self_training(teacher=dict(momentum=0.5, buffers=policy))).train()
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    wrapper = build_optim_wrapper(
        wrapped, ConfigDict(type='OptimWrapper', optimizer=ConfigDict(type='SGD', lr=0.1))
    )
    runner = SimpleNamespace(model=wrapped, optim_wrapper=wrapper)
    hooks = sorted([SyncBNStatsHook(), MeanTeacherHook()], key=lambda hook: get_priority(hook.priority))
    torch.manual_seed(10 + rank)
    before = []
    for number in range(3):
        losses = wrapped(*batch(), mode='loss')
        wrapper.update_params(model.parse_losses(losses)[0])
        before.append(model.student.decode_head.fuse.bn.running_mean.clone())
        for hook in hooks:
            hook.after_train_iter(runner, number)
    return dict(teacher=model.teacher.state_dict(), student=model.student.state_dict(), before=before)


@pytest.mark.parametrize('policy', ['average', 'copy'])
def test_teachers_of_two_processes_are_equal(policy, tmp_path):
    first, second = on_two_ranks(tmp_path, _train_on_one_rank, policy)
    assert not torch.equal(first['before'][-1], second['before'][-1]), 'both saw the same images'
    assert same(first['teacher'], second['teacher'])
    assert same(first['student'], second['student'])
    assert first['teacher']['steps'] == 3
    # as one process would with the statistics of both
    name = 'decode_head.fuse.bn.running_mean'
    together = [(ours + theirs) / 2 for ours, theirs in zip(first['before'], second['before'], strict=True)]
    expected = together[0]
    for mean in together[1:]:
        expected = (expected + mean) / 2 if policy == 'average' else mean
    torch.testing.assert_close(first['teacher'][f'module.{name}'], expected)
