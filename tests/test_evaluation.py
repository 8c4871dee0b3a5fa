"""The mIoU of the configs' evaluators equals a NumPy computation, on one process and on two."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from PIL import Image

from .helpers.configs import ROOT
from .helpers.ranks import on_two_ranks

DATASETS = ROOT / 'configs' / '_base_' / 'datasets'
CLASSES = 6
UNSEEN = 4  # class that occurs in no mask and no prediction
IMAGES = 7
STEP = 40  # the gray level of a pixel is STEP times its predicted class


@MODELS.register_module()
class GrayLevelModel(BaseModel):
    """Model that predicts the class encoded in the gray level of each pixel."""

    def __init__(self, data_preprocessor=None):
        super().__init__(dict(type='SegDataPreProcessor'))

    def forward(self, inputs, data_samples=None, mode='predict'):
        for image, sample in zip(inputs, data_samples, strict=True):
            sample.pred_sem_seg = PixelData(data=(image[:1] / STEP).long())
        return data_samples


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Folder of images, which encode predictions, and masks; the first image is the largest and the worst."""
    root = tmp_path_factory.mktemp('evaluation')
    rng = np.random.default_rng(0)
    rows = []
    for i in range(IMAGES):
        size = (60, 80) if i == 0 else (20 + 3 * i, 45 - 4 * i)
        mask = rng.choice([0, 1, 2, 3, 5, 255], size, p=[0.5, 0.2, 0.1, 0.05, 0.05, 0.1]).astype(np.uint8)
        guess = rng.choice([0, 1, 2, 3, 5], size).astype(np.uint8)
        right = rng.random(size) < (0.1 if i == 0 else 0.8)
        prediction = np.where(right & (mask != 255), mask, guess)
        Image.fromarray(np.stack([prediction * STEP] * 3, axis=-1)).save(root / f'{i}.png')
        Image.fromarray(mask).save(root / f'{i}_mask.png')
        rows.append(f'{i}.png {i}_mask.png')
    (root / 'val.txt').write_text('\n'.join(rows))
    return root


def naive(folder: Path, indices) -> np.ndarray:
    """IoU of each class in percent (K,) over all images; NaN for a class that never occurs."""
    confusion = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    for i in indices:
        prediction = np.array(Image.open(folder / f'{i}.png'))[..., 0] // STEP
        mask = np.array(Image.open(folder / f'{i}_mask.png'))
        valid = mask != 255
        np.add.at(confusion, (mask[valid], prediction[valid]), 1)
    intersection = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    pairs = zip(intersection, union, strict=True)
    return 100 * np.array([i / u if u else np.nan for i, u in pairs])


def evaluation_config(folder: Path, work_dir: Path, **evaluator) -> Config:
    """Return the evaluation part of ``voc.py`` for the images of ``folder``."""
    released = Config.fromfile(DATASETS / 'voc.py')
    loader = released.val_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    loader.dataset.update(
        data_root=str(folder),
        ann_file='val.txt',
        metainfo=dict(classes=tuple('abcdef'), palette=[[i, i, i] for i in range(CLASSES)]),
    )
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(type='GrayLevelModel'),
            val_dataloader=loader,
            val_evaluator=released.val_evaluator | evaluator,
            val_cfg=dict(type='ValLoop'),
            work_dir=str(work_dir),
            experiment_name=work_dir.name,
            default_hooks=dict(logger=None, timer=None, checkpoint=None, param_scheduler=None),
            log_level='ERROR',
        )
    )


def evaluate(cfg: Config) -> dict[str, float]:
    return Runner.from_cfg(cfg).val()


def test_all_configs_use_the_same_evaluation():
    """The tests below use one config; they hold for all configs because the evaluation is the same."""
    evaluations = {}
    for path in sorted(DATASETS.glob('*.py')):
        cfg = Config.fromfile(path)
        for stage in ('val', 'test'):
            evaluation = cfg[f'{stage}_dataloader'].sampler, cfg[f'{stage}_evaluator']
            evaluations[f'{stage}_dataloader, {stage}_evaluator of {path.name}'] = evaluation
    expected = dict(type='DefaultSampler', shuffle=False), dict(type='IoUMetric', iou_metrics=['mIoU'])
    assert evaluations
    assert {name: value for name, value in evaluations.items() if value != expected} == {}


def test_on_one_process(folder, tmp_path):
    """The mean omits a class that never occurs; the reference and ``nan_to_num=0`` count it as 0."""
    iou = naive(folder, range(IMAGES))
    assert np.isnan(iou).nonzero()[0].tolist() == [UNSEEN]
    metrics = evaluate(evaluation_config(folder, tmp_path))
    assert metrics['mIoU'] == pytest.approx(np.nanmean(iou), abs=0.00501)  # rounded to 2 decimals
    metrics = evaluate(evaluation_config(folder, tmp_path / 'as_the_reference', nan_to_num=0))
    assert metrics['mIoU'] == pytest.approx(np.nansum(iou) / CLASSES, abs=0.00501)


def _evaluate_on_one_rank(rank: int, folder: Path, work_dir: Path) -> list:
    seen: list[int] = []
    forward = GrayLevelModel.forward

    def recording_forward(self, inputs, data_samples=None, mode='predict'):
        seen.extend(int(Path(sample.img_path).stem) for sample in data_samples)
        return forward(self, inputs, data_samples, mode)

    with mock.patch.object(GrayLevelModel, 'forward', recording_forward):
        metrics = evaluate(evaluation_config(folder, work_dir))
    return [float(metrics['mIoU']), seen]


def test_two_processes_count_no_image_twice(folder, tmp_path):
    """The sampler repeats the first image on the second process to give both the same number."""
    ranks = on_two_ranks(tmp_path, _evaluate_on_one_rank, folder, tmp_path)
    assert [seen for _, seen in ranks] == [[0, 2, 4, 6], [1, 3, 5, 0]]
    expected = np.nanmean(naive(folder, range(IMAGES)))
    with_repeated_image = np.nanmean(naive(folder, [*range(IMAGES), 0]))
    assert abs(with_repeated_image - expected) > 1
    assert [value for value, _ in ranks] == pytest.approx([expected] * 2, abs=0.00501)
