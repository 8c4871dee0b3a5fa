"""Work dirs as trainings leave them: logs, config, summary and checkpoints of a tiny network."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmseg.apis import init_model

from .raw_data import save

CLASSES = ['ground', 'road', 'tree']
PALETTE = [[10, 20, 30], [200, 0, 0], [0, 150, 0]]
IMAGES = 4
SIZE = (64, 80)

MODEL = """
default_scope = 'mmseg'
metainfo = dict(classes={classes!r}, palette={palette!r})
val_dataloader = dict(batch_size=1, dataset=dict(
    type='BaseSegDataset', data_root={root!r}, img_suffix='.png', seg_map_suffix='.png',
    data_prefix=dict(img_path='images', seg_map_path='masks'), metainfo=metainfo,
    pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale={scale!r}),
              dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))
segmentor = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[120.] * 3, std=[60.] * 3, bgr_to_rgb=True),
    backbone=dict(
        type='MixVisionTransformer', embed_dims=8, num_layers=[1] * 4, num_heads=[1, 2, 4, 8]),
    decode_head=dict(
        type='SegformerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=16,
        num_classes=3, norm_cfg=dict(type='BN')),
    test_cfg=dict(mode='whole'))
train_cfg = dict(max_iters=40)
randomness = dict(seed={seed})
"""
PLAIN = 'model = segmentor\n'
SEMI = "model = dict(type='allspark_mmseg.AllSpark', segmentor=segmentor, threshold=0.8)\n"


def make_data(root: Path) -> Path:
    """Write four images with masks: three classes, and some ignored pixels."""
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        truth = np.repeat(np.repeat(rng.choice([0, 1, 2], (8, 10)), 8, axis=0), 8, axis=1).astype(np.uint8)
        truth[:4] = 255
        noise = rng.integers(0, 40, (*SIZE, 3))
        save(root / 'images' / f'{index}.png', np.array([*PALETTE, *[[0] * 3] * 253])[truth] + noise)
        save(root / 'masks' / f'{index}.png', truth)
    return root


def config_text(data: Path, seed: int = 0, semi: bool = False, scale: tuple[int, int] = SIZE[::-1]) -> str:
    """Return the config of a run."""
    text = MODEL.format(root=str(data), classes=CLASSES, palette=PALETTE, seed=seed, scale=scale)
    return text + (SEMI if semi else PLAIN)


def write_entries(work_dir: Path, start: str, entries: Iterable[dict]) -> None:
    """Write ``scalars.json`` of one start."""
    log = work_dir / start / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text('\n'.join(json.dumps(entry) for entry in entries))


def write_log(work_dir: Path, start: str, lines: Iterable[str], age: timedelta = timedelta(hours=2)) -> None:
    """Write the text log of one start: lines a minute apart, the last one of the given age."""
    lines = list(lines)
    end = datetime.now() - age
    (work_dir / start).mkdir(parents=True, exist_ok=True)
    texts = [
        f'{end - timedelta(minutes=len(lines) - 1 - index):%Y/%m/%d %H:%M:%S} - mmengine - {line}'
        for index, line in enumerate(lines)
    ]
    (work_dir / start / f'{start}.log').write_text('\n'.join(texts))


def save_checkpoint(path: Path, data: Path, seed: int) -> None:
    """Write a checkpoint of a random network that contains its config."""
    text = config_text(data)
    torch.manual_seed(seed)
    model = init_model(Config.fromstring(text, '.py'), device='cpu')
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    meta = {'dataset_meta': {'classes': CLASSES, 'palette': PALETTE}, 'cfg': text}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)


def _write_common(work_dir: Path, data: Path, seed: int, semi: bool, step: int, age: timedelta) -> None:
    (work_dir / '1' / 'vis_data').mkdir(parents=True)
    (work_dir / '1' / 'vis_data' / 'config.py').write_text(config_text(data, seed, semi))
    head = [
        'INFO - ',
        '    Python: 3.11.7 (main)',
        '    CUDA available: False',
        '    GPU number: 1',
        'INFO - Config:',
    ]
    body = ['INFO - The supervised phase ended at iteration 20. Then'] if semi and step > 20 else []
    body += [f'INFO - Iter(train) [{step}/40]  lr: 1']
    body += ['WARNING - All pseudo-labels are road.'] if semi else []
    body += ['INFO - mIoU: ... chosen.pth is the student of AllSpark.'] if step == 40 else []
    write_log(work_dir, '1', [head[0], *body], age)
    log = work_dir / '1' / '1.log'
    log.write_text('\n'.join([*head[1:], head[-1], log.read_text()]))


def make_two_phases(
    work_dir: Path, data: Path, seed: int = 0, values: tuple[float, float] = (40.0, 46.0), step: int = 40
) -> Path:
    """Make the work dir of a finished run with two phases (``step`` 40), or of one that is training."""
    _write_common(work_dir, data, seed, True, step, timedelta(hours=2) if step == 40 else timedelta())
    entries: list[dict] = []
    for at in range(10, step + 1, 10):
        part = at > 20
        entries += [
            {'iter': at, 'step': at, 'lr': 1, 'loss': 3 / at, 'sup.loss_ce': 2 / at}
            | ({'unsup.loss_ce': 1 / at, 'pseudo.confident': at / 50} if part else {}),
            {'mIoU': values[part] - 40 + at, 'step': at} | ({'student/mIoU': 1.0} if part else {}),
            {'pseudo_quality/mean_precision': 0.9, 'step': at}
            | {f'pseudo_quality/precision.{name}': 0.5 + at / 100 for name in CLASSES}
            | {f'pseudo_quality/coverage.{name}': at / 100 for name in CLASSES},
        ]
        if part:
            entries.append({f'pseudo.share/{name}': at / 120 for name in CLASSES} | {'step': at})
    write_entries(work_dir, '1', entries)
    done = [('supervised', 'student', 20, values[0])] + [('AllSpark', 'teacher', 40, values[1])] * (
        step == 40
    )
    summary: dict = {
        phase: {'mIoU': value, 'iteration': at, 'minutes': 1.5, 'network': network, 'last': value}
        for phase, network, at, value in done
    }
    summary['scores'] = [
        {'phase': phase, 'network': network, 'iteration': at, 'minutes': 1.0, 'value': value}
        for phase, network, at, value in done
    ]
    (work_dir / 'summary.json').write_text(json.dumps(summary))
    for number, (phase, *_) in enumerate(done):
        save_checkpoint(work_dir / f'{phase}.pth', data, 10 * seed + number)
    return work_dir


def make_plain(work_dir: Path, data: Path, seed: int = 0, best: float = 41.0) -> Path:
    """Make the work dir of a finished supervised run without ``summary.json``."""
    _write_common(work_dir, data, seed, False, 40, timedelta(hours=2))
    entries = [{'iter': at, 'step': at, 'loss': 3 / at} for at in (10, 20, 30, 40)]
    write_entries(work_dir, '1', [*entries, {'mIoU': best - 3, 'step': 20}, {'mIoU': best, 'step': 40}])
    save_checkpoint(work_dir / 'iter_40.pth', data, seed)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'iter_40.pth'))
    return work_dir
