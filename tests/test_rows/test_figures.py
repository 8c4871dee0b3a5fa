"""Every published row of the metafiles: config and options give the published data, batches and lengths."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from allspark_mmseg.datasets import DualStreamSampler

from ..helpers.configs import CONFIGS, NAMES, PUBLISHED, RunConfig, read_metafile, read_rows

ROWS = read_rows()


@pytest.fixture(scope='module', params=ROWS)
def row(request):
    return ROWS[request.param]


@pytest.fixture(scope='module')
def run(row) -> RunConfig:
    return row.peek()


def test_rows_have_unique_names_and_every_published_config_has_rows():
    names = [
        model['Name']
        for path in CONFIGS.glob('*/metafile.yml')
        for model in read_metafile(path.parent.name)['Models']
    ]
    assert max(Counter(names).values()) == 1
    configs = {row.config for row in ROWS.values()}
    examples = {'allspark/voc_1over16_fcn_r50-d8', 'allspark/voc_1over16_upernet_swin-t'}
    assert configs == {name for name in NAMES if RunConfig(name).dataset in PUBLISHED} - examples


def test_figures_of_a_row(row, run, monkeypatch):
    """One test for each row, because 290 rows times four tests take a minute."""
    check_name_and_options(row, run)
    check_data(row, run)
    check_length(row, run, monkeypatch)
    check_memory_warm_up(row, run)


def check_name_and_options(row, run):
    method = row.config.split('/')[0]
    assert method == 'allspark' or row.name.startswith(f'{method}_')
    assert method != 'allspark' or not row.options, 'AllSpark has a config for each row'
    split = Path(run.cfg.train_dataloader.dataset.split).name
    label = split.replace('1_', '1over')
    assert f'_{label}' in f'_{row.name.removeprefix(f"{method}_")}'
    allowed = {'model.type', 'model.contrast_ramp_down', 'train_dataloader.dataset.split'}
    network = ('backbone.depth', 'backbone.init_cfg.checkpoint')
    assert all(key in allowed or key.endswith(network) for key in row.options)


def check_data(row, run):
    names = {'Pascal VOC 2012': 'voc', 'Cityscapes': 'cityscapes', 'COCO 2017': 'coco'}
    assert run.dataset == names[row.meta['Training Data']]
    assert tuple(run.cfg.crop_size) == (row.meta['Crop Size'],) * 2
    assert run.cfg.val_dataloader.batch_size == 1
    loader = run.cfg.train_dataloader
    labeled, unlabeled = row.meta['Labeled Batch per GPU'], row.meta['Unlabeled Batch per GPU']
    assert loader.batch_size == labeled + unlabeled
    if run.supervised:
        assert (unlabeled, row.meta['Unlabeled Images']) == (0, 0)
    else:
        assert (loader.sampler.labeled, loader.sampler.unlabeled) == (labeled, unlabeled)
    total = row.meta['GPUs'] * loader.batch_size
    assert run.cfg.auto_scale_lr.base_batch_size == total


def steps_per_epoch(row, run, monkeypatch) -> int:
    """Steps of an epoch on each of the GPUs, by the config's own sampler and loader."""
    loader, gpus = run.cfg.train_dataloader, row.meta['GPUs']
    if not run.by_epoch:
        return run.cfg.train_cfg.val_interval
    if run.supervised:
        assert loader.drop_last
        assert loader.sampler.type == 'DefaultSampler'  # it rounds up, like PyTorch's
        return math.ceil(row.meta['Labeled Images'] / gpus) // loader.batch_size

    class Streams(torch.utils.data.Dataset):
        streams = {
            'labeled': range(row.meta['Labeled Images']),
            'unlabeled': range(
                row.meta['Labeled Images'], row.meta['Labeled Images'] + row.meta['Unlabeled Images']
            ),
        }

    monkeypatch.setattr('allspark_mmseg.datasets.samplers.get_dist_info', lambda: (0, gpus))
    arguments = {key: value for key, value in loader.sampler.items() if key != 'type'}
    sampler = DualStreamSampler(Streams(), seed=0, **arguments)
    assert len(sampler) % loader.batch_size == 0
    return len(sampler) // loader.batch_size


def check_length(row, run, monkeypatch):
    steps, loop = steps_per_epoch(row, run, monkeypatch), run.cfg.train_cfg
    if run.by_epoch:
        assert loop.max_epochs == row.meta['Epochs']
        assert loop.max_epochs * steps == row.meta['Iterations']
        assert loop.val_interval == 1
    else:
        assert loop.max_iters == row.meta['Iterations'] == row.meta['Epochs'] * steps


def check_memory_warm_up(row, run):
    hook = run.cfg.default_hooks.get('memory_warm_up')
    assert (hook.epochs if hook else None) == row.meta.get('Memory Warm-Up Epochs')
    if hook:
        crop = row.meta['Crop Size']
        assert run.segmentor.decode_head.bottleneck == dict(in_channels=512, crop_size=(crop, crop))
