"""The published protocols: what allspark's, its baselines' and the data sets' configs say, in numbers."""

import math
from pathlib import Path

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

from .test_configs import CONFIGS, LEAVES, PUBLISHED, Leaf, dicts, resized, shrink

GPUS = 4
# data set -> crop; epochs; images a GPU and stream; supervised images a GPU; rates of AllSpark, of its
# baselines, of all but the backbone relative to it; first epoch that reads the memory
PROTOCOLS = {
    'voc': (513, 80, 2, 4, 0.001, 0.001, 10, 5),
    'cityscapes': (801, 240, 2, 4, 0.005, 0.001, 1, 15),
    'coco': (513, 10, 4, 8, 0.001, 0.001, 10, 1),  # the last is ours: the release gives none
}
# data set and split -> labelled and unlabelled images; iterations an epoch; supervised steps, where published
ROWS = {
    'voc_92': (92, 10490, 1311, 400),
    'voc_183': (183, 10399, 1300, 880),
    'voc_366': (366, 10216, 1277, 1840),
    'voc_732': (732, 9850, 1231, 3600),
    'voc_1464': (1464, 9118, 1140, 7280),
    'voc_1over16': (662, 9920, 1240, 3280),
    'voc_1over8': (1323, 9259, 1157, 6560),
    'voc_1over4': (2646, 7936, 992, 13200),
    'voc_1over2': (5291, 5291, 661, 26400),
    'voc_u2pl_1over16': (662, 9920, 1240, 3280),
    'voc_u2pl_1over8': (1323, 9259, 1157, 6560),
    'voc_u2pl_1over4': (2646, 7936, 992, 13200),
    'cityscapes_1over30': (100, 2875, 359, None),
    'cityscapes_1over16': (186, 2789, 349, 2640),
    'cityscapes_1over8': (372, 2603, 325, 5520),
    'cityscapes_1over4': (744, 2231, 279, 11040),
    'cityscapes_1over2': (1488, 1487, 186, 22320),
    'coco_1over512': (232, 118055, 7378, 70),
    'coco_1over256': (463, 117824, 7364, 140),
    'coco_1over128': (925, 117362, 7335, 290),
    'coco_1over64': (1849, 116438, 7277, 570),
    'coco_1over32': (3697, 114590, 7162, 1150),
}
METHODS = ('allspark', 'self_training', 'supervised')
ROW_LEAVES = [(method, row) for method in METHODS for row in ROWS]


@pytest.fixture(scope='module', params=ROW_LEAVES, ids='/'.join)
def leaf(request) -> Leaf:
    return Leaf(CONFIGS.joinpath(*request.param).with_suffix('.py'))


def row_of(leaf: Leaf) -> tuple:
    return ROWS[Path(leaf.name).stem]


def test_every_published_row_has_a_config():
    """A config of these data sets that no row names only changes the network of one."""
    present = {str(path.relative_to(CONFIGS).with_suffix('')) for path in LEAVES}
    rows = {'/'.join(row) for row in ROW_LEAVES}
    assert rows <= present
    others = {name for name in present - rows if name.split('/')[1].split('_')[0] in PUBLISHED}
    assert all(any(name.startswith(f'{row}_') for row in rows) for name in others), others


def iterations(leaf: Leaf, monkeypatch) -> int:
    """Steps of an epoch on each of four GPUs, by the config's own sampler and loader."""
    loader = leaf.cfg.train_dataloader
    labeled, unlabeled, *_ = row_of(leaf)
    parts = [TensorDataset(torch.empty(size, 0)) for size in (labeled, unlabeled)]
    if leaf.method == 'supervised':
        assert loader.drop_last
        assert loader.sampler.type == 'DefaultSampler'  # which rounds up, as torch's
        return math.ceil(labeled / GPUS) // loader.batch_size
    monkeypatch.setattr('allspark_mmseg.datasets.samplers.get_dist_info', lambda: (0, GPUS))
    arguments = {key: value for key, value in loader.sampler.items() if key != 'type'}
    sampler = DualStreamSampler(ConcatDataset(parts), seed=0, **arguments)
    assert len(sampler) % loader.batch_size == 0
    return len(sampler) // loader.batch_size


def test_length(leaf, monkeypatch):
    *_, per_epoch, supervised_steps = row_of(leaf)
    epochs = leaf.cfg.train_cfg.max_epochs
    assert epochs == PROTOCOLS[leaf.dataset][1]
    found = iterations(leaf, monkeypatch)
    if leaf.method != 'supervised':
        assert found == per_epoch
    elif supervised_steps is not None:
        assert found * epochs == supervised_steps


def test_batch_crop_and_warm_up(leaf):
    crop, _, per_stream, supervised, *_, warm_up = PROTOCOLS[leaf.dataset]
    assert tuple(leaf.cfg.crop_size) == (crop, crop)
    loader = leaf.cfg.train_dataloader
    if leaf.method == 'supervised':
        assert loader.batch_size == supervised
    else:
        assert (loader.sampler.labeled, loader.sampler.unlabeled) == (per_stream, per_stream)
        assert loader.sampler.round_up is True
    if leaf.method == 'allspark':
        assert leaf.cfg.custom_hooks[-1].epochs == warm_up
        bottleneck = leaf.segmentor.decode_head.bottleneck
        assert bottleneck == dict(in_channels=512, crop_size=(crop, crop))
    assert leaf.cfg.train_cfg.val_interval == 1
    assert leaf.cfg.val_dataloader.batch_size == 1


def test_network_and_losses(leaf):
    backbone = leaf.segmentor.backbone
    assert (backbone.embed_dims, backbone.num_layers) == (64, [3, 6, 40, 3])
    assert backbone.drop_path_rate == 0.1
    assert leaf.decoder.channels == 768
    loss = dict(leaf.decoder.loss_decode)
    if leaf.dataset == 'cityscapes':
        assert loss == dict(type='allspark_mmseg.OHEMCrossEntropyLoss', threshold=0.7, min_kept=200000)
        windows = dict(mode='slide_clipped', crop_size=(801, 801), stride=(534, 534))
        assert leaf.segmentor.test_cfg == windows
    else:
        assert loss == dict(type='CrossEntropyLoss', avg_non_ignore=True)
        assert leaf.segmentor.test_cfg == dict(mode='whole')
    if leaf.method != 'supervised':
        # mean of both terms; every switch of docs/allspark.md as released
        assert set(leaf.cfg.model) == {'type', 'segmentor'}
    normalisation = leaf.segmentor.data_preprocessor
    assert normalisation.mean == [123.675, 116.28, 103.53]
    assert normalisation.std == [58.395, 57.12, 57.375]
    assert normalisation.bgr_to_rgb is True


def rates(leaf: Leaf, per_epoch: int, steps: list[int]) -> dict[int, list[float]]:
    """Learning rates (backbone, rest) of some steps, by the config's own scheduler."""
    _, _, _, _, allspark, baseline, multiplier, _ = PROTOCOLS[leaf.dataset]
    lr = allspark if leaf.method == 'allspark' else baseline
    optimizer = torch.optim.SGD(
        [dict(params=[torch.zeros(1)], lr=lr), dict(params=[torch.zeros(1)], lr=lr * multiplier)]
    )
    (config,) = leaf.cfg.param_scheduler
    arguments = {key: v for key, v in config.items() if key not in ('type', 'convert_to_iter_based')}
    kind = PARAM_SCHEDULERS.get(config.type)
    scheduler = kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=per_epoch, **arguments)
    found = {}
    for step in range(max(steps) + 1):
        if step in steps:
            found[step] = [group['lr'] for group in optimizer.param_groups]
        optimizer.step()
        scheduler.step()
    return found


def test_learning_rates(leaf, monkeypatch):
    _, epochs, _, _, allspark, baseline, multiplier, _ = PROTOCOLS[leaf.dataset]
    lr = allspark if leaf.method == 'allspark' else baseline
    assert leaf.cfg.optim_wrapper.optimizer == dict(type='SGD', lr=lr, momentum=0.9, weight_decay=1e-4)
    per_epoch = iterations(leaf, monkeypatch)
    total = epochs * per_epoch
    # the last step takes a second to reach: only in the short runs, and in one row of each data set
    long = leaf.split in ('1over16', '1over512')
    steps = [0, 1, 2] + [total - 1] * (long or total < 4000)
    for step, (backbone, rest) in rates(leaf, per_epoch, steps).items():
        expected = lr * (1 - max(step - 1, 0) / total) ** 0.9
        assert backbone == pytest.approx(expected, rel=1e-7), step
        assert rest == pytest.approx(multiplier * expected, rel=1e-7), step


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('row', ['voc_1over16', 'cityscapes_1over16', 'coco_1over512'])
def test_parameter_groups(method, row):
    """The backbone at one rate and all else at its multiple; weight decay on norms and biases, too."""
    leaf = Leaf(CONFIGS / method / f'{row}.py')
    shrink(leaf.cfg.model)
    leaf.cfg.model.get('segmentor', leaf.cfg.model).backbone.embed_dims = 8
    leaf.decoder.in_channels = [8, 16, 40, 64]
    if method == 'allspark':
        leaf.segmentor.decode_head.bottleneck.in_channels = 64
    model = MODELS.build(leaf.cfg.model)
    optimizer = build_optim_wrapper(model, leaf.cfg.optim_wrapper).optimizer
    lr = leaf.cfg.optim_wrapper.optimizer.lr
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = []
    for group in optimizer.param_groups:
        assert (group['momentum'], group['weight_decay']) == (0.9, 1e-4)
        for parameter in group['params']:
            name = names[id(parameter)]
            seen.append(name)
            multiplier = 1 if 'backbone' in name else PROTOCOLS[leaf.dataset][6]
            assert group['lr'] == pytest.approx(lr * multiplier), name
    assert sorted(seen) == sorted(names.values())


def stand_in(folder: Path, dataset: str, classes: int, count: int = 10) -> Path:
    """Small images laid out and listed as the real data set's: 2 labelled, 2 for validation, 6 others."""
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
        if node.get('type') == 'allspark_mmseg.SplitListDataset':
            node['data_root'] = str(folder)
            node['ann_file'] = str(folder / Path(node['ann_file']).name)


def test_training_pipeline_on_the_real_layout(leaf, stand_ins):
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
            dict(leaf.segmentor.data_preprocessor, type='allspark_mmseg.SemiSegDataPreProcessor')
        )
        batch = preprocessor(pseudo_collate([dataset[0], dataset[2]]), training=True)
        assert {view: images.shape for view, images in batch['inputs'].items()} == {
            'labeled': (1, 3, *crop),
            'weak': (1, 3, *crop),
        }
        views = {view: samples[0] for view, samples in batch['data_samples'].items()}
        # black before normalisation: what padding looks like to the network
        padding = views['weak'].gt_sem_seg.data[0] == 255
        assert padding.any() and not padding.all()
        black = batch['inputs']['weak'][0, :, padding].T
        torch.testing.assert_close(black, (-preprocessor.mean / preprocessor.std).view(1, 3).expand_as(black))
    labels = views['labeled'].gt_sem_seg.data.unique().tolist()
    assert 255 in labels and len(labels) > 2
    assert max(label for label in labels if label != 255) < len(leaf.cfg.metainfo.classes)
    validation = DATASETS.build(leaf.cfg.val_dataloader.dataset)
    assert len(validation) == 2
    item = validation[1]
    assert item['inputs'].shape[1:] == item['data_samples'].gt_sem_seg.shape == item['data_samples'].ori_shape


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('row', ['voc_1over16', 'cityscapes_1over16', 'coco_1over512'])
def test_protocol_runs(method, row, stand_ins, monkeypatch, tmp_path):
    """The published protocol on small data: an epoch and a validation."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: repr(self.to_dict())))
    leaf = Leaf(CONFIGS / method / f'{row}.py')
    cfg = Config(resized(leaf.cfg.to_dict(), tuple(leaf.cfg.crop_size), (65, 65)))
    cfg = Config(resized(cfg.to_dict(), (534, 534), (48, 48)))
    redirect(cfg, stand_ins[leaf.dataset])
    shrink(cfg.model)
    segmentor = cfg.model.get('segmentor', cfg.model)
    segmentor.backbone.update(embed_dims=8, drop_path_rate=0.0)
    decoder = segmentor.decode_head.get('decoder', segmentor.decode_head)
    decoder.update(in_channels=[8, 16, 40, 64], channels=16)
    if method == 'allspark':
        segmentor.decode_head.bottleneck.in_channels = 64
        cfg.custom_hooks[-1].epochs = 0
    train = cfg.train_dataloader
    if method == 'supervised':
        train.update(batch_size=2)
    elif row.startswith('coco'):  # no more images than the stand-in has
        train.update(batch_size=4, sampler=dict(train.sampler, labeled=2, unlabeled=2))
    for loader in (train, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.max_epochs = 1
    cfg.visualizer.update(name=f'{method}/{row}', vis_backends=[dict(type='LocalVisBackend')])
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = f'{method}_{row}'
    cfg.log_level = 'ERROR'
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == (1 if method == 'supervised' else 3)
    if method == 'allspark':
        assert bool(runner.model.memory_ready)
        assert runner.model.memory.filled.max() > 0
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    assert list(tmp_path.glob('best_mIoU_epoch_1.pth'))
