"""An official AllSpark checkpoint is converted and evaluated by the command lines."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from ..helpers.allspark_reference import reference_network
from ..helpers.configs import ROOT
from ..helpers.official_states import allspark_spec, official_file, state_of
from ..helpers.scripts import CONVERTERS


@pytest.fixture
def official() -> dict:
    return state_of(allspark_spec())


@pytest.fixture(scope='module')
def evaluation(tmp_path_factory) -> Path:
    """One image, its mask, and a config that tests an AllSpark segmentor on it."""
    folder = tmp_path_factory.mktemp('evaluation')
    rng = np.random.default_rng(0)
    (folder / 'images').mkdir()
    (folder / 'masks').mkdir()
    Image.fromarray(rng.integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(folder / 'images/a.jpg')
    Image.fromarray(rng.integers(0, 4, (70, 90), dtype=np.uint8)).save(folder / 'masks/a.png')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    segmentor = reference_network({key: torch.empty(s) for key, s in allspark_spec().items()}, crop=65)
    config = dict(
        default_scope='mmseg',
        custom_imports=dict(imports=['allspark_mmseg']),
        model=dict(type='allspark_mmseg.AllSpark', segmentor=segmentor),
        test_dataloader=dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='allspark_mmseg.ImageListDataset',
                data_root=str(folder),
                data_prefix=dict(img_path='images', seg_map_path='masks'),
                metainfo=dict(classes=tuple('abcd'), palette=[[i] * 3 for i in range(4)]),
                pipeline=pipeline,
            ),
        ),
        test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        test_cfg=dict(),
        custom_hooks=[dict(type='allspark_mmseg.StartupCheckHook')],
    )
    Config(config).dump(folder / 'config.py')
    return folder


def call(*command) -> str:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout + done.stderr


def test_an_official_file_is_converted_and_evaluated(evaluation, tmp_path, official):
    source = official_file(tmp_path / 'best.pth', official, epoch=79)
    printed = call(CONVERTERS / 'allspark2mmseg.py', source, tmp_path / 'ours.pth')
    assert 'epoch 79' in printed and f'{tmp_path / "ours.pth"}: ' in printed
    work = ['--work-dir', tmp_path / 'work']
    output = call(ROOT / 'tools/test.py', evaluation / 'config.py', tmp_path / 'ours.pth', *work)
    assert 'mIoU' in output
    # strictly: MMEngine names every key that is left over or left empty
    assert 'do not match exactly' not in output
