"""Logs and images of the hooks in a run."""

from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import ConfigDict

from allspark_mmseg.engine import ClassStatisticsHook, PseudoLabelVisualizationHook
from allspark_mmseg.engine.hooks.pseudo_label_visualization import to_rgb

from ..helpers.tiny_models import CROP, tiny_segmentor
from .conftest import NAMES, log_lines, logged_scalars


@pytest.fixture
def trained(config, runner_of):
    """A run of two epochs of two iterations with all hooks; the memory is read from the second on."""
    config.log_level = 'INFO'
    config.custom_hooks += [
        ConfigDict(type='allspark_mmseg.MemoryWarmUpHook', epochs=1),
        ConfigDict(type='allspark_mmseg.ClassStatisticsHook', interval=2),
        ConfigDict(type='allspark_mmseg.PseudoLabelVisualizationHook', interval=3, num=2),
    ]
    runner = runner_of(config)
    runner.train()
    return runner


def test_hooks_in_a_run(trained):
    # MemoryWarmUpHook
    assert bool(trained.model.memory_ready)
    assert sum('The semantic memory is read from iteration 2 on' in line for line in log_lines(trained)) == 1

    # ClassStatisticsHook
    scalars = logged_scalars(trained)
    for what, values in (
        ('pseudo.share', trained.model.pseudo_share),
        ('memory.filled', trained.model.memory.filled),
    ):
        rows = [row for row in scalars if f'{what}/sky' in row]
        assert [row['step'] for row in rows] == [2, 4]
        for name, value in zip(NAMES, values.tolist(), strict=True):
            assert rows[-1][f'{what}/{name}'] == pytest.approx(value)
        listed = [line for line in log_lines(trained) if f'{what}: sky ' in line]
        assert len(listed) == 2
        assert all(name in listed[0] for name in NAMES)
    share = next(row for row in scalars if 'pseudo.share/sky' in row)
    assert sum(share[f'pseudo.share/{name}'] for name in NAMES) == pytest.approx(1)

    # PseudoLabelVisualizationHook: iteration 3 of 4
    pictures = sorted(Path(trained.work_dir).rglob('pseudo_label_*.png'))
    assert [path.name for path in pictures] == ['pseudo_label_0_3.png', 'pseudo_label_1_3.png']
    for path in pictures:
        assert cv2.imread(str(path)).shape == (*CROP, 3)

    # the health numbers of every step
    steps = [row for row in scalars if 'pseudo.confidence' in row]
    assert len(steps) == 4
    assert all({'sup.decode.loss_ce', 'unsup.loss_ce', 'memory.filled'} <= set(row) for row in steps)


def test_pictures_show_the_image_in_its_own_colors(config, runner_of):
    """A blue image (BGR on disk and in the batch) stays blue under its pseudo-label."""
    import numpy as np
    from PIL import Image

    dataset = config.train_dataloader.dataset
    folder = Path(config.work_dir).parent
    for i in range(2):
        Image.fromarray(np.full((72, 80, 3), (0, 0, 250), dtype=np.uint8)).save(folder / f'{i}.png')
    (folder / 'blue.txt').write_text(f'{folder}/0.png\n{folder}/1.png')
    dataset.unlabeled.ann_file = str(folder / 'blue.txt')
    dataset.labeled.metainfo.palette = [[0, 0, 0]] * 4
    config.visualizer.alpha = 0.5
    config.custom_hooks = [ConfigDict(type='allspark_mmseg.PseudoLabelVisualizationHook', interval=1, num=1)]
    config.train_cfg.max_epochs = 1
    runner = runner_of(config)
    runner.train()
    (picture,) = Path(runner.work_dir).rglob('pseudo_label_*.png')
    blue, green, red = cv2.imread(str(picture)).reshape(-1, 3).mean(axis=0)
    assert blue > 100
    assert max(green, red) < 10


def test_hooks_let_other_models_alone(config, runner_of):
    config.model = ConfigDict(tiny_segmentor())
    config.train_dataloader.dataset.labeled.pipeline[-1] = ConfigDict(type='PackSegInputs')
    config.train_dataloader.dataset.unlabeled = None
    config.train_dataloader.sampler = ConfigDict(type='InfiniteSampler')
    config.train_cfg = ConfigDict(type='IterBasedTrainLoop', max_iters=1)
    config.custom_hooks += [
        ConfigDict(type=f'allspark_mmseg.{hook.__name__}', interval=1)
        for hook in (ClassStatisticsHook, PseudoLabelVisualizationHook)
    ]
    runner = runner_of(config)
    runner.train()
    assert not list(Path(runner.work_dir).rglob('*.png'))
    assert not any('pseudo.share/sky' in row for row in logged_scalars(runner))


def test_images_with_other_bands_are_drawn():
    pixels = torch.arange(5 * 2 * 3, dtype=torch.uint8).reshape(5, 2, 3)
    assert (to_rgb(pixels[:3]) == pixels[[2, 1, 0]].permute(1, 2, 0).numpy()).all()
    assert (to_rgb(pixels) == to_rgb(pixels[:3])).all()
    assert (
        to_rgb(pixels[:1]).shape == (2, 3, 3) and (to_rgb(pixels[:1]) == pixels[0, ..., None].numpy()).all()
    )
