"""Checkpoints with their configs, and images, for the commands that predict."""

from pathlib import Path

import numpy as np
import torch
from mmengine.registry import init_default_scope
from PIL import Image

from .tiny_models import CLASSES, build_model, tiny_segmentor

LOAD = dict(type='LoadImageFromFile')
TEST_PIPELINE = [LOAD, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
META = dict(classes=('sky', 'road', 'tree', 'car'), palette=[[60 * i, 0, 9] for i in range(CLASSES)])


def model_config(model: dict | None = None, pipeline: list | None = None, **dataset) -> dict:
    """Config of a model and its test data."""
    data = dict(type='allspark_mmseg.ImageListDataset', metainfo=META, **dataset)
    data['pipeline'] = TEST_PIPELINE if pipeline is None else pipeline
    return dict(
        default_scope='mmseg',
        model=model or tiny_segmentor(),
        test_dataloader=dict(batch_size=1, dataset=data),
    )


def write_checkpoint(path: Path, config: dict | None = None, seed: int = 0, **meta) -> Path:
    """Write random weights with their config."""
    config = config or model_config()
    torch.manual_seed(seed)
    init_default_scope('mmseg')  # a fixture of a module runs before that of conftest.py
    model = build_model(config['model'])
    for values in model.parameters():
        if values.ndim > 1:
            torch.nn.init.normal_(values, std=0.2)
    text = '\n'.join(f'{key} = {value!r}' for key, value in config.items())
    meta = dict(cfg=text, dataset_meta=META) | meta
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    return path


def write_image(path: Path, size: tuple[int, int] = (40, 48), seed: int = 0) -> Path:
    """Write smooth noise of a size (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return path
