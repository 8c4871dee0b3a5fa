"""Small data on disk and the config of a training run on it."""

import copy
import itertools
import json
import logging
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

import allspark_mmseg  # noqa: F401

from ..helpers.tiny_models import CLASSES, CROP, tiny_segmentor

NAMES = ('sky', 'road', 'tree', 'car')
_ALLOWED = torch.serialization.get_safe_globals()  # as the package leaves it when it is imported
_number = itertools.count()


@pytest.fixture(autouse=True)
def _as_after_import():
    """Restore the safe globals of the package, which the loader of the OneDL fork removes.

    Restore also PyTorch's signal handler, which StopSignalHook removes before the process ends.
    """
    torch.serialization.add_safe_globals(_ALLOWED)
    handler = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, handler)


@pytest.fixture(scope='session')
def data_root(tmp_path_factory):
    """Eight images of 80 x 72 pixels with masks: 0..2 are labeled, 3..7 are unlabeled."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    rows = []
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (72, 80, 3), dtype=np.uint8)).save(root / f'{i}.png')
        mask = rng.integers(0, CLASSES, (72, 80), dtype=np.uint8)
        mask[0, :5] = 255
        Image.fromarray(mask).save(root / f'{i}_mask.png')
        rows.append(f'{i}.png {i}_mask.png')
    (root / 'labeled.txt').write_text('\n'.join(rows[:3]))
    (root / 'unlabeled.txt').write_text('\n'.join(rows[3:]))
    return root


def stream(data_root, name: str, pipeline: list) -> dict:
    """A stream of SemiDataset, or the arguments of ImageListDataset."""
    return dict(
        data_root=str(data_root),
        ann_file=f'{name}.txt',
        metainfo=dict(classes=NAMES, palette=[[60 * i, 0, 0] for i in range(CLASSES)]),
        pipeline=pipeline,
    )


@pytest.fixture
def config(data_root, tmp_path) -> Config:
    """Two epochs of two iterations of AllSpark without validation. Tests change it."""
    crop = dict(type='RandomCrop', crop_size=CROP)
    pack = dict(type='PackSegInputs')
    load = [dict(type='LoadImageFromFile')]
    labels = [*load, dict(type='LoadAnnotations')]
    segmentor = tiny_segmentor()
    segmentor['decode_head'] = dict(
        type='allspark_mmseg.AllSparkHead',
        bottleneck=dict(in_channels=64, channels=16, crop_size=CROP),
        decoder=segmentor['decode_head'],
    )
    views = [
        dict(type='allspark_mmseg.MultiView', labeled=[pack]),
        dict(type='allspark_mmseg.MultiView', weak=[pack]),
    ]
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(type='allspark_mmseg.AllSpark', segmentor=segmentor),
            work_dir=str(tmp_path / 'work'),
            experiment_name=f'test_{next(_number)}',
            train_dataloader=dict(
                batch_size=3,
                num_workers=0,
                sampler=dict(type='allspark_mmseg.DualStreamSampler', labeled=1, unlabeled=2),
                dataset=dict(
                    type='allspark_mmseg.SemiDataset',
                    labeled=stream(data_root, 'labeled', [*labels, crop, views[0]]),
                    unlabeled=stream(data_root, 'unlabeled', [*load, crop, views[1]]),
                ),
            ),
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='CheckpointHook', backend_args=dict(backend='allspark_mmseg.atomic')),
            ),
            custom_hooks=[dict(type='allspark_mmseg.StartupCheckHook')],
            visualizer=dict(
                type='SegLocalVisualizer',
                vis_backends=[dict(type='LocalVisBackend')],
                name=f'v_{next(_number)}',
            ),
            log_level='ERROR',
            randomness=dict(seed=0),
        )
    )


@pytest.fixture
def with_validation(config, data_root) -> Config:
    """The config with validation on its labeled images at the end."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='allspark_mmseg.ImageListDataset', **stream(data_root, 'labeled', pipeline)),
    )
    evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    for stage in ('val', 'test'):
        config[f'{stage}_dataloader'] = copy.deepcopy(loader)
        config[f'{stage}_evaluator'] = dict(evaluator)
        config[f'{stage}_cfg'] = dict(type=f'{stage.title()}Loop')
    config.train_cfg.val_interval = 2
    return config


def logged_scalars(runner) -> list[dict]:
    (path,) = Path(runner.work_dir).glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def log_lines(runner) -> list[str]:
    (path,) = Path(runner.work_dir).glob('*/*.log')
    return path.read_text().splitlines()


@pytest.fixture
def runner_of():
    """Build a runner and close its log file at the end."""
    built = []

    def build(config: Config) -> Runner:
        built.append(Runner.from_cfg(config))
        return built[-1]

    yield build
    for runner in built:
        runner.visualizer.close()
        for handler in list(runner.logger.handlers):
            if isinstance(handler, logging.FileHandler):
                handler.close()
                runner.logger.removeHandler(handler)  # MMEngine reuses the logger for the next runner
