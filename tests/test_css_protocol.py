"""CSS's protocol: what the configs say, in the numbers of its specification, and what its pipelines make."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS, MODELS

from allspark_mmseg.registry import PARAM_SCHEDULERS

from .test_configs import CONFIGS, LEAVES, PUBLISHED, Leaf
from .test_protocols import make_tiny, redirect, stand_ins  # noqa: F401 (a fixture)

ROWS = [
    *(f'voc_{row}' for row in ('92', '183', '366', '732', '1464', '1over16', '1over8', '1over4')),
    *(f'cityscapes_{row}' for row in ('1over16', '1over8', '1over4', '1over2')),
]
VARIANTS = ('baseline', 'mix', 'cross')
NAMES = [f'css/{row}_{variant}' for row in ROWS for variant in VARIANTS]
CROPS = dict(voc=512, cityscapes=769)
IMAGES = dict(voc=8, cityscapes=4)
SCALES = dict(voc=(0.5, 1.5), cityscapes=(0.5, 2.0))


@pytest.fixture(scope='module', params=NAMES)
def leaf(request) -> Leaf:
    return Leaf(CONFIGS / f'{request.param}.py')


def test_every_row_has_a_config():
    found = {path for path in LEAVES if path.parent.name == 'css'}
    found = {f'css/{path.stem}' for path in found if path.stem.split('_')[0] in PUBLISHED}
    assert found == set(NAMES)


def test_numbers(leaf):
    loader = leaf.cfg.train_dataloader
    images = IMAGES[leaf.dataset]
    assert (loader.sampler.labeled, loader.sampler.unlabeled) == (images, images)
    assert tuple(leaf.cfg.crop_size) == (CROPS[leaf.dataset],) * 2
    assert loader.sampler.epoch_length * leaf.cfg.train_cfg.max_epochs == 80000
    config = copy.deepcopy(leaf.cfg.model)
    make_tiny(config)
    model = MODELS.build(config)
    assert (model.teacher.momentum, model.teacher.warm_up) == (0.01, True)
    assert model.teacher.policy('running_mean') == 'leave'
    assert (model.threshold, model.weak_threshold, model.contrast_temperature) == (0.97, 0.7, 0.5)
    assert (model.queries, model.negatives, model.prototypes.momentum) == (256, 512, 0.01)
    assert model.mix == 'cutmix' and model.scale_range == SCALES[leaf.dataset]
    assert model.contrast_weight == 1.0 and model.ignore_padding
    if leaf.words[-1] == 'baseline':
        assert (model.hard_threshold, model.contrast_ramp_down) == (0.97, None)
        assert model.teacher_statistics == 'weak'
    else:
        assert (model.hard_threshold, model.contrast_ramp_down) == (0.8, 80000)
        assert model.similarity_temperature == 0.1  # the release's 0.5 keeps the indicator from filtering
        assert model.teacher_statistics == 'labeled_and_weak'


def test_network_and_losses(leaf):
    backbone, head = leaf.segmentor.backbone, leaf.decoder
    assert (backbone.strides, backbone.dilations) == ((1, 2, 1, 1), (1, 1, 2, 4))
    assert backbone.contract_dilation and not backbone.get('deep_stem')
    assert (head.channels, head.c1_channels, head.representation_channels) == (256, 48, 256)
    assert head.dilations == (1, 12, 24, 36) and head.align_corners
    ohem = dict(type='allspark_mmseg.OHEMCrossEntropyLoss', threshold=0.7, min_kept=50000 * 4)
    plain = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    assert head.loss_decode == (ohem if leaf.dataset == 'cityscapes' else plain)
    assert leaf.segmentor.test_cfg == dict(mode='whole')


def test_learning_rate(leaf, golden):
    released = dict(
        zip(*(golden('css')[f'poly.{name}'].tolist() for name in ('iterations', 'lr')), strict=True)
    )
    for step, rate in released.items():
        assert rate == pytest.approx(max(6.4e-3 * (1 - step / 80000) ** 0.9, 1e-4), rel=1e-6)
    optimizer = leaf.cfg.optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=6.4e-3, momentum=0.9, weight_decay=5e-4, nesterov=True)
    assert 'paramwise_cfg' not in leaf.cfg.optim_wrapper
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=optimizer.lr)
    (config,) = leaf.cfg.param_scheduler
    scheduler = PARAM_SCHEDULERS.build(dict(config, optimizer=optimizer))
    for step in range(101):
        if step in released:
            assert optimizer.param_groups[0]['lr'] == pytest.approx(released[step], rel=1e-6)
        optimizer.step()
        scheduler.step()


def test_variants_differ_in_the_class_alone(leaf):
    mix = Leaf(CONFIGS / 'css' / f'{"_".join(leaf.words[:-1])}_mix.py')
    for key, value in mix.cfg.items():
        if key != 'model':
            assert leaf.cfg[key] == value, key
    assert {key for key in mix.cfg.model if mix.cfg.model[key] != leaf.cfg.model[key]} <= {
        'type',
        'contrast_ramp_down',
    }


@pytest.mark.parametrize('name', ['css/voc_92_mix', 'css/cityscapes_1over16_mix'])
def test_pipelines_on_the_real_layout(name, stand_ins):  # noqa: F811
    leaf = Leaf(CONFIGS / f'{name}.py')
    redirect(leaf.cfg, stand_ins[leaf.dataset])
    dataset = DATASETS.build(leaf.cfg.train_dataloader.dataset)
    preprocessor = MODELS.build(
        dict(leaf.segmentor.data_preprocessor, type='allspark_mmseg.MultiViewSegDataPreProcessor')
    )
    crop = tuple(leaf.cfg.crop_size)
    scales = set()
    for i in range(8):
        batch = preprocessor(pseudo_collate([dataset[i % 2], dataset[2 + i % 6]]), training=True)
        assert {view: x.shape for view, x in batch['inputs'].items()} == dict.fromkeys(
            ('labeled', 'weak', 'strong_1'), (1, 3, *crop)
        )
        weak, labeled = (batch['data_samples'][view][0] for view in ('weak', 'labeled'))
        assert weak.scale_factor == (1.0, 1.0) and not weak.flip, 'the model rescales and flips'
        padding = weak.gt_sem_seg.data[0] == 255
        assert padding.any() and not padding.all()
        scales.add(labeled.scale_factor)
    assert (len(scales) == 1) == (leaf.dataset == 'cityscapes')
    assert Path(weak.img_path).exists()
