"""StartupCheckHook on the inputs of real users: images, validation data, evaluation, and warnings."""

import copy
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from allspark_mmseg.engine import ClassStatisticsHook, StartupCheckHook
from allspark_mmseg.engine.plain_checkpoint import plain_config

from ..helpers.odd_images import cut, write
from .conftest import log_lines

STREAMS = ('labeled', 'unlabeled')


@pytest.fixture
def check(runner_of):
    """Run the checks before training without training, and return the log."""
    number = itertools.count()

    def start(config, **settings) -> str:
        config = copy.deepcopy(config)
        config.experiment_name += f'_{next(number)}'
        config.visualizer.name = config.experiment_name
        config.log_level = 'INFO'
        runner = runner_of(config)
        runner._train_loop = runner.build_train_loop(config.train_cfg)
        if config.get('val_cfg'):
            runner._val_loop = runner.build_val_loop(config.val_cfg)
        runner.optim_wrapper = runner.build_optim_wrapper(config.optim_wrapper)
        hook = next(hook for hook in runner.hooks if isinstance(hook, StartupCheckHook))
        for name, value in settings.items():
            setattr(hook, name, value)
        hook.before_train(runner)
        logs = sorted(Path(runner.work_dir).glob('*/*.log'), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text()

    return start


def refusal(check, config) -> str:
    with pytest.raises(ValueError) as error:
        check(config)
    assert '\n' not in str(error.value)
    return str(error.value)


def own_list(config, tmp_path, rows, stream='labeled'):
    """Let a stream, or the validation, read other images."""
    (tmp_path / f'{stream}.txt').write_text('\n'.join('\t'.join(map(str, row)) for row in rows))
    part = config.val_dataloader if stream == 'val' else config.train_dataloader.dataset
    (part.dataset if stream == 'val' else part[stream]).ann_file = str(tmp_path / f'{stream}.txt')


def mask(path: Path, labels, size=(72, 80)) -> Path:
    values = np.resize(np.asarray(labels, np.uint8), size)
    Image.fromarray(values).save(path)
    return path


def picture(path: Path, size=(72, 80)) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


# images


@pytest.mark.parametrize('stream', ['unlabeled', 'val'])
def test_a_web_page_is_named_before_training(with_validation, check, tmp_path, stream):
    (tmp_path / 'a.jpg').write_text('<!doctype html>')
    own_list(
        with_validation, tmp_path, [(tmp_path / 'a.jpg', mask(tmp_path / 'a.png', range(4)))] * 2, stream
    )
    message = refusal(check, with_validation)
    assert message.startswith('val_dataloader' if stream == 'val' else 'train_dataloader')
    assert f'{tmp_path}/a.jpg is a web page (HTML), not an image' in message


def test_a_truncated_test_image_is_named(with_validation, runner_of, tmp_path):
    path = cut(picture(tmp_path / 'a.jpg'))
    with_validation.test_dataloader.dataset.ann_file = str(tmp_path / 'test.txt')
    (tmp_path / 'test.txt').write_text(f'{path} {mask(tmp_path / "a.png", range(4))}')
    with pytest.raises(ValueError, match=rf'test_dataloader: 1 image.*{path} is truncated'):
        runner_of(with_validation).test()


def deep_images(config, tmp_path, loader: list[dict]):
    path = write('png L16', tmp_path / 'deep')
    Image.fromarray(np.resize(np.array(Image.open(path)), (72, 80))).save(path)
    for stream in STREAMS:
        config.train_dataloader.dataset[stream].pipeline[:1] = loader
        own_list(config, tmp_path, [(path, mask(tmp_path / f'{stream}.png', range(4)))] * 2, stream)
    config.train_dataloader.dataset.allow_overlap = True


SCALE = dict(type='allspark_mmseg.ScaleIntensity', low=0, high=4095)
UNCHANGED = dict(type='LoadImageFromFile', color_type='unchanged')


def test_twelve_bits_as_the_message_says(config, check, tmp_path):
    deep_images(config, tmp_path, [dict(type='LoadImageFromFile')])
    message = refusal(check, config)
    assert 'have more than 8 bits per band' in message and 'low=0, high=4095' in message
    deep_images(config, tmp_path, [UNCHANGED, dict(SCALE, bands=3)])
    assert 'after normalization' not in check(config)


def test_bands_of_the_data_preprocessor(config, check, tmp_path):
    path = write('tif RGBA', tmp_path / 'four')
    for stream in STREAMS:
        config.train_dataloader.dataset[stream].pipeline[0] = UNCHANGED
        own_list(config, tmp_path, [(path, mask(tmp_path / f'{stream}.png', range(4), (20, 30)))] * 2, stream)
    config.train_dataloader.dataset.allow_overlap = True
    message = refusal(check, config)
    assert (
        'four.tif has 4 bands in the view labeled, but mean and std of the data_preprocessor have 3'
        in message
    )
    preprocessor = config.model.segmentor.data_preprocessor
    config.model.segmentor.backbone.in_channels = 4
    preprocessor.update(
        type='allspark_mmseg.MultiViewSegDataPreProcessor', mean=[120.0] * 4, std=[60.0, 60.0, 60.0, 90.0]
    )
    check(config)
    assert plain_config(config).model.data_preprocessor.type == preprocessor.type


def test_values_that_are_not_normalized(config, check, tmp_path):
    deep_images(config, tmp_path, [UNCHANGED, dict(SCALE, bands=3, high=1e7)])
    assert 'after normalization, the images have values from' in check(config)


def test_a_rare_transform_of_color_is_refused_before_training(config, check, tmp_path):
    path = write('tif RGBA', tmp_path / 'four')
    jitter = dict(type='allspark_mmseg.ColorJitter', hue=0.2)
    for stream in STREAMS:
        pipeline = config.train_dataloader.dataset[stream].pipeline
        pipeline[0] = UNCHANGED
        pipeline.insert(1, dict(type='RandomApply', prob=1e-6, transforms=[jitter]))
        own_list(config, tmp_path, [(path, mask(tmp_path / f'{stream}.png', range(4), (20, 30)))] * 2, stream)
    config.train_dataloader.dataset.allow_overlap = True
    message = refusal(check, config)
    assert message.startswith(f'ColorJitter: the image {path} has 4 bands, expected 1 or 3')


def test_a_second_start_takes_the_headers_from_the_work_dir(config, check):
    assert 'read 8 headers, took 0 from the cache' in check(config)
    assert 'read 0 headers, took 8 from the cache' in check(config)


def test_headers_of_data_with_an_own_folder(config, check, tmp_path, data_root):
    for stream in STREAMS:
        part = config.train_dataloader.dataset[stream]
        rows = (data_root / f'{stream}.txt').read_text().splitlines()
        (tmp_path / f'{stream}.txt').write_text(
            '\n'.join(f'{data_root}/{row.split()[0]} {data_root}/{row.split()[1]}' for row in rows)
        )
        part.data_root = str(tmp_path)
    (tmp_path / '.allspark').mkdir()
    check(config)
    assert (tmp_path / '.allspark' / 'image_headers.json').is_file()
    assert not (tmp_path / 'work' / 'image_headers.json').exists()


def test_the_check_of_images_can_be_switched_off(config, check, tmp_path):
    path = picture(tmp_path / 'a.jpg')
    path.write_bytes(path.read_bytes()[:-40])
    own_list(config, tmp_path, [(picture(tmp_path / 'b.jpg'),), (path,)], 'unlabeled')
    assert 'is truncated' in refusal(check, config)
    check(config, images=False)


# masks

GUESSES = {  # labels of the masks for four classes, and what the message guesses
    'from 1': (
        range(1, 5),
        r'The labels are 1\.\.4, so they seem to begin with 1: set reduce_zero_label=True in',
    ),
    'one more': (
        range(5),
        r'labels are 0\.\.4\. If 0 means unlabeled, set reduce_zero.*; if it is a class, .*num_classes=5',
    ),
    'soft': (range(0, 255, 3), r'The masks have 85 different values\. Soft edges'),
    'others': ((0, 9), r'Convert the masks, or set num_classes'),
}


@pytest.mark.parametrize('case', GUESSES)
def test_messages_guess_the_cause(with_validation, check, tmp_path, case):
    labels, message = GUESSES[case]
    rows = [(picture(tmp_path / 'a.png'), mask(tmp_path / 'a_mask.png', labels))]
    own_list(with_validation, tmp_path, rows, 'val')
    assert re.search(message, refusal(check, with_validation))


def test_reduce_zero_label_is_what_the_message_says(config, check, tmp_path):
    own_list(config, tmp_path, [(picture(tmp_path / 'a.png'), mask(tmp_path / 'b.png', range(1, 5)))])
    config.train_dataloader.dataset.labeled.reduce_zero_label = True
    check(config)


def test_validation_masks_of_0_and_255(with_validation, check, tmp_path):
    """All pixels that count are background, whose IoU is then 100 %."""
    rows = [(picture(tmp_path / 'a.png'), mask(tmp_path / 'b.png', (0, 255)))]
    own_list(with_validation, tmp_path, rows, 'val')
    message = refusal(check, with_validation)
    assert message.startswith("val_dataloader: all masks together have no pixels of ['road', 'tree', 'car']")
    assert 'masks of two classes with 0 and 255' in message


def test_classes_without_validation_pixels_are_reported(with_validation, check, tmp_path):
    rows = [(picture(tmp_path / 'a.png'), mask(tmp_path / 'b.png', (0, 1, 3)))]
    own_list(with_validation, tmp_path, rows, 'val')
    assert 'val_dataloader: no pixel is labeled as tree. The network cannot be measured on' in check(
        with_validation
    )


# the evaluation


def test_the_smallest_and_the_largest_image_are_predicted(with_validation, check, tmp_path):
    sizes = dict(middle=(72, 80), small=(40, 200), large=(120, 140))
    rows = [
        (picture(tmp_path / f'{name}.png', size), mask(tmp_path / f'{name}_mask.png', range(4), size))
        for name, size in sizes.items()
    ]
    own_list(with_validation, tmp_path, rows, 'val')
    # in this order, because two runs of the same second share a log
    assert f'{tmp_path}/small.png' not in check(with_validation, evaluation=False)
    assert f'predicted {tmp_path}/small.png and {tmp_path}/large.png as a trial' in check(with_validation)


def two_sizes(config, tmp_path):
    config.val_dataloader.batch_size = 2
    rows = [
        (
            picture(tmp_path / f'{size}.png', (size, 80)),
            mask(tmp_path / f'{size}_m.png', range(4), (size, 80)),
        )
        for size in (72, 90)
    ]
    own_list(config, tmp_path, rows, 'val')


def test_a_batch_of_two_sizes_that_would_fail(with_validation, check, tmp_path):
    two_sizes(with_validation, tmp_path)
    pattern = r'72\.png and \S+90\.png cannot be predicted \(.*: 72 x 80 and 90 x 80\).*batch_size=1'
    assert re.search(pattern, refusal(check, with_validation))


ERRORS = {
    'CUDA out of memory. Tried to allocate 2 GiB': "Predict by windows: model.test_cfg=dict(mode='slide'",
    "Kernel size can't be greater than actual input size": 'If the image is too small for the network, enlar',
    'expected input to have 3 channels, but got 4 channels': 'Set in_channels of the backbone',
}


@pytest.mark.parametrize('error', ERRORS)
def test_errors_of_the_network_name_the_image(with_validation, check, monkeypatch, error):
    def fail(*_, **__):
        raise RuntimeError(f'{error}\nand more')

    monkeypatch.setattr('allspark_mmseg.methods.AllSpark.val_step', fail)
    message = refusal(check, with_validation)
    assert re.search(r'val_dataloader: \S+png cannot be predicted \(.*: 72 x 80\): RuntimeError: ', message)
    assert f'{error}. {ERRORS[error]}' in message and 'evaluation=False' in message


def test_a_resumed_run_tries_nothing(with_validation, check, monkeypatch, runner_of):
    monkeypatch.setattr('allspark_mmseg.methods.AllSpark.val_step', None)
    with_validation.resume = True
    log = check(with_validation)
    assert 'no trial of the evaluation, because the run is resumed' in log


def test_the_trial_changes_nothing(with_validation, runner_of):
    """Neither random numbers nor weights: a run with the trial equals one without."""
    states = []
    for evaluation in (True, False):
        config = copy.deepcopy(with_validation)
        config.custom_hooks[0].evaluation = evaluation
        config.experiment_name += str(evaluation)
        config.visualizer.name = config.experiment_name
        config.train_cfg.max_epochs = 1
        runner = runner_of(config)
        runner.train()
        states.append(runner.model.state_dict())
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


# warnings


def test_validation_images_in_the_unlabeled_pool(with_validation, check):
    assert 'also unlabeled' not in check(with_validation)
    with_validation.val_dataloader.dataset.ann_file = 'unlabeled.txt'
    log = check(with_validation)
    assert 'val_dataloader: 5 validation images are also unlabeled training images' in log
    assert 'Remove them from the unlabeled images' in log


LENGTHS = {  # train_cfg.max_epochs, scheduler, what is warned
    'same': (20, dict(type='PolyLR', end=20, by_epoch=True), None),
    'early': (
        20,
        dict(type='PolyLR', end=10, by_epoch=True),
        'ends at epoch 10, but the training at epoch 20.',
    ),
    'late': (20, dict(type='PolyLR', end=30, by_epoch=True), 'The last rates are never reached. Set end=20'),
    'iterations': (20, dict(type='PolyLR', end=41, by_epoch=False), None),
    'other iterations': (
        20,
        dict(type='PolyLR', end=80, by_epoch=False),
        'ends at iteration 80, .* iteration 40',
    ),
    'open': (20, dict(type='PolyLR', by_epoch=True), None),
    'converted': (
        20,
        dict(type='PolyLR', end=10, by_epoch=True, convert_to_iter_based=True),
        'at epoch 10, but',
    ),
}


@pytest.mark.parametrize('case', LENGTHS)
def test_a_schedule_of_another_length(config, check, case):
    config.train_cfg.max_epochs, scheduler, message = LENGTHS[case]
    config.param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=1), scheduler]
    log = check(config)
    assert ('param_scheduler:' in log) == (message is not None)
    assert message is None or re.search(message, log)


@pytest.mark.parametrize(('length', 'warned'), [(9, True), (10, False)])
def test_short_epochs(config, check, length, warned):
    config.train_dataloader.sampler.epoch_length = length
    assert ('an epoch has only 9 steps, so the 2 epochs have 18 in total' in check(config)) == warned


@pytest.mark.parametrize(
    ('settings', 'warned'),
    [
        (dict(base_batch_size=3), False),
        (dict(base_batch_size=8), True),
        (dict(base_batch_size=8, enable=True), False),
    ],
)
def test_a_batch_of_another_size(config, check, settings, warned):
    config.auto_scale_lr = dict(dict(enable=False), **settings)
    log = check(config)
    assert ('a step has 3 images' in log and 'is for 8' in log and '--auto-scale-lr' in log) == warned


@pytest.mark.parametrize(
    ('share', 'labels', 'warned'),
    [
        ((1, 0, 0, 0), range(4), True),
        ((0.9, 0.1, 0, 0), range(4), False),
        ((1, 0, 0, 0), (0,) * 999 + (1,), False),
    ],
)
def test_pseudo_labels_of_one_class_are_reported_once(config, runner_of, tmp_path, share, labels, warned):
    """Without validation; not if the labeled pixels are of that class, too."""
    config.custom_hooks.append(dict(type='allspark_mmseg.ClassStatisticsHook', interval=2))
    config.log_level, config.train_cfg.max_epochs = 'WARNING', 1
    own_list(config, tmp_path, [(picture(tmp_path / 'a.png'), mask(tmp_path / 'b.png', labels))])
    runner = runner_of(config)
    runner.train()
    runner.model.pseudo_share.copy_(torch.tensor(share))
    hook = next(hook for hook in runner.hooks if isinstance(hook, ClassStatisticsHook))
    for iteration in range(8):
        runner.train_loop._iter = iteration
        hook.after_train_iter(runner, iteration)
    lines = [
        line for line in log_lines(runner) if 'of the last 2 iterations have the pseudo-label sky' in line
    ]
    assert len(lines) == warned
    if warned:
        assert '100.0% of the pixels' in lines[0] and 'but only 25.0% of the labeled pixels' in lines[0]
