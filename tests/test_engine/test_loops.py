"""Validating student and teacher, one after the other."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import ValLoop

from ..helpers.tiny_models import tiny_segmentor

NAMES = {'aAcc', 'mIoU', 'mAcc'}


def semi(**overrides) -> ConfigDict:
    return ConfigDict(
        type='allspark_mmseg.SelfTraining', segmentor=tiny_segmentor(), **(dict(teacher=dict()) | overrides)
    )


@pytest.fixture
def both(with_validation):
    """A config that validates both; every image has its own classes, so that mIoU tells them apart."""
    with_validation.model = semi()
    with_validation.val_cfg.type = 'allspark_mmseg.TeacherStudentValLoop'
    with_validation.custom_hooks += [ConfigDict(type='allspark_mmseg.MeanTeacherHook')]
    return with_validation


def set_apart(model) -> None:
    """The student sees class 0 everywhere, the teacher mostly class 1."""
    with torch.no_grad():
        for segmentor, favored in ((model.student, 0), (model.teacher.module, 1)):
            bias = segmentor.decode_head.conv_seg.bias
            bias.zero_()[favored] = 2.0


def ordinary(runner) -> dict:
    """Metrics of MMEngine's loop."""
    loop = ValLoop(runner, runner.val_dataloader, runner.val_evaluator)
    return loop.run()


@pytest.mark.parametrize('chosen, other', [('student', 'teacher'), ('teacher', 'student')])
def test_metrics_are_those_of_two_validations(both, runner_of, chosen, other):
    both.model.predict_on = chosen
    runner = runner_of(both)
    set_apart(runner.model)
    runner.model.train()
    metrics = runner.val()
    assert not runner.model.training
    assert runner.model.predict_on == chosen
    assert set(metrics) == NAMES | {f'{other}/{name}' for name in NAMES}
    assert next(iter(metrics)) in NAMES, "save_best='auto' takes the first"
    of_chosen = ordinary(runner)
    runner.model.predict_on = other
    of_other = ordinary(runner)
    assert of_chosen['mIoU'] != of_other['mIoU']
    assert metrics == of_chosen | {f'{other}/{name}': value for name, value in of_other.items()}


class Noting(Hook):
    def __init__(self):
        self.calls = []

    def before_val(self, runner):
        self.calls.append('before_val')

    def before_val_epoch(self, runner):
        self.calls.append('before_val_epoch')

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.calls.append((runner.model.predict_on, batch_idx))

    def after_val_epoch(self, runner, metrics=None):
        self.calls.append(sorted(metrics))

    def after_val(self, runner):
        self.calls.append('after_val')


def test_hooks_are_called_once_and_the_one_that_predicts_comes_last(both, runner_of):
    """So that pictures drawn of each batch are its own."""
    runner = runner_of(both)
    noting = Noting()
    runner.register_hook(noting)
    metrics = runner.val()
    expected = ['before_val', 'before_val_epoch']
    expected += [(who, number) for who in ('teacher', 'student') for number in range(3)]
    assert noting.calls == [*expected, sorted(metrics), 'after_val']


@pytest.mark.parametrize('failing', [1, 4])
def test_who_predicts_is_put_back_after_an_error(both, runner_of, failing):
    """Within the first or the second validation of three images each."""
    runner = runner_of(both)

    class Failing(Hook):
        count = 0

        def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.count += 1
            if self.count == failing:
                raise RuntimeError('disk full')

    runner.register_hook(Failing())
    with pytest.raises(RuntimeError, match='disk full'):
        runner.val()
    assert runner.model.predict_on == 'student'


@pytest.mark.parametrize('model', [semi(teacher=None), ConfigDict(tiny_segmentor())])
def test_without_a_teacher_it_is_refused_before_training(both, runner_of, model):
    both.model = copy.deepcopy(model)
    both.custom_hooks = []
    runner = runner_of(both)
    with pytest.raises(ValueError, match=r"TeacherStudentValLoop: the \w+ has no teacher\. .*'ValLoop'"):
        runner.train()
    assert runner.iter == 0


def test_the_best_checkpoint_of_each_can_be_kept(both, runner_of):
    both.default_hooks.checkpoint.save_best = ['mIoU', 'teacher/mIoU']
    runner = runner_of(both)
    runner.train()
    found = sorted(path.name for path in Path(runner.work_dir).glob('best_*.pth'))
    assert found == ['best_mIoU_epoch_2.pth', 'best_teacher_mIoU_epoch_2.pth']
