"""The teacher: its average, its policies for buffers, and that nothing else changes it."""

import io
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import MomentumAnnealingEMA
from mmengine.optim import build_optim_wrapper
from torch import nn

from allspark_mmseg.teacher import Teacher

from .helpers.tiny_models import (
    CROP,
    batch,
    behind_bottleneck,
    build_model,
    losses_in,
    same,
    tiny_head,
    tiny_resnet,
    tiny_segmentor,
    train_steps,
)


class Net(nn.Module):
    """A parameter and buffers of all sorts."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
        self.register_buffer('memory', torch.zeros(4))
        self.register_buffer('pointer', torch.zeros(2, dtype=torch.long))
        self.register_buffer('filled', torch.zeros(2, dtype=torch.bool))


def moved(model: nn.Module, by: float = 1.0) -> nn.Module:
    """Every float moved at random, in place, and every other number drawn anew."""
    with torch.no_grad():
        for value in itertools.chain(model.parameters(), model.buffers()):
            if value.is_floating_point():
                value.add_(by * torch.randn_like(value))
            else:
                value.copy_(torch.randint(100, value.shape))
    return model


def state(model: nn.Module) -> dict:
    return {name: value.clone() for name, value in model.state_dict().items()}


def stored(model: nn.Module) -> dict:
    """The state, once through a file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def self_training(segmentor: dict | None = None, **overrides) -> nn.Module:
    return build_model(
        dict(type='allspark_mmseg.SelfTraining', segmentor=segmentor or tiny_segmentor(), **overrides)
    )


def decays(teacher: Teacher, student: nn.Module, steps: int) -> list[float]:
    """The share of the teacher in each update: a teacher of 1 and a student of 0."""
    found = []
    for _ in range(steps):
        with torch.no_grad():
            teacher.module.weight.fill_(1)
        teacher.update_parameters(student)
        found.append(teacher.module.weight.item())
    return found


@pytest.fixture
def zero() -> nn.Module:
    student = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(student.weight)
    return student


def test_decays_of_the_warm_up(zero):
    found = decays(Teacher(zero), zero, 300)
    assert found[:3] == pytest.approx([0, 1 / 2, 2 / 3], rel=1e-12)
    assert found[:250] == pytest.approx([1 - 1 / (t + 1) for t in range(250)], rel=1e-12)
    assert found[248] < 0.996 - 1e-6
    assert found[249:] == pytest.approx([0.996] * 51, rel=1e-12)


@pytest.mark.parametrize('momentum', [0.3, 1.0])
def test_without_warm_up_the_momentum_holds_from_the_first_step(zero, momentum):
    assert decays(Teacher(zero, momentum, warm_up=False), zero, 5) == pytest.approx([1 - momentum] * 5)
    assert decays(Teacher(zero, momentum), zero, 5) == pytest.approx(
        [min(1 - 1 / (t + 1), 1 - momentum) for t in range(5)]
    )


def test_it_is_the_release_s_after_iteration_12(golden):
    vectors = golden('unimatch_step')
    student = nn.BatchNorm1d(1)
    teacher = Teacher(student)
    teacher.steps.fill_(12)
    for net, weight, mean in ((student, 3.0, 5.0), (teacher.module, 1.0, -1.0)):
        nn.init.constant_(net.weight, weight)
        net.running_mean.fill_(mean)
    teacher.update_parameters(student)
    for found, name in (
        (teacher.module.weight, 'ema_from_1_to_3_at_iter_12'),
        (teacher.module.running_mean, 'ema_buffer_from_-1_to_5_at_iter_12'),
    ):
        expected = vectors[f'unimatch_v2.{name}'].to(found).expand_as(found)
        torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=0)


def test_the_first_update_copies_the_student_exactly():
    student = moved(Net())
    teacher = Teacher(student)
    moved(student, 1e3)
    teacher.update_parameters(student)
    assert same(teacher.module.state_dict(), student.state_dict())


def test_the_average_equals_that_of_mmengine():
    student = moved(Net())
    ours = Teacher(student, momentum=0.01)
    theirs = MomentumAnnealingEMA(student, momentum=0.01, gamma=1, update_buffers=True)
    for _ in range(150):
        moved(student, 0.1)
        ours.update_parameters(student)
        theirs.update_parameters(student)
    expected = theirs.module.state_dict()
    for name, value in ours.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)
            assert not torch.equal(value, student.state_dict()[name])
        else:  # MMEngine leaves them as they were after the first step
            assert torch.equal(value, student.state_dict()[name])
    assert ours.steps == theirs.steps == 150


@pytest.mark.parametrize('policy', ['average', 'copy', 'leave'])
def test_each_policy_applies_to_all_buffers(policy):
    student = moved(Net())
    teacher = Teacher(student, 0.25, warm_up=False, buffers=policy)
    before = state(teacher.module)
    now = state(moved(student))
    teacher.update_parameters(student)
    for name, value in teacher.module.state_dict().items():
        average = name in dict(student.named_parameters()) or policy == 'average'
        if average and value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * now[name])
        else:
            assert torch.equal(value, before[name] if policy == 'leave' else now[name]), name
        assert policy == 'leave' or value.dtype == torch.bool or not torch.equal(value, before[name]), name
    assert same(student.state_dict(), now)


def test_the_longest_matching_substring_wins():
    policies = {'memory': 'leave', 'head.memory': 'copy', 'memory.rows': 'average', 'running': 'copy'}
    teacher = Teacher(Net(), buffers=policies)
    for name, policy in {
        'net.1.running_mean': 'copy',
        'memory.pointer': 'leave',
        'head.memory.pointer': 'copy',
        'other.memory.rows': 'average',
        'other': 'average',
    }.items():
        assert teacher.policy(name) == policy, name
    assert Teacher(Net(), buffers={'': 'leave', 'net': 'copy'}).policy('memory') == 'leave'
    assert Teacher(Net(), buffers='copy').policy('memory') == 'copy'

    student = moved(Net())
    teacher = Teacher(student, 0.5, warm_up=False, buffers={'': 'copy', 'memory': 'leave', 'net': 'average'})
    before = state(teacher.module)
    now = state(moved(student))
    teacher.update_parameters(student)
    found = teacher.module.state_dict()
    assert torch.equal(found['memory'], before['memory'])
    assert torch.equal(found['pointer'], now['pointer']) and torch.equal(found['filled'], now['filled'])
    torch.testing.assert_close(
        found['net.1.running_var'], (before['net.1.running_var'] + now['net.1.running_var']) / 2
    )
    assert torch.equal(found['net.1.num_batches_tracked'], now['net.1.num_batches_tracked'])


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-4, 1), st.booleans(), st.integers(1, 12), st.integers(0, 99))
def test_the_average_is_the_formula(momentum, warm_up, steps, seed):
    torch.manual_seed(seed)
    student = moved(nn.Linear(3, 2))
    teacher = Teacher(student, momentum, warm_up)
    expected = student.weight.detach().double()
    for t in range(steps):
        moved(student)
        teacher.update_parameters(student)
        share = max(momentum, 1 / (t + 1)) if warm_up else momentum
        expected = (1 - share) * expected + share * student.weight.detach().double()
    torch.testing.assert_close(teacher.module.weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert teacher.steps == steps


def test_parameters_of_several_types_are_averaged():
    """As a backbone in half precision beside a head in single precision."""
    student = nn.ModuleList([nn.Linear(2, 2).bfloat16(), nn.Linear(2, 2), nn.Linear(2, 2).double()])
    teacher = Teacher(student, 0.5, warm_up=False)
    before = state(teacher.module)
    moved(student)
    teacher.update_parameters(student)
    for name, value in teacher.module.state_dict().items():
        torch.testing.assert_close(value, (before[name] + student.state_dict()[name]) / 2)


def test_the_teacher_stays_in_eval_mode_and_has_no_gradients():
    model = self_training(tiny_segmentor(decode_head=tiny_head() | dict(dropout_ratio=0.9)), teacher=dict())
    assert not any(module.training for module in model.teacher.modules()), 'as built'
    for mode in (True, False, True):
        model.train(mode)
        assert model.student.training == mode
        assert not any(module.training for module in model.teacher.modules())
    model.teacher.train()
    assert not any(module.training for module in model.teacher.modules())
    assert not any(value.requires_grad for value in model.teacher.parameters())
    image = torch.randn(1, 3, *CROP)
    assert torch.equal(model.make_pseudo_labels(image).logits, model.make_pseudo_labels(image).logits)


def test_a_checkpoint_holds_the_weights_and_the_step_counter():
    model = self_training(teacher=dict())
    for _ in range(3):
        moved(model.student, 0.1)
        model.teacher.update_parameters(model.student)
    found = stored(model)
    assert found['teacher.steps'] == 3
    names = {f'teacher.module.{name}' for name in model.student.state_dict()}
    assert names == {name for name in found if name.startswith('teacher.module.')}
    assert not any(torch.equal(found[f'teacher.module.{n}'], found[f'student.{n}'])
                   for n, value in model.student.named_parameters())  # fmt: skip


@pytest.mark.parametrize('buffers', ['average', {'': 'copy', 'running_mean': 'leave'}])
def test_a_resumed_run_equals_an_uninterrupted_one(buffers):
    def build() -> nn.Module:
        torch.manual_seed(0)
        return self_training(teacher=dict(momentum=0.3, buffers=buffers), unlabeled_weight=0.9).train()

    steps = [batch() for _ in range(5)]
    whole = build()
    logged, expected = [], None
    for step in steps:  # step by step, as train_steps seeds each of its calls
        entries, expected = train_steps(whole, [step])
        logged += entries
    first = build()
    for step in steps[:2]:
        train_steps(first, [step])
    again = moved(build())
    again.load_state_dict(stored(first))
    for step, entries in zip(steps[2:], logged[2:], strict=True):
        (found,), last = train_steps(again, [step])
        assert same(found, entries)
    assert same(last, expected)
    assert again.teacher.steps == 5


def test_init_weights_copies_the_student_to_the_teacher():
    """From an ``init_cfg`` that draws random numbers, in student and teacher the same."""
    model = self_training(
        tiny_segmentor(init_cfg=dict(type='Normal', layer='Conv2d', std=0.5)), teacher=dict()
    )
    built = state(model.student)
    moved(model.teacher.module)
    model.teacher.steps.fill_(7)
    model.init_weights()
    assert not same(state(model.student), built)
    assert same(model.teacher.module.state_dict(), model.student.state_dict())
    assert model.teacher.steps == 0
    for ours, theirs in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
        assert ours.data_ptr() != theirs.data_ptr()
        assert theirs.requires_grad and not ours.requires_grad
    moved(model.teacher.module)
    before = state(model)
    model.init_weights()  # MMEngine leaves alone what it has initialized
    assert same(state(model), before)


@pytest.mark.parametrize(
    'paramwise',
    [None, dict(custom_keys={'decode_head': dict(lr_mult=10.0), 'norm': dict(decay_mult=0.0)})],
)
def test_the_optimizer_does_not_change_the_teacher(paramwise):
    model = self_training(teacher=dict()).train()
    optimizer = ConfigDict(type='AdamW', lr=0.1, weight_decay=0.9)
    config = ConfigDict(type='OptimWrapper', optimizer=optimizer)
    if paramwise is not None:
        config.paramwise_cfg = ConfigDict(paramwise)
    wrapper = build_optim_wrapper(model, config)
    teacher, student = state(model.teacher), state(model.student)
    for _ in range(2):
        wrapper.update_params(losses_in(model.loss(*batch())))
    assert same(model.teacher.state_dict(), teacher)
    for name, value in model.student.named_parameters():
        assert not torch.equal(value, student[name]), name
    updated = {id(value) for value in wrapper.optimizer.state}
    assert updated == {id(value) for value in model.student.parameters()}


def test_the_memory_of_an_allspark_student_can_be_left_out():
    segmentor = behind_bottleneck(tiny_segmentor())
    model = build_model(
        dict(
            type='allspark_mmseg.AllSpark',
            segmentor=segmentor,
            teacher=dict(momentum=0.5, buffers={'': 'average', 'bottleneck.memory': 'leave'}),
        )
    ).train()
    found = {name for name in dict(model.student.named_buffers()) if 'memory' in name}
    assert 'decode_head.bottleneck.memory.rows' in found
    assert {model.teacher.policy(name) for name in found} == {'leave'}
    before = state(model.teacher.module)
    train_steps(model, [batch(), batch()])
    after, student = model.teacher.module.state_dict(), model.student.state_dict()
    for name in found:
        assert torch.equal(after[name], before[name]), name
    assert not torch.equal(student['decode_head.bottleneck.memory.rows'],
                           after['decode_head.bottleneck.memory.rows'])  # fmt: skip
    norm = next(name for name in student if name.endswith('running_mean'))
    assert not torch.equal(after[norm], before[norm])


def test_frozen_norms_stay_equal_in_student_and_teacher():
    model = self_training(tiny_resnet(), teacher=dict()).train()
    train_steps(model, [batch(), batch()])
    for name, value in model.teacher.module.named_buffers():
        if name.startswith('backbone.'):
            assert torch.equal(value, model.student.get_buffer(name))


@pytest.mark.parametrize('momentum, message', [(0.996, 'set momentum=0.004'), (0.3, ''), (1.0, '')])
def test_a_decay_given_as_momentum_gives_a_warning(capsys, momentum, message):
    name = f'warned_of_{momentum}'
    MMLogger.get_instance(name, logger_name=name)
    Teacher(Net(), momentum)
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert (message in text) if message else 'momentum' not in text


@pytest.mark.parametrize('momentum', [0, -0.1, 1.5, float('nan')])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(
        ValueError, match=rf'Teacher: momentum is {momentum}, expected a share of the student in \(0, 1\]'
    ):
        Teacher(Net(), momentum)


@pytest.mark.parametrize('buffers', ['ignore', {'memory': 'ignore'}, {'': 'ignore'}])
def test_unknown_policies_are_refused(buffers):
    with pytest.raises(ValueError, match=r"Teacher: buffers is .*'ignore'.*, expected one of .*'leave'"):
        Teacher(Net(), buffers=buffers)


def test_predicting_with_a_missing_teacher_is_refused():
    with pytest.raises(ValueError, match=r"SelfTraining: predict_on is 'teacher'.*teacher=dict"):
        self_training(predict_on='teacher')
    for teacher in (None, dict()):
        with pytest.raises(ValueError, match="SelfTraining: predict_on is 'both', expected 'student'"):
            self_training(predict_on='both', teacher=teacher)
    assert self_training(predict_on='teacher', teacher=dict()).predictor is not None
