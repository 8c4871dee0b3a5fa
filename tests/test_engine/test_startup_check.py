"""StartupCheckHook in real runs; test_bad_inputs.py has a table of what it refuses."""

import copy
import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

from allspark_mmseg.engine import StartupCheckHook, load_checkpoint_file
from allspark_mmseg.engine.method_checks import check_unused_parameters

from ..helpers.tiny_models import CROP, tiny_segmentor


@pytest.fixture
def refused(runner_of):
    """Train with a config that must raise before the first iteration, and return the error message."""

    def start(config) -> str:
        runner = runner_of(config)
        runner.model.train_step = None  # never called
        with pytest.raises(ValueError) as error:
            runner.train()
        return str(error.value)

    return start


def streams(config) -> list:
    dataset = config.train_dataloader.dataset
    return [dataset.labeled, dataset.unlabeled]


@pytest.mark.parametrize('method', ['AllSpark', 'MeanTeacher'])
def test_a_head_of_another_method_needs_a_setting_in_several_processes(config, method):
    """MeanTeacher does not train the stream of the unlabeled images in AllSparkHead."""
    arguments = dict(teacher=dict(momentum=0.1)) if method == 'MeanTeacher' else {}
    model = MODELS.build(dict(type=f'allspark_mmseg.{method}', segmentor=config.model.segmentor, **arguments))
    wrapper = Mock(spec=DistributedDataParallel, find_unused_parameters=True)
    check_unused_parameters(SimpleNamespace(model=wrapper), model)
    check_unused_parameters(SimpleNamespace(model=model), model)
    wrapper.find_unused_parameters = False
    if method == 'AllSpark':
        check_unused_parameters(SimpleNamespace(model=wrapper), model)
        return
    with pytest.raises(ValueError, match='trains only a part of the AllSparkHead'):
        check_unused_parameters(SimpleNamespace(model=wrapper), model)


def test_a_sound_run_passes_and_writes_checkpoints(with_validation, runner_of):
    runner = runner_of(with_validation)
    runner.train()
    assert runner.iter == 4
    checkpoint = load_checkpoint_file(f'{runner.work_dir}/epoch_2.pth')
    assert 'student.decode_head.bottleneck.memory.rows' in checkpoint['state_dict']


def test_validation_images_among_the_labeled_images_are_reported(with_validation, runner_of):
    with_validation.log_level = 'WARNING'
    runner = runner_of(with_validation)
    runner.train()
    log = ''.join(path.read_text() for path in Path(runner.work_dir).glob('*/*.log'))
    assert '3 validation images are also labeled training images' in log
    assert '0.png' in log


def test_validation_images_of_their_own_are_not_reported(with_validation, runner_of, data_root):
    with_validation.log_level = 'WARNING'
    with_validation.val_dataloader.dataset.ann_file = 'unlabeled.txt'
    runner = runner_of(with_validation)
    runner.train()
    logs = Path(runner.work_dir).glob('*/*.log')
    assert 'are also labeled' not in ''.join(path.read_text() for path in logs)


@pytest.mark.parametrize(('epochs', 'warned'), [(1, False), (2, True)])
def test_a_memory_that_is_never_read_is_reported(config, runner_of, epochs, warned):
    config.log_level = 'WARNING'
    config.custom_hooks.append(dict(type='allspark_mmseg.MemoryWarmUpHook', epochs=epochs))
    runner = runner_of(config)
    runner.train()
    log = ''.join(path.read_text() for path in Path(runner.work_dir).glob('*/*.log'))
    assert ('lasts 2 epochs, and the training 2' in log) == warned


def test_classes_of_the_test_data(with_validation, runner_of):
    with_validation.test_dataloader.dataset.metainfo = dict(classes=('sky',), palette=[[0, 0, 0]])
    with pytest.raises(ValueError, match=r'test_dataloader: .* has 1 classes'):
        runner_of(with_validation).test()


def test_a_teacher_without_the_hook_that_moves_it(config, refused, runner_of):
    config.model = ConfigDict(type='allspark_mmseg.SelfTraining', segmentor=tiny_segmentor(), teacher=dict())
    message = refused(config)
    assert 'the teacher of the SelfTraining would never be updated' in message
    assert "default_hooks=dict(mean_teacher=dict(type='allspark_mmseg.MeanTeacherHook'))" in message
    config.custom_hooks += [ConfigDict(type='allspark_mmseg.MeanTeacherHook')]
    config.train_cfg.max_epochs = 1
    runner_of(config).train()


def test_every_unlabeled_data_set_needs_the_views(config, refused):
    first = streams(config)[1]
    second = copy.deepcopy(first)
    first.pipeline[-1].strong_1 = first.pipeline[-1].weak
    config.train_dataloader.dataset.unlabeled = [first, second]
    config.model = ConfigDict(
        type='allspark_mmseg.FixMatch', segmentor=tiny_segmentor(), ignore_padding=False
    )
    message = refused(config)
    assert "FixMatch: a batch has {'weak': 2, 'strong_1': 1} images of each view" in message


@pytest.mark.parametrize('method', ['UniMatch', 'UniMatchV2'])
def test_features_that_cannot_be_perturbed(config, refused, method):
    views = streams(config)[1].pipeline[-1]
    views.strong_1 = views.strong_2 = views.weak
    backbone = dict(
        type='VisionTransformer', img_size=CROP, patch_size=13, embed_dims=16, num_layers=4, num_heads=2,
        mlp_ratio=2, out_indices=(0, 1, 2, 3), output_cls_token=True, interpolate_mode='bilinear',
    )  # fmt: skip
    head = dict(
        type='DPTHead', in_channels=(16,) * 4, channels=8, embed_dims=16, post_process_channels=[8] * 4,
        in_index=(0, 1, 2, 3), num_classes=4, norm_cfg=dict(type='BN'), input_transform='multiple_select',
    )  # fmt: skip
    segmentor = tiny_segmentor(backbone=backbone, decode_head=head)
    config.model = ConfigDict(type=f'allspark_mmseg.{method}', segmentor=segmentor, ignore_padding=False)
    message = refused(config)
    assert f'{method} drops channels from the features' in message
    assert "{0: 'list', 1: 'list', 2: 'list', 3: 'list'}" in message


def test_the_padding_of_pasted_images_must_be_marked(config, refused):
    """FixMatch ignores padding by default; pasted views need the marks as well."""
    views = streams(config)[1].pipeline[-1]
    views.strong_1 = views.mix_weak = views.mix_strong_1 = views.weak
    config.model = ConfigDict(
        type='allspark_mmseg.FixMatch', segmentor=tiny_segmentor(), mix_source='same_image'
    )
    message = refused(config)
    assert 'ignore_padding=True' in message
    assert 'LoadEmptyAnnotations' in message


@pytest.fixture
def strange_mask(config, tmp_path):
    """One more labeled image, whose mask holds 7 and 200."""
    root = streams(config)[0].data_root
    mask = np.zeros((72, 80), dtype=np.uint8)
    mask[3, 3], mask[4, 4] = 7, 200
    Image.fromarray(mask).save(tmp_path / 'strange.png')
    rows = [f'{root}/{i}.png {root}/{i}_mask.png' for i in range(2)] + [
        f'{root}/2.png {tmp_path}/strange.png'
    ]
    (tmp_path / 'labeled.txt').write_text('\n'.join(rows))
    streams(config)[0].ann_file = str(tmp_path / 'labeled.txt')
    return tmp_path / 'strange.png'


def test_padding_to_ignore_must_be_marked(config, refused, runner_of):
    config.model.ignore_padding = True
    message = refused(config)
    assert 'ignore_padding=True' in message
    assert 'LoadEmptyAnnotations' in message
    streams(config)[1].pipeline.insert(1, dict(type='allspark_mmseg.LoadEmptyAnnotations'))
    runner_of(config).train()


def pictures(folder, mask: Image.Image, image: Image.Image | None = None, **stored) -> str:
    """Write a mask and its image, noise of 80 x 72 pixels unless given; return the line of a list."""
    noise = np.random.default_rng(0).integers(0, 256, (72, 80, 3), dtype=np.uint8)
    mask.save(folder / 'odd.png')
    (image or Image.fromarray(noise)).save(folder / 'odd.jpg', **stored)
    return f'{folder}/odd.jpg {folder}/odd.png'


def rotated_by_exif(folder) -> str:
    exif = Image.Exif()
    exif[0x0112] = 6
    return pictures(folder, Image.new('L', (80, 72)), exif=exif)


def truncated(folder) -> str:
    line = pictures(
        folder, Image.fromarray(np.random.default_rng(0).integers(0, 4, (72, 80), dtype=np.uint8))
    )
    (folder / 'odd.png').write_bytes((folder / 'odd.png').read_bytes()[:400])
    return line


ODD = {
    'colors': (
        lambda folder: pictures(folder, Image.new('RGB', (80, 72))),
        'has mode RGB of Pillow, not one byte per pixel',
    ),
    'two bytes': (
        lambda folder: pictures(folder, Image.new('I;16', (80, 72))),
        'has mode I;16 of Pillow, not one byte per pixel',
    ),
    'size': (
        lambda folder: pictures(folder, Image.new('L', (40, 36), 9)),  # labels of another data set, too
        r'has 40 x 36 pixels \(width x height\), its image \S+odd\.jpg has 80 x 72\. Expected',
    ),
    'rotated': (rotated_by_exif, r"80 x 72 .* 72 x 80\. .*EXIF orientation; .*'color_ignore_orientation'"),
    'truncated': (truncated, r'cannot be read \('),
    'labels': (lambda folder: pictures(folder, Image.new('L', (80, 72), 9)), r'has labels \[9\]'),
}


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize('case', ODD)
def test_masks_that_do_not_fit_are_named(with_validation, refused, runner_of, tmp_path, case, stage):
    write, pattern = ODD[case]
    config = with_validation
    dataset = config[f'{stage}_dataloader'].dataset
    dataset.ann_file = str(tmp_path / 'odd.txt')
    good = f'{dataset.data_root}/0.png {dataset.data_root}/0_mask.png'
    (tmp_path / 'odd.txt').write_text(f'{good}\n{write(tmp_path)}')
    if stage == 'test':
        with pytest.raises(ValueError) as error:
            runner_of(config).test()
        message = str(error.value)
    else:
        message = refused(config)
    assert message.startswith(f'{stage}_dataloader: 1 mask(s) are invalid: {tmp_path}/odd.png ')
    assert re.search(pattern, message), message


def test_an_image_that_is_not_turned_on_loading_fits_its_mask(config, runner_of, tmp_path):
    (tmp_path / 'odd.txt').write_text(rotated_by_exif(tmp_path))
    config.train_cfg.max_epochs = 1
    part = streams(config)[0]
    part.ann_file = str(tmp_path / 'odd.txt')
    part.pipeline[0].color_type = 'color_ignore_orientation'
    Image.fromarray(np.arange(4, dtype=np.uint8).repeat(1440).reshape(72, 80)).save(tmp_path / 'odd.png')
    runner_of(config).train()


def test_a_class_that_is_labeled_nowhere_is_logged(config, runner_of, tmp_path):
    mask = np.arange(3, dtype=np.uint8).repeat(1920).reshape(72, 80)
    (tmp_path / 'odd.txt').write_text(pictures(tmp_path, Image.fromarray(mask)))
    streams(config)[0].ann_file = str(tmp_path / 'odd.txt')
    config.train_cfg.max_epochs, config.log_level = 1, 'WARNING'
    runner = runner_of(config)
    runner.train()
    (log,) = Path(runner.work_dir).glob('*/*.log')
    assert (
        'train_dataloader: no pixel is labeled as car. The network cannot learn these classes.'
        in log.read_text()
    )


@pytest.mark.parametrize('kind', ['EncoderDecoder', 'allspark_mmseg.ExtendedEncoderDecoder'])
def test_a_supervised_run_resumes_in_both_plain_segmentors(config, runner_of, kind):
    """They have the same parameters. Checkpoints of both name EncoderDecoder."""
    runner = runner_of(config)
    runner.model, runner._resume = MODELS.build(tiny_segmentor() | dict(type=kind)), True
    checkpoint = dict(meta=dict(method='EncoderDecoder'), state_dict=runner.model.state_dict())
    StartupCheckHook().after_load_checkpoint(runner, checkpoint)
    checkpoint['meta'].clear()
    StartupCheckHook().before_save_checkpoint(runner, checkpoint)
    assert checkpoint['meta'] == dict(method='EncoderDecoder')


def test_masks_of_unlabeled_images_are_not_opened(config, tmp_path, runner_of):
    root = streams(config)[1].data_root
    rows = [f'{root}/{i}.png {tmp_path}/nowhere.png' for i in range(3, 8)]
    (tmp_path / 'unlabeled.txt').write_text('\n'.join(rows))
    streams(config)[1].ann_file = str(tmp_path / 'unlabeled.txt')
    config.train_cfg.max_epochs = 1
    runner_of(config).train()


def test_looking_at_masks_can_be_switched_off(config, strange_mask, runner_of):
    config.custom_hooks[0].masks = False
    runner = runner_of(config)
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'StartupCheckHook')
    runner._train_loop = runner.build_train_loop(config.train_cfg)
    runner.model.train()
    hook.before_train(runner)
    assert runner.model.training
    hook.masks = True
    with pytest.raises(ValueError, match=r'strange\.png'):
        hook.before_train(runner)


def test_a_stream_may_have_several_sources(config, runner_of):
    dataset = config.train_dataloader.dataset
    for name, size in (('labeled', 3), ('unlabeled', 5)):
        first, second = (copy.deepcopy(dataset[name]) for _ in range(2))
        first.indices, second.indices = [0], list(range(1, size))
        dataset[name] = [first, second]
    runner = runner_of(config)
    runner.train()
    assert runner.iter == 4


@pytest.mark.parametrize('wrapped', [True, False], ids=['SemiDataset', 'ImageListDataset'])
def test_supervised_training_is_checked_too(config, strange_mask, refused, wrapped):
    labeled = streams(config)[0]
    labeled.pipeline[-1] = ConfigDict(type='PackSegInputs')
    config.model = ConfigDict(tiny_segmentor())
    if wrapped:
        config.train_dataloader.dataset.unlabeled = None
    else:
        config.train_dataloader.dataset = ConfigDict(type='allspark_mmseg.ImageListDataset', **labeled)
    config.train_dataloader.sampler = ConfigDict(type='InfiniteSampler')
    config.train_cfg = ConfigDict(type='IterBasedTrainLoop', max_iters=2)
    assert str(strange_mask) in refused(config)


@pytest.mark.parametrize('prefix', ['', 'module.', 'student.'])
def test_a_plain_checkpoint_is_accepted(config, tmp_path, runner_of, prefix):
    runner = runner_of(config)
    state = runner.model.student.state_dict()
    plain = {
        prefix + name.replace('decode_head.decoder.', 'decode_head.'): torch.ones_like(value)
        for name, value in state.items()
        if '.bottleneck.' not in name and name.endswith('weight')
    }
    if prefix == 'student.':
        plain = {f'student.{name}': torch.ones_like(value) for name, value in state.items()}
    torch.save(dict(state_dict=plain), tmp_path / 'plain.pth')
    runner.load_checkpoint(str(tmp_path / 'plain.pth'))
    for name, value in runner.model.student.named_parameters():
        if name.endswith('weight') and '.bottleneck.' not in name:
            assert value.eq(1).all(), name


@pytest.fixture
def stored(config, runner_of, tmp_path) -> str:
    """Checkpoint of a run of one epoch."""
    first = copy.deepcopy(config)
    first.train_cfg.max_epochs = 1
    first.work_dir = str(tmp_path / 'first')
    first.experiment_name += '_first'
    runner_of(first).train()
    return str(tmp_path / 'first' / 'epoch_1.pth')


def other_crop(config) -> None:
    crop = (49, 64)
    config.model.segmentor.decode_head.bottleneck.crop_size = crop
    config.model.segmentor.data_preprocessor.size = crop
    for stream in streams(config):
        stream.pipeline[-2].crop_size = crop


def test_a_resumed_memory_of_another_shape(config, stored, refused):
    other_crop(config)
    config.load_from, config.resume = stored, True
    message = refused(config)
    assert stored in message
    assert '(4, 16, 9)' in message
    assert '(4, 16, 4)' in message


def test_weights_of_a_run_with_another_crop_can_be_started_from(config, stored, runner_of):
    other_crop(config)
    config.load_from = stored
    runner = runner_of(config)
    runner.train()
    assert runner.iter == 4


def test_resuming_goes_on(config, stored, runner_of):
    config.load_from, config.resume = stored, True
    runner = runner_of(config)
    runner.train()
    assert runner.iter == 4
    before = load_checkpoint_file(stored)['state_dict']['student.decode_head.bottleneck.memory.rows']
    kept = (runner.model.memory.rows == before).all(dim=-1)
    assert kept.any(), 'the memory started anew'
    assert not kept.all()
