"""The README's config for own data, with every recipe: it builds, and it trains on a user's folder."""

import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS
from PIL import Image

from .helpers.configs import CONFIGS, ROOT, make_tiny, replace_size, views_of

RECIPES = sorted(path.stem for path in (CONFIGS / '_base_' / 'recipes').glob('*.py'))
CROP = (65, 65)


def readme_config(recipe: str) -> str:
    """The README's config, for another recipe: only AllSpark has a decoder behind its bottleneck."""
    (block,) = re.findall(
        r'```python\n# configs/allspark/mine\.py\n(.*?)```', (ROOT / 'README.md').read_text(), re.S
    )
    block = block.replace("'../_base_/recipes/allspark.py'", f"'{CONFIGS}/_base_/recipes/{recipe}.py'")
    if recipe != 'allspark':
        block = block.replace(
            'decode_head=dict(decoder=dict(num_classes=2))', 'decode_head=dict(num_classes=2)'
        )
    if recipe == 'supervised':
        block = block.replace('model = dict(segmentor=dict(decode_head=dict(num_classes=2)))',
                              'model = dict(decode_head=dict(num_classes=2))')  # fmt: skip
        block = re.sub(r'labeled\.txt\'\),\n.*', "labeled.txt')))", block)
    return block


def load(recipe: str, folder: Path) -> Config:
    path = folder / 'mine.py'
    path.write_text(readme_config(recipe))
    return Config.fromfile(path)


def test_the_config_has_at_most_15_lines():
    assert len(readme_config('allspark').splitlines()) <= 15


@pytest.mark.parametrize('recipe', RECIPES)
def test_it_builds_with_every_recipe(recipe, tmp_path):
    cfg = load(recipe, tmp_path)
    segmentor = cfg.model.get('segmentor', cfg.model)
    segmentor.backbone.update(init_cfg=None, num_layers=[1, 1, 1, 1])
    model = MODELS.build(cfg.model)
    assert type(model).__name__.lower() == {'supervised': 'encoderdecoder'}.get(
        recipe, recipe.replace('_', '')
    )
    assert model.num_classes == len(cfg.metainfo.classes) == 2
    assert cfg.train_dataloader.dataset.data_root == cfg.val_dataloader.dataset.data_root == 'data/mine'
    assert cfg.train_dataloader.batch_size == (4 if recipe == 'supervised' else 8)
    if recipe != 'supervised':
        streams = (cfg.train_dataloader.dataset[name] for name in ('labeled', 'unlabeled'))
        views = {view for stream in streams for view in views_of(stream.pipeline[-1])}
        assert set(model.needed_views) == views
    assert ('memory_warm_up' in cfg.default_hooks) == (recipe == 'allspark')


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """A user's folder: images with spaces in their names, a list, and a folder of unlabeled images."""
    folder, rng = tmp_path_factory.mktemp('my data'), np.random.default_rng(0)
    for name, count in dict(images=8, masks=8, unlabeled=8).items():
        (folder / name).mkdir()
        for i in range(count):
            shape = (70, 80) if name == 'masks' else (70, 80, 3)
            pixels = rng.integers(0, 2 if name == 'masks' else 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f'my photo {i}.png')
    rows = [f'images/my photo {i}.png masks/my photo {i}.png' for i in range(8)]
    (folder / 'labeled.txt').write_text('\n'.join(rows[:6]))
    (folder / 'val.txt').write_text('\n'.join(rows[6:]))
    return folder


@pytest.mark.parametrize('recipe', RECIPES)
def test_it_trains_and_validates_on_a_user_s_folder(recipe, data, tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    cfg = Config(replace_size(load(recipe, tmp_path).to_dict(), (513, 513), CROP))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(data)
    make_tiny(cfg.model)
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.default_hooks.checkpoint.interval = 1
    for hook in cfg.custom_hooks:
        hook.update(max_iters=1, val_interval=1, ramp_up=0)
    cfg.update(work_dir=str(tmp_path / 'work'), experiment_name=f'own_{recipe}', log_level='ERROR')
    cfg.visualizer.update(name=f'own_{recipe}', vis_backends=[dict(type='LocalVisBackend')])
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == (1 if recipe == 'supervised' else 2)
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    assert list((tmp_path / 'work').glob('best_mIoU_*_[12].pth'))
    assert (tmp_path / 'work' / 'chosen.pth').is_file() == (recipe != 'supervised')
