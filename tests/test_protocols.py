"""The published protocols: what the methods' and their baselines' configs say, in numbers."""

import ast
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from mmseg.registry import DATASETS, MODELS
from PIL import Image
from torch.utils.data import ConcatDataset, TensorDataset

from allspark_mmseg.datasets import DualStreamSampler
from allspark_mmseg.registry import PARAM_SCHEDULERS

from .test_configs import CONFIGS, LEAVES, PUBLISHED, STRONG_VIEWS, Leaf, dicts, resized, shrink


class Protocol(NamedTuple):
    """``images`` are those of a GPU and stream; supervised training takes twice as many labeled ones."""

    crop: int
    epochs: int
    images: int
    lr: float
    head: int
    gpus: int = 4


# AllSpark's and its baselines', UniMatch's (with U2PL's lists apart), UniMatch V2's
PROTOCOLS = {
    ('mit', 'voc'): Protocol(513, 80, 2, 0.001, 10),
    ('mit', 'cityscapes'): Protocol(801, 240, 2, 0.001, 1),
    ('mit', 'coco'): Protocol(513, 10, 4, 0.001, 10),
    ('cnn', 'voc'): Protocol(321, 80, 2, 0.001, 10),
    ('cnn', 'voc_u2pl'): Protocol(513, 80, 4, 0.001, 10, gpus=2),
    ('cnn', 'cityscapes'): Protocol(801, 240, 2, 0.005, 1),
    ('cnn', 'coco'): Protocol(513, 30, 2, 0.004, 10),
    ('dinov2', 'voc'): Protocol(518, 60, 4, 5e-6, 40),
    ('dinov2', 'cityscapes'): Protocol(798, 180, 2, 5e-6, 40),
    ('dinov2', 'coco'): Protocol(518, 20, 4, 5e-6, 40),
}
ALLSPARK_LR = dict(voc=0.001, cityscapes=0.005, coco=0.001)
# first epoch that reads AllSpark's memory; the last is ours: the release gives none
WARM_UP = dict(voc=5, cityscapes=15, coco=1)
# data set and split -> labeled and unlabeled images; iterations an epoch with 8 and 16 of each a step
ROWS = {
    'voc_92': (92, 10490, 1311, 655),
    'voc_183': (183, 10399, 1300, 650),
    'voc_366': (366, 10216, 1277, 638),
    'voc_732': (732, 9850, 1231, 615),
    'voc_1464': (1464, 9118, 1140, 570),
    'voc_1over16': (662, 9920, 1240, None),
    'voc_1over8': (1323, 9259, 1157, None),
    'voc_1over4': (2646, 7936, 992, None),
    'voc_1over2': (5291, 5291, 661, None),
    'voc_u2pl_1over16': (662, 9920, 1240, None),
    'voc_u2pl_1over8': (1323, 9259, 1157, None),
    'voc_u2pl_1over4': (2646, 7936, 992, None),
    'cityscapes_1over30': (100, 2875, 359, None),
    'cityscapes_1over16': (186, 2789, 349, None),
    'cityscapes_1over8': (372, 2603, 325, None),
    'cityscapes_1over4': (744, 2231, 279, None),
    'cityscapes_1over2': (1488, 1487, 186, None),
    'coco_1over512': (232, 118055, 14757, 7378),
    'coco_1over256': (463, 117824, 14728, 7364),
    'coco_1over128': (925, 117362, 14670, 7335),
    'coco_1over64': (1849, 116438, 14555, 7277),
    'coco_1over32': (3697, 114590, 14324, 7162),
}
# supervised steps of AllSpark's baseline and of UniMatch's, where they differ
SUPERVISED_STEPS = {
    'voc_92': (400, 400),
    'voc_183': (880, 880),
    'voc_366': (1840, 1840),
    'voc_732': (3600, 3600),
    'voc_1464': (7280, 7280),
    'voc_1over16': (3280, 3280),
    'voc_1over8': (6560, 6560),
    'voc_1over4': (13200, 13200),
    'voc_1over2': (26400, None),
    'voc_u2pl_1over16': (3280, 3280),
    'voc_u2pl_1over8': (6560, 6560),
    'voc_u2pl_1over4': (13200, 13200),
    'cityscapes_1over30': (1440, 1440),
    'cityscapes_1over16': (2640, 2640),
    'cityscapes_1over8': (5520, 5520),
    'cityscapes_1over4': (11040, 11040),
    'cityscapes_1over2': (22320, 22320),
    'coco_1over512': (70, 420),
    'coco_1over256': (140, 870),
    'coco_1over128': (290, 1740),
    'coco_1over64': (570, 3450),
    'coco_1over32': (1150, 6930),
}
# UniMatch V2 repeats the labeled images up to a number that is the same for all splits
SUPERVISED_V2_STEPS = dict(voc=60 * 93, cityscapes=180 * 187, coco=20 * 937)
UNIMATCH_ROWS = [row for row in ROWS if row != 'voc_1over2']
PASCAL_ROWS = UNIMATCH_ROWS[:5]
RESNET50_ROWS = [*PASCAL_ROWS, *(row for row in UNIMATCH_ROWS if 'u2pl' in row or row.startswith('city'))]
UNIMATCH_V2_ROWS = [
    row for row in ROWS if row in PASCAL_ROWS or (not row.startswith('voc') and row != 'cityscapes_1over30')
]
# other sizes of a row's network -> that network
SIZES = {'r50-d16': 'r101-d16', 'dinov2-s14': 'dinov2-b14', 'dinov2-l14': 'dinov2-b14'}
SIZE_METHODS = ('unimatch', 'fixmatch', 'supervised')
ROW_LEAVES = [
    *(f'{method}/{row}' for method in ('allspark', 'self_training', 'supervised') for row in ROWS),
    *(f'{method}/{row}' for method in ('unimatch', 'fixmatch') for row in UNIMATCH_ROWS),
    *(f'supervised/{row}_{"xception65" if row.startswith("coco") else "r101-d16"}' for row in UNIMATCH_ROWS),
    *(f'unimatch_v2/{row}' for row in UNIMATCH_V2_ROWS),
    *(f'{method}/{row}_dinov2-b14' for method in ('fixmatch', 'supervised') for row in UNIMATCH_V2_ROWS),
    *(f'mean_teacher/{row}' for row in ('voc_92', 'voc_1over16', 'cityscapes_1over16')),
]


@pytest.fixture(scope='module', params=ROW_LEAVES)
def leaf(request) -> Leaf:
    return Leaf(CONFIGS / f'{request.param}.py')


def family(leaf: Leaf) -> str:
    return 'cnn' if leaf.cnn else 'dinov2' if leaf.dinov2 else 'mit'


def protocol(leaf: Leaf) -> Protocol:
    dataset = 'voc_u2pl' if leaf.cnn and 'u2pl' in leaf.words else leaf.dataset
    found = PROTOCOLS[family(leaf), dataset]
    return found._replace(lr=ALLSPARK_LR[leaf.dataset]) if leaf.method == 'allspark' else found


def row_of(leaf: Leaf) -> str:
    return Path(leaf.name).stem.removesuffix(f'_{leaf.network}')


def test_every_published_row_has_a_config():
    present = {str(path.relative_to(CONFIGS).with_suffix('')) for path in LEAVES}
    assert set(ROW_LEAVES) <= present
    others = {name for name in present - set(ROW_LEAVES) if name.split('/')[1].split('_')[0] in PUBLISHED}
    # test_s4former_protocol.py and test_css_protocol.py have theirs
    others = {name for name in others if not Leaf(CONFIGS / f'{name}.py').deit and name[:4] != 'css/'}
    assert all(any(name.startswith(f'{row}_') for row in ROW_LEAVES) for name in others), others
    found = {name for name in others if name.endswith(tuple(SIZES))}
    expected = {
        *(f'{method}/{row}_r50-d16' for method in SIZE_METHODS for row in RESNET50_ROWS),
        *(f'{method}/{row}_dinov2-s14' for method in ('supervised', 'unimatch_v2') for row in PASCAL_ROWS),
        *(f'unimatch_v2/{row}_dinov2-l14' for row in PASCAL_ROWS),
        *(f'supervised/cityscapes_{split}_dinov2-s14' for split in ('1over16', '1over8', '1over4', '1over2')),
    }
    assert found == expected
    for name in found:
        source = (CONFIGS / f'{name}.py').read_text()
        row, _, size = name.rpartition('_')
        suffix = f'_{SIZES[size]}' if name.startswith('supervised') else ''
        assert f"_base_ = './{row.split('/')[1]}{suffix}.py'" in source
        assert f'{row}{suffix}' in ROW_LEAVES
        changed = {target.id for node in ast.parse(source).body for target in node.targets}
        assert changed <= {'_base_', '_weights', 'model'}, f'{name} changes more than the network of {row}'


def iterations(leaf: Leaf, monkeypatch) -> int:
    """Steps of an epoch on each of the GPUs, by the config's own sampler and loader."""
    loader = leaf.cfg.train_dataloader
    labeled, unlabeled, *_ = ROWS[row_of(leaf)]
    if not leaf.by_epoch:
        return leaf.cfg.train_cfg.val_interval
    if leaf.method == 'supervised':
        assert loader.drop_last
        assert loader.sampler.type == 'DefaultSampler'  # which rounds up, as torch's
        return math.ceil(labeled / leaf.processes) // loader.batch_size
    parts = [TensorDataset(torch.empty(size, 0)) for size in (labeled, unlabeled)]
    monkeypatch.setattr('allspark_mmseg.datasets.samplers.get_dist_info', lambda: (0, leaf.processes))
    arguments = {key: value for key, value in loader.sampler.items() if key != 'type'}
    sampler = DualStreamSampler(ConcatDataset(parts), seed=0, **arguments)
    assert len(sampler) % loader.batch_size == 0
    return len(sampler) // loader.batch_size


def test_length(leaf, monkeypatch):
    published, found = protocol(leaf), iterations(leaf, monkeypatch)
    of_row = ROWS[row_of(leaf)]
    if not leaf.by_epoch:
        assert leaf.cfg.train_cfg.max_iters == SUPERVISED_V2_STEPS[leaf.dataset] == published.epochs * found
        return
    assert leaf.cfg.train_cfg.max_epochs == published.epochs
    if leaf.method == 'supervised':
        assert found * published.epochs == SUPERVISED_STEPS[row_of(leaf)][leaf.cnn]
    else:
        assert found == of_row[2 if published.images * published.gpus == 8 else 3]


def test_batch_crop_and_warm_up(leaf):
    crop, epochs, images, *_, gpus = protocol(leaf)
    assert leaf.processes == gpus
    assert tuple(leaf.cfg.crop_size) == (crop, crop)
    loader = leaf.cfg.train_dataloader
    if leaf.method == 'supervised':
        assert loader.batch_size == 2 * images
    else:
        assert (loader.sampler.labeled, loader.sampler.unlabeled) == (images, images)
        assert loader.sampler.round_up is True
    if leaf.method == 'allspark':
        assert leaf.cfg.default_hooks.memory_warm_up.epochs == WARM_UP[leaf.dataset]
        bottleneck = leaf.segmentor.decode_head.bottleneck
        assert bottleneck == dict(in_channels=512, crop_size=(crop, crop))
    assert leaf.cfg.train_cfg.val_interval == (1 if leaf.by_epoch else leaf.cfg.train_cfg.max_iters / epochs)
    assert leaf.cfg.val_dataloader.batch_size == 1


# network -> what its backbone and its decoder are built from
NETWORKS = {
    'mit-b5': (dict(embed_dims=64, num_layers=[3, 6, 40, 3], drop_path_rate=0.1), dict(channels=768)),
    'r101-d16': (
        dict(
            depth=101,
            stem_channels=128,
            strides=(1, 2, 2, 1),
            dilations=(1, 1, 1, 2),
            contract_dilation=True,
        ),
        dict(channels=256, c1_channels=48, dilations=(1, 6, 12, 18), align_corners=True),
    ),
    'xception65': ({}, dict(channels=256, c1_channels=48, dilations=(1, 6, 12, 18), align_corners=True)),
    'dinov2-b14': (
        dict(arch='base'),
        dict(channels=128, post_process_channels=[96, 192, 384, 768], align_corners=True),
    ),
}
# family and data set -> how an image is tested
TESTS = {
    ('mit', 'cityscapes'): dict(mode='slide_probs_clipped', crop_size=(801, 801), stride=(534, 534)),
    ('cnn', 'cityscapes'): dict(mode='slide_probs_clipped', crop_size=(801, 801), stride=(534, 534)),
    ('dinov2', 'cityscapes'): dict(mode='slide_probs_shifted', crop_size=(798, 798), stride=(532, 532)),
    ('dinov2', 'voc'): dict(mode='whole', size_multiple=14),
    ('dinov2', 'coco'): dict(mode='whole', size_multiple=14),
}


def test_network_and_losses(leaf):
    for found, expected in zip((leaf.segmentor.backbone, leaf.decoder), NETWORKS[leaf.network], strict=True):
        assert {key: found[key] for key in expected} == expected
    if leaf.cnn:
        norms = [part.norm_cfg.type for part in (leaf.segmentor.backbone, leaf.decoder)]
        assert norms == ['SyncBN', 'SyncBN']
    loss = dict(leaf.decoder.loss_decode)
    if leaf.dataset == 'cityscapes':
        assert loss == dict(type='allspark_mmseg.OHEMCrossEntropyLoss', threshold=0.7, min_kept=200000)
    else:
        assert loss == dict(type='CrossEntropyLoss', avg_non_ignore=True)
    assert leaf.segmentor.test_cfg == TESTS.get((family(leaf), leaf.dataset), dict(mode='whole'))
    normalization = leaf.segmentor.data_preprocessor
    assert normalization.mean == [123.675, 116.28, 103.53]
    assert normalization.std == [58.395, 57.12, 57.375]
    assert normalization.bgr_to_rgb is True


def test_arguments_of_the_method(leaf):
    """All but these are the classes' defaults, which test_weights_of_the_methods compares with the papers."""
    if leaf.method == 'supervised':
        return
    expected = {}
    if leaf.method == 'mean_teacher':
        expected = dict(predict_on='teacher', ignore_padding=True)
    elif leaf.dinov2:
        expected = dict(predict_on='teacher', teacher={})
    elif leaf.cnn:
        expected = dict(mix_source='same_image')
        expected |= dict(threshold=0.0) if leaf.dataset == 'cityscapes' else {}
    arguments = {key: v for key, v in leaf.cfg.model.items() if key not in ('type', 'segmentor')}
    assert arguments == expected


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('unimatch/voc_1over16', dict(strong_weight=0.125, perturbed_weight=0.25, drop_rate=0.5)),
        ('unimatch/cityscapes_1over16', dict(threshold=0.0)),
        ('fixmatch/coco_1over512', dict(strong_weight=0.5)),
        ('fixmatch/voc_92_dinov2-b14', dict(strong_weight=0.5, mix_source='batch')),
        ('unimatch_v2/voc_92', dict(strong_weight=0.25, no_dropout_ratio=0.5, mix_source='batch')),
        ('unimatch_v2/cityscapes_1over16', dict(threshold=0.95, mix_source='batch')),
    ],
)
def test_weights_of_the_methods(name, expected):
    leaf = Leaf(CONFIGS / f'{name}.py')
    make_tiny(leaf.cfg.model)
    model = MODELS.build(leaf.cfg.model)
    expected = (
        dict(threshold=0.95, labeled_weight=0.5, mix_source='same_image', ignore_padding=True) | expected
    )
    assert {key: getattr(model, key) for key in expected} == expected
    cutmix = model.cutmix
    assert (cutmix.prob, cutmix.area, cutmix.aspect) == (0.5, (0.02, 0.4), (0.3, 1 / 0.3))
    if leaf.dinov2:
        assert (model.teacher.momentum, model.teacher.warm_up) == (0.004, True)
        assert model.teacher.policies == {'': 'average'}


def rates(leaf: Leaf, per_epoch: int, steps: list[int]) -> dict[int, list[float]]:
    """Learning rates (backbone, rest) of some steps, by the config's own scheduler."""
    lr, multiplier = protocol(leaf).lr, protocol(leaf).head
    optimizer = torch.optim.SGD(
        [dict(params=[torch.zeros(1)], lr=lr), dict(params=[torch.zeros(1)], lr=lr * multiplier)]
    )
    (config,) = leaf.cfg.param_scheduler
    arguments = {key: v for key, v in config.items() if key not in ('type', 'convert_to_iter_based')}
    kind = PARAM_SCHEDULERS.get(config.type)
    if config.by_epoch:
        scheduler = kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=per_epoch, **arguments)
    else:
        scheduler = kind(optimizer, **arguments)
    found = {}
    for step in range(max(steps) + 1):
        if step in steps:
            found[step] = [group['lr'] for group in optimizer.param_groups]
        optimizer.step()
        scheduler.step()
    return found


def test_learning_rates(leaf, monkeypatch):
    _, epochs, _, lr, multiplier, _ = protocol(leaf)
    sgd = dict(type='SGD', lr=lr, momentum=0.9, weight_decay=1e-4)
    adamw = dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.01)
    assert leaf.cfg.optim_wrapper.optimizer == (adamw if leaf.dinov2 else sgd)
    assert leaf.cfg.optim_wrapper.get('clip_grad') is None
    per_epoch = iterations(leaf, monkeypatch)
    tried = [(per_epoch, [0, 1, 2])]
    if leaf.by_epoch:
        tried.append((3, [3 * epochs - 1]))  # the last step of the whole length takes seconds to reach
    elif leaf.split == '92':
        tried.append((per_epoch, [epochs * per_epoch - 1]))
    for length, steps in tried:
        total = epochs * length
        for step, (backbone, rest) in rates(leaf, length, steps).items():
            expected = lr * (1 - max(step - 1, 0) / total) ** 0.9
            assert backbone == pytest.approx(expected, rel=1e-7), step
            assert rest == pytest.approx(multiplier * expected, rel=1e-7), step


def make_tiny(model) -> None:
    """Shrunk, and narrow, too."""
    shrink(model)
    segmentor = model.get('segmentor', model)
    backbone, head = segmentor.backbone, segmentor.decode_head
    decoder = head.get('decoder', head)
    if backbone.type == 'ResNet':
        backbone.update(base_channels=8, stem_channels=8)
        decoder.update(in_channels=(32, 256), channels=16, c1_channels=8)
    elif backbone.type.endswith('Xception65'):
        decoder.update(channels=16)
    elif backbone.type.endswith('.VisionTransformer'):
        backbone.update(embed_dims=24, num_heads=2, mlp_ratio=2)
        for each in (decoder, *segmentor.auxiliary_head):
            each.update(in_channels=24, channels=8)
        if model.type.endswith('S4Former'):
            model.shuffle = dict(block_size=32)
    elif backbone.type.endswith('DINOv2'):
        backbone.arch.update(embed_dims=24, num_heads=2)
        decoder.update(in_channels=[24] * 4, channels=8, post_process_channels=[8] * 4)
    else:
        backbone.update(embed_dims=8, drop_path_rate=0.0)
        decoder.update(in_channels=[8, 16, 40, 64], channels=16)
        if 'bottleneck' in head:
            head.bottleneck.in_channels = 64


def shorten(loader, supervised: bool) -> None:
    """No more images a step than the stand-in has, and 3 steps an epoch."""
    if supervised:
        loader.update(batch_size=2)
    else:
        loader.update(batch_size=4, sampler=dict(loader.sampler, labeled=2, unlabeled=2))
        if 'epoch_length' in loader.sampler:
            loader.sampler.epoch_length = 3


BASES = ('voc_1over16', 'cityscapes_1over16', 'coco_1over512')
ALLSPARK_BASES = [
    f'{method}/{row}' for method in ('allspark', 'self_training', 'supervised') for row in BASES
]


@pytest.mark.parametrize(
    'name',
    [
        *ALLSPARK_BASES,
        *(f'unimatch/{row}' for row in BASES),
        'supervised/cityscapes_1over16_r101-d16',
        'unimatch_v2/voc_92',
        'supervised/voc_92_dinov2-b14',
    ],
)
def test_parameter_groups(name):
    """The backbone at one rate and all else at its multiple; weight decay on norms and biases, too."""
    leaf = Leaf(CONFIGS / f'{name}.py')
    make_tiny(leaf.cfg.model)
    model = MODELS.build(leaf.cfg.model)
    optimizer = build_optim_wrapper(model, leaf.cfg.optim_wrapper).optimizer
    lr, multiplier = protocol(leaf).lr, protocol(leaf).head
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(name.startswith('teacher') for name, p in model.named_parameters() if not p.requires_grad)
    names = {id(parameter): name for name, parameter in trained}
    seen = []
    for group in optimizer.param_groups:
        assert group['weight_decay'] == (0.01 if leaf.dinov2 else 1e-4)
        assert group.get('momentum', group.get('betas')) == ((0.9, 0.999) if leaf.dinov2 else 0.9)
        for parameter in group['params']:
            name = names[id(parameter)]
            seen.append(name)
            assert group['lr'] == pytest.approx(lr * (1 if 'backbone' in name else multiplier)), name
    assert sorted(seen) == sorted(names.values())


def stand_in(folder: Path, dataset: str, classes: int, count: int = 10) -> Path:
    """Small images laid out and listed as the real data set's: 2 labeled, 2 for validation, 6 others."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        part = 'val' if i >= count - 2 else 'train'
        if dataset == 'voc':
            image, mask = f'JPEGImages/2007_{i:06d}.jpg', f'SegmentationClass/2007_{i:06d}.png'
        elif dataset == 'coco':
            image, mask = f'{part}2017/{i:012d}.jpg', f'masks/{i:012d}.png'
        else:
            name = f'{part}/aachen/aachen_{i:06d}_000019'
            image, mask = f'leftImg8bit/{name}_leftImg8bit.png', f'gtFine/{name}_gtFine_labelTrainIds.png'
        size = (96, 192) if dataset == 'cityscapes' else ((60, 80), (81, 56))[i % 2]
        labels = rng.integers(0, classes, size, dtype=np.uint8)
        labels[:2] = 255
        for path, pixels in ((image, rng.integers(0, 256, (*size, 3), dtype=np.uint8)), (mask, labels)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / path)
        rows.append(f'{image} {mask}')
    for name, chosen in dict(labeled=rows[:2], unlabeled=rows[2:-2], val=rows[-2:]).items():
        (folder / f'{name}.txt').write_text('\n'.join(chosen))
    return folder


@pytest.fixture(scope='module')
def stand_ins(tmp_path_factory) -> dict[str, Path]:
    sizes = dict(voc=21, cityscapes=19, coco=81)
    return {name: stand_in(tmp_path_factory.mktemp(name), name, size) for name, size in sizes.items()}


def redirect(cfg: Config, folder: Path) -> None:
    """Let the config's data sets read the stand-in, each its own list."""
    for node in dicts([cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader]):
        if node.get('type') == 'allspark_mmseg.ImageListDataset':
            node['data_root'] = str(folder)
            node['ann_file'] = str(folder / Path(node['ann_file']).name)


@pytest.fixture(scope='module')
def tried() -> set[str]:
    """Pipelines that were tried: a split's are those of its row."""
    return set()


def test_training_pipeline_on_the_real_layout(leaf, stand_ins, tried):
    pipelines = str((leaf.dataset, [dataset.pipeline for dataset in leaf.training_sets]))
    if pipelines in tried:
        return
    tried.add(pipelines)
    redirect(leaf.cfg, stand_ins[leaf.dataset])
    dataset = DATASETS.build(leaf.cfg.train_dataloader.dataset)
    crop = (leaf.cfg.crop_size[0],) * 2
    if leaf.method == 'supervised':
        assert len(dataset) == 2
        item = dataset[0]
        assert item['inputs'].shape == (3, *crop)
        views = {'labeled': item['data_samples']}
    else:
        assert [len(part) for part in dataset.datasets] == [2, 6]
        preprocessor = MODELS.build(
            dict(leaf.segmentor.data_preprocessor, type='allspark_mmseg.MultiViewSegDataPreProcessor')
        )
        batch = preprocessor(pseudo_collate([dataset[0], dataset[2]]), training=True)
        unlabeled = ['weak', *STRONG_VIEWS.get(leaf.method, ())]
        if leaf.cfg.model.get('mix_source') == 'same_image':
            unlabeled += [f'mix_{view}' for view in unlabeled]
        assert {view: images.shape for view, images in batch['inputs'].items()} == dict.fromkeys(
            ('labeled', *unlabeled), (1, 3, *crop)
        )
        views = {view: samples[0] for view, samples in batch['data_samples'].items()}
        paddings = {view: views[view].gt_sem_seg.data[0] == 255 for view in unlabeled}
        for view, padding in paddings.items():
            # black before normalization: what padding looks like to the network
            assert padding.any() and not padding.all()
            if view.endswith('weak'):
                black = batch['inputs'][view][0, :, padding].T
                expected = (-preprocessor.mean / preprocessor.std).view(1, 3).expand_as(black)
                torch.testing.assert_close(black, expected)
            # views of one run have one crop, the second run has its own
            assert torch.equal(padding, paddings['mix_weak' if view.startswith('mix_') else 'weak'])
        assert len({sample.img_path for view, sample in views.items() if view != 'labeled'}) == 1
        if 'mix_weak' in views:
            assert views['weak'].scale_factor != views['mix_weak'].scale_factor
    labels = views['labeled'].gt_sem_seg.data.unique().tolist()
    assert 255 in labels and len(labels) > 2
    assert max(label for label in labels if label != 255) < len(leaf.cfg.metainfo.classes)
    validation = DATASETS.build(leaf.cfg.val_dataloader.dataset)
    assert len(validation) == 2
    item = validation[1]
    assert item['inputs'].shape[1:] == item['data_samples'].gt_sem_seg.shape == item['data_samples'].ori_shape


@pytest.mark.parametrize(
    'name',
    [
        *ALLSPARK_BASES,
        'unimatch/voc_1over16',
        'unimatch/cityscapes_1over16',
        'fixmatch/voc_u2pl_1over16',
        'fixmatch/voc_92_dinov2-b14',
        'unimatch_v2/cityscapes_1over16',
        'mean_teacher/voc_92',
        'supervised/voc_92_dinov2-b14',
        's4former/voc_92',
        's4former/cityscapes_1over8',
        'mean_teacher/voc_92_deit-b16',
        'supervised/voc_92_deit-b16',
        'css/voc_92_cross',
        'css/cityscapes_1over16_mix',
    ],
)
def test_protocol_runs(name, stand_ins, monkeypatch, tmp_path):
    """The published protocol on small data: an epoch and a validation. No GPU would wait for a gradient."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: repr(self.to_dict())))
    leaf = Leaf(CONFIGS / f'{name}.py')
    small, stride = ((70, 70), (42, 42)) if leaf.dinov2 else ((65, 65), (48, 48))
    small = (64, 64) if leaf.deit else small
    cfg = Config(resized(leaf.cfg.to_dict(), tuple(leaf.cfg.crop_size), small))
    for old in ((534, 534), (532, 532), (512, 512)):
        cfg = Config(resized(cfg.to_dict(), old, stride))
    redirect(cfg, stand_ins[leaf.dataset])
    make_tiny(cfg.model)
    if leaf.method == 'allspark':
        cfg.default_hooks.memory_warm_up.epochs = 0
    shorten(cfg.train_dataloader, supervised=leaf.method == 'supervised')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    if leaf.by_epoch:
        cfg.train_cfg.max_epochs = 1
    else:
        cfg.train_cfg.update(max_iters=1, val_interval=1)
        cfg.default_hooks.checkpoint.interval = 1
    cfg.visualizer.update(name=name, vis_backends=[dict(type='LocalVisBackend')])
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = name.replace('/', '_')
    cfg.log_level = 'ERROR'
    runner = Runner.from_cfg(cfg)
    reached = set()
    for key, parameter in runner.model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _, key=key: reached.add(key))
    runner.train()
    trained = {key for key, parameter in runner.model.named_parameters() if parameter.requires_grad}
    assert reached == trained, 'find_unused_parameters would be needed'
    assert runner.iter == (1 if leaf.method == 'supervised' else 3)
    if leaf.method == 'allspark':
        assert bool(runner.model.memory_ready)
        assert runner.model.memory.filled.max() > 0
    validated = ['mIoU']
    if cfg.val_cfg.type.endswith('TeacherStudentValLoop'):
        validated.append('student/mIoU' if 'predict_on' in cfg.model else 'teacher/mIoU')
    for metric in validated:
        assert 0 <= runner.message_hub.get_scalar(f'val/{metric}').current() <= 100
    assert list(tmp_path.glob('best_mIoU_*_1.pth'))
