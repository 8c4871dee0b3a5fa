"""Which model and which images PseudoLabelQualityHook measures, what it logs, and when it warns."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from allspark_mmseg.engine import PseudoLabelQuality, PseudoLabelQualityHook
from allspark_mmseg.engine.label_quality import pseudo_label_matrix

from ..helpers.ranks import on_two_ranks
from ..helpers.tiny_models import CLASSES, tiny_segmentor
from .conftest import NAMES, log_lines, logged_scalars, stream

THRESHOLD = 0.5
NEVER = 'No pixel of the following classes gets their pseudo-label'
SINK = 'of the pseudo-labels are'
DROP = 'The mean precision of the pseudo-labels fell'
IMAGES = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


def semi(**overrides) -> ConfigDict:
    arguments = dict(teacher=dict(), threshold=THRESHOLD) | overrides
    return ConfigDict(type='allspark_mmseg.SelfTraining', segmentor=tiny_segmentor(), **arguments)


@pytest.fixture
def config(with_validation):
    """A student and a teacher, both validated after each of two epochs."""
    with_validation.model = semi()
    with_validation.val_cfg.type = 'allspark_mmseg.TeacherStudentValLoop'
    with_validation.train_cfg.val_interval = 1
    with_validation.log_level = 'INFO'
    with_validation.val_dataloader.dataset.serialize_data = False  # collects garbage for half a second
    with_validation.custom_hooks += [
        ConfigDict(type='allspark_mmseg.MeanTeacherHook'),
        ConfigDict(type='allspark_mmseg.PseudoLabelQualityHook'),
    ]
    return with_validation


@pytest.fixture
def unlabeled_loader(data_root) -> ConfigDict:
    """Five unlabeled images whose masks exist, in batches of two."""
    dataset = dict(type='allspark_mmseg.ImageListDataset', serialize_data=False)
    dataset |= stream(data_root, 'unlabeled', IMAGES)
    sampler = dict(type='DefaultSampler', shuffle=False)
    return ConfigDict(batch_size=2, num_workers=0, sampler=sampler, dataset=dataset)


def hook_of(runner) -> PseudoLabelQualityHook:
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, PseudoLabelQualityHook)]
    return hook


def set_apart(model) -> None:
    """Student and teacher are sure of some pixels, and have other favorites."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for segmentor, favored in ((model.student, 0), (model.teacher.module, 1)):
            head = segmentor.decode_head.conv_seg
            head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
            head.bias.zero_()[favored] = 1.0


@torch.no_grad()
def measured(segmentor, model, loader, threshold=THRESHOLD) -> PseudoLabelQuality:
    """The quality of the segmentor's pseudo-labels."""
    segmentor.eval()
    thresholds = torch.tensor(threshold).repeat(CLASSES) if isinstance(threshold, float) else threshold
    matrix = torch.zeros(CLASSES + 1, CLASSES + 1, dtype=torch.int64)
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        for sample in segmentor.predict(data['inputs'], data['data_samples']):
            matrix += pseudo_label_matrix(sample.seg_logits.data, sample.gt_sem_seg.data[0], thresholds)
    return PseudoLabelQuality.from_matrix(matrix)


def same(first: PseudoLabelQuality, second: PseudoLabelQuality) -> bool:
    counts = ('labeled', 'correct', 'true')
    equal = all(np.array_equal(getattr(first, key), getattr(second, key)) for key in counts)
    return equal and first.confident == second.confident


@pytest.mark.parametrize('predict_on', ['student', 'teacher'])
@pytest.mark.parametrize('supervised_only', [False, True])
def test_of_both_models_the_labeler_is_measured(config, runner_of, predict_on, supervised_only):
    config.model.predict_on = predict_on
    runner = runner_of(config)
    model = runner.model
    model.supervised_only = supervised_only
    set_apart(model)
    runner.val()
    teacher, student = (
        measured(segmentor, model, runner.val_dataloader)
        for segmentor in (model.teacher.module, model.student)
    )
    assert 0.05 < teacher.confident < 0.95 and not same(teacher, student)
    assert same(hook_of(runner).latest, student if supervised_only else teacher)
    who = 'student' if supervised_only else 'teacher'
    title = f'Pseudo-labels of the {who} on the validation images, threshold 0.5:'
    assert sum(line.endswith(title) for line in log_lines(runner)) == 1


@pytest.mark.parametrize('predict_on', ['student', 'teacher'])
def test_the_ordinary_loop_gives_the_model_that_predicts_and_the_log_says_so(config, runner_of, predict_on):
    config.val_cfg.type = 'ValLoop'
    config.model.predict_on = predict_on
    runner = runner_of(config)
    set_apart(runner.model)
    runner.val()
    expected = measured(runner.model.predictor, runner.model, runner.val_dataloader)
    assert same(hook_of(runner).latest, expected)
    (title,) = [line for line in log_lines(runner) if 'Pseudo-labels of the' in line]
    assert f'Pseudo-labels of the {predict_on} on' in title
    assert ('teacher makes the pseudo-labels of the training, but' in title) == (predict_on == 'student')


@pytest.mark.parametrize(
    'of_model, of_hook, used',
    [(0.8, None, 0.8), (0.8, 0.0, 0.0), (None, None, 0.0), (None, 0.7, 0.7)],
)
def test_the_threshold_is_the_one_of_the_hook_or_of_the_method(config, runner_of, of_model, of_hook, used):
    config.custom_hooks[-1].threshold = of_hook
    runner = runner_of(config)
    set_apart(runner.model)
    runner.model.threshold = of_model
    runner.val()
    teacher = runner.model.teacher.module
    assert same(hook_of(runner).latest, measured(teacher, runner.model, runner.val_dataloader, used))
    assert any(f'threshold {used:g}:' in line for line in log_lines(runner))


def test_an_adaptive_threshold_has_a_value_for_each_class(config, runner_of):
    config.model.threshold = ConfigDict(type='ClassBalanced')
    runner = runner_of(config)
    set_apart(runner.model)
    threshold = runner.model.threshold
    levels = torch.linspace(0.3, 0.7, CLASSES)
    for label, level in enumerate(levels):  # all confidences of a class lie in one bin
        threshold.histogram[label, int(level * threshold.bins)] = 1.0
    runner.val()
    expected = measured(
        runner.model.teacher.module, runner.model, runner.val_dataloader, threshold.class_thresholds
    )
    assert same(hook_of(runner).latest, expected)
    assert any('threshold 0.3 to 0.7:' in line for line in log_lines(runner))


def test_each_validation_of_a_run_is_logged(config, runner_of):
    runner = runner_of(config)
    runner.train()
    latest = hook_of(runner).latest
    rows = [row for row in logged_scalars(runner) if 'pseudo_quality/mean_coverage' in row]
    assert [row['step'] for row in rows] == [2, 4]
    assert {key: value for key, value in rows[1].items() if key != 'step'} == latest.scalars(NAMES)
    lines = log_lines(runner)
    assert sum('Pseudo-labels of the teacher' in line for line in lines) == 2
    for line in latest.table(NAMES).splitlines():
        assert line in lines
    # the numbers are those of this validation alone
    assert latest.true.sum() == 3 * (72 * 80 - 5)


class Collapse(Hook):
    """The student predicts class 0 everywhere, and the first step copies it to the teacher."""

    def before_train(self, runner):
        head = runner.model.student.decode_head.conv_seg
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.tensor([9.0, 0, 0, 0]))


def test_a_resumed_run_does_not_repeat_its_warnings(config, runner_of):
    """The checkpoint of epoch 2 knows the validation after epoch 1."""
    runner = runner_of(config)
    runner.register_hook(Collapse())
    runner.train()
    assert [sum(text in line for line in log_lines(runner)) for text in (NEVER, SINK, DROP)] == [1, 1, 0]
    state = runner.message_hub.get_info('pseudo_label_quality')
    again = copy.deepcopy(config)
    again.update(load_from=str(Path(runner.work_dir) / 'epoch_2.pth'), resume=True)
    again.update(experiment_name=f'{config.experiment_name}_again', work_dir=f'{config.work_dir}_again')
    again.visualizer.name += '_again'
    again.train_cfg.max_epochs = 3
    resumed = runner_of(again)
    resumed.register_hook(Collapse())
    resumed.train()
    lines = log_lines(resumed)
    assert sum('Pseudo-labels of the teacher' in line for line in lines) == 1
    assert not any(text in line for line in lines for text in (NEVER, SINK, DROP))
    found = resumed.message_hub.get_info('pseudo_label_quality')
    assert found['done'] == state['done'] == ['sink', 'unlearnable']
    assert found['best'] >= state['best'] > 0


def prediction(labels: list[int], truth: list[int]) -> SegDataSample:
    """A sure prediction of a row of pixels."""
    logits = 9 * torch.nn.functional.one_hot(torch.tensor([labels]), CLASSES).permute(2, 0, 1).float()
    mask = torch.tensor([[truth]])
    return SegDataSample(seg_logits=PixelData(data=logits), gt_sem_seg=PixelData(data=mask))


def validate(runner, hook, *samples: SegDataSample) -> None:
    """What a validation that predicts these samples does to the hook."""
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, None, list(samples))
    hook.after_val_epoch(runner)


@pytest.fixture
def plain_loop(config, runner_of):
    """A runner whose validation loop validates the teacher, which makes the pseudo-labels."""
    config.val_cfg.type = 'ValLoop'
    config.model.predict_on = 'teacher'
    return runner_of(config)


def warnings_in(runner) -> list[str]:
    texts = [text for line in log_lines(runner) for text in (NEVER, SINK, DROP) if text in line]
    assert sum('WARNING' in line and 'pseudo-label' in line for line in log_lines(runner)) == len(texts)
    return texts


def test_each_warning_appears_once(plain_loop):
    runner, hook = plain_loop, hook_of(plain_loop)
    good = prediction([0, 1, 2, 3], [0, 1, 2, 3])
    worse = prediction([0, 1, 2, 3], [0, 1, 2, 0])
    collapsed = prediction([0, 0, 0, 0], [0, 1, 2, 3])
    validate(runner, hook, good)
    assert warnings_in(runner) == []
    validate(runner, hook, worse)  # 1 -> 0.75
    assert warnings_in(runner) == [DROP]
    validate(runner, hook, good)
    validate(runner, hook, worse)
    assert warnings_in(runner) == [DROP]
    validate(runner, hook, collapsed)
    validate(runner, hook, collapsed)
    # classes without pseudo-labels are named after the first validation only
    assert warnings_in(runner) == [DROP, SINK]


def test_a_small_drop_is_no_drop(plain_loop):
    hook = hook_of(plain_loop)
    hook.max_drop = 0.3
    validate(plain_loop, hook, prediction([0, 1, 2, 3], [0, 1, 2, 3]))
    validate(plain_loop, hook, prediction([0, 1, 2, 3], [0, 1, 2, 0]))
    assert warnings_in(plain_loop) == []


def test_a_lower_precision_of_more_pseudo_labels_is_no_drop(plain_loop):
    few = prediction([0, 1, 2, 3], [0, 1, 2, 3])
    few.seg_logits.data[..., 1:] = 0  # unsure
    validate(plain_loop, hook_of(plain_loop), few)
    validate(plain_loop, hook_of(plain_loop), prediction([0, 1, 2, 3], [0, 1, 2, 0]))
    assert DROP not in warnings_in(plain_loop)


def test_classes_that_never_get_a_label_are_named_at_the_first_validation_with_labels(plain_loop):
    runner, hook = plain_loop, hook_of(plain_loop)
    sure = prediction([0, 1, 1, 0], [0, 1, 2, 3])
    unsure = sure.clone()
    unsure.seg_logits = PixelData(data=torch.zeros_like(sure.seg_logits.data))
    runner.model.supervised_only = True
    validate(runner, hook, sure)
    runner.model.supervised_only = False
    validate(runner, hook, unsure)
    assert hook.latest.confident == 0
    assert warnings_in(runner) == []
    validate(runner, hook, sure)
    validate(runner, hook, sure)
    assert warnings_in(runner) == [NEVER]
    assert any(f'{NEVER}: tree, car.' in line for line in log_lines(runner))


def test_while_training_is_supervised_only_the_best_value_is_kept_without_warnings(plain_loop):
    runner, hook = plain_loop, hook_of(plain_loop)
    runner.model.supervised_only = True
    validate(runner, hook, prediction([0, 1, 2, 3], [0, 1, 2, 3]))
    validate(runner, hook, prediction([0, 0, 0, 0], [0, 1, 2, 3]))
    assert warnings_in(runner) == []
    runner.model.supervised_only = False
    validate(runner, hook, prediction([0, 1, 2, 0], [0, 1, 2, 3]))
    assert warnings_in(runner) == [DROP, NEVER]


def test_samples_without_a_mask_do_not_count(plain_loop):
    hook = hook_of(plain_loop)
    without = SegDataSample(seg_logits=PixelData(data=torch.zeros(CLASSES, 1, 4)))
    validate(plain_loop, hook, without)
    assert hook.latest is None
    validate(plain_loop, hook, without, prediction([0, 1, 2, 3], [0, 1, 255, 255]))
    assert hook.latest.true.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize('loop', ['ValLoop', 'allspark_mmseg.TeacherStudentValLoop'])
def test_other_images_are_measured_with_the_labeler(config, runner_of, unlabeled_loader, loop):
    """The student predicts in the validation, and the teacher labels."""
    config.val_cfg.type = loop
    config.custom_hooks[-1].dataloader = unlabeled_loader
    runner = runner_of(config)
    set_apart(runner.model)
    runner.val()
    expected = measured(
        runner.model.teacher.module, runner.model, runner.build_dataloader(copy.deepcopy(unlabeled_loader))
    )
    assert expected.true.sum() == 5 * (72 * 80 - 5)
    assert same(hook_of(runner).latest, expected)
    title = 'Pseudo-labels of the teacher on the images of dataloader, threshold 0.5:'
    assert sum(line.endswith(title) for line in log_lines(runner)) == 1


def test_other_images_are_measured_in_eval_mode_and_the_mode_is_restored(config, runner_of, unlabeled_loader):
    config.model.teacher = None
    config.val_cfg.type = 'ValLoop'
    config.custom_hooks[-1].dataloader = unlabeled_loader
    runner = runner_of(config)
    hook, student = hook_of(runner), runner.model.student
    student.train()
    student.backbone.eval()
    modes = [module.training for module in student.modules()]
    state = copy.deepcopy(student.state_dict())
    hook.before_val_epoch(runner)
    hook.after_val_epoch(runner)
    assert [module.training for module in student.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in student.state_dict().items())
    loader = runner.build_dataloader(copy.deepcopy(unlabeled_loader))
    assert same(hook.latest, measured(student, runner.model, loader))


def test_a_run_with_other_images(config, runner_of, unlabeled_loader):
    config.custom_hooks[-1].dataloader = unlabeled_loader
    runner = runner_of(config)
    runner.train()
    assert hook_of(runner).latest.true.sum() == 5 * (72 * 80 - 5)
    assert sum('pseudo_quality/confident' in row for row in logged_scalars(runner)) == 2


def plain(config) -> None:
    config.model = ConfigDict(tiny_segmentor())
    config.val_cfg.type = 'ValLoop'
    dataset = config.train_dataloader.dataset
    dataset.labeled.pipeline[-1] = ConfigDict(type='PackSegInputs')
    dataset.unlabeled = None
    config.train_dataloader.sampler = ConfigDict(type='InfiniteSampler')
    config.train_cfg = ConfigDict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)


@pytest.mark.parametrize('with_loader', [False, True])
def test_a_plain_segmentor_is_ignored(config, runner_of, unlabeled_loader, with_loader):
    plain(config)
    config.custom_hooks[-1].dataloader = unlabeled_loader if with_loader else None
    runner = runner_of(config)
    runner.train()
    assert any('mIoU' in row for row in logged_scalars(runner)), 'there was a validation'
    assert hook_of(runner).latest is None
    assert not any('pseudo_quality' in key for row in logged_scalars(runner) for key in row)


def without_validation(config) -> None:
    for stage in ('val', 'test'):
        for key in ('dataloader', 'cfg', 'evaluator'):
            config.pop(f'{stage}_{key}')


def test_without_validation_it_does_nothing(config, runner_of):
    without_validation(config)
    runner = runner_of(config)
    runner.train()
    assert runner.iter == 4
    assert hook_of(runner).latest is None


def test_a_loader_without_validation_is_refused(config, runner_of, unlabeled_loader):
    without_validation(config)
    config.custom_hooks[-1].dataloader = unlabeled_loader
    runner = runner_of(config)
    with pytest.raises(ValueError, match=r'dataloader is set, but .* Set val_dataloader, val_evaluator'):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize('names', [NAMES[:3], NAMES[::-1]])
def test_a_loader_with_other_classes_is_refused(config, runner_of, unlabeled_loader, names):
    unlabeled_loader.dataset.metainfo = dict(classes=names, palette=[[i, 0, 0] for i in range(len(names))])
    config.custom_hooks[-1].dataloader = unlabeled_loader
    runner = runner_of(config)
    with pytest.raises(ValueError, match=r"dataloader has the classes \[.*\], val_dataloader has \['sky'"):
        runner.train()
    assert runner.iter == 0


def test_a_loader_without_masks_is_refused(config, runner_of, unlabeled_loader):
    unlabeled_loader.dataset.pipeline = [IMAGES[0], IMAGES[2]]
    config.custom_hooks[-1].dataloader = unlabeled_loader
    with pytest.raises(ValueError, match=r'3\.png of dataloader has no mask\. .*LoadAnnotations'):
        runner_of(config).val()


@pytest.mark.parametrize(
    'key, values', [('threshold', (-0.1, 1.1)), ('max_drop', (0, 1.5, -1)), ('sink_share', (0, 1.01, -1))]
)
def test_arguments_out_of_range_are_refused(key, values):
    for value in values:
        with pytest.raises(ValueError, match=rf'^PseudoLabelQualityHook: {key} is {value}, expected '):
            PseudoLabelQualityHook(**{key: value})
    PseudoLabelQualityHook(threshold=1, max_drop=1, sink_share=1)
    PseudoLabelQualityHook(threshold=0)


def _validate_on_one_rank(rank: int, config) -> dict:
    runner = Runner.from_cfg(config)
    set_apart(runner.model)
    runner.val()
    latest = hook_of(runner).latest
    return {key: torch.from_numpy(getattr(latest, key)) for key in ('labeled', 'correct', 'true')}


def test_two_processes_count_each_image_once(config, runner_of):
    """The sampler repeats the first of three images to give both processes two of them."""
    runner = runner_of(copy.deepcopy(config))
    set_apart(runner.model)
    runner.val()
    alone = hook_of(runner).latest
    config.experiment_name += '_of_two'
    config.visualizer.name += '_of_two'
    config.work_dir += '_of_two'
    Path(config.work_dir).mkdir()
    for found in on_two_ranks(Path(config.work_dir), _validate_on_one_rank, config):
        assert all(np.array_equal(value, getattr(alone, key)) for key, value in found.items())
    (log,) = Path(config.work_dir).glob('*/*.log')
    assert log.read_text().count('Pseudo-labels of the teacher') == 1
