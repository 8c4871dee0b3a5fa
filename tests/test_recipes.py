"""The config for own data that docs/own_data.md shows, with every recipe: it builds and trains."""

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


def method_of(recipe: str) -> str:
    """Return the method of a recipe: METHOD.py, or METHOD_NETWORK.py for another network."""
    return recipe.removesuffix('_small').removesuffix('_mit-b0')


def documented_config(recipe: str) -> str:
    """The documented config, for another recipe: only AllSpark has a decoder behind its bottleneck."""
    (block,) = re.findall(
        r'```python\n# configs/allspark/mine\.py\n(.*?)```', (ROOT / 'docs' / 'own_data.md').read_text(), re.S
    )
    method = method_of(recipe)
    block = block.replace("'../_base_/recipes/allspark.py'", f"'{CONFIGS}/_base_/recipes/{recipe}.py'")
    if method != 'allspark':
        block = block.replace(
            'decode_head=dict(decoder=dict(num_classes=2))', 'decode_head=dict(num_classes=2)'
        )
    if method == 'supervised':
        block = block.replace('model = dict(segmentor=dict(decode_head=dict(num_classes=2)))',
                              'model = dict(decode_head=dict(num_classes=2))')  # fmt: skip
        block = re.sub(r'labeled\.txt\'\),\n.*', "labeled.txt')))", block)
    return block


def load(recipe: str, folder: Path) -> Config:
    path = folder / 'mine.py'
    path.write_text(documented_config(recipe))
    return Config.fromfile(path)


def test_the_config_has_at_most_15_lines():
    assert len(documented_config('allspark').splitlines()) <= 15


@pytest.mark.parametrize('recipe', RECIPES)
def test_it_builds_with_every_recipe(recipe, tmp_path):
    cfg = load(recipe, tmp_path)
    segmentor = cfg.model.get('segmentor', cfg.model)
    segmentor.backbone.init_cfg = None
    if 'num_layers' in segmentor.backbone:
        segmentor.backbone.num_layers = [1, 1, 1, 1]
    model = MODELS.build(cfg.model)
    method = method_of(recipe)
    kinds = {'supervised': 'encoderdecoder', 'css': 'cssmix'}
    assert type(model).__name__.lower() == kinds.get(method, method.replace('_', ''))
    assert model.num_classes == len(cfg.metainfo.classes) == 2
    assert cfg.train_dataloader.dataset.data_root == cfg.val_dataloader.dataset.data_root == 'data/mine'
    per_stream = 8 if recipe.endswith('_small') else 4
    assert cfg.train_dataloader.batch_size == per_stream * (1 if method == 'supervised' else 2)
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size
    if method != 'supervised':
        streams = (cfg.train_dataloader.dataset[name] for name in ('labeled', 'unlabeled'))
        views = {view for stream in streams for view in views_of(stream.pipeline[-1])}
        assert set(model.needed_views) == views
    assert ('memory_warm_up' in cfg.default_hooks) == (method == 'allspark')


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


# another network changes nothing here, because all networks are replaced by tiny ones
@pytest.mark.parametrize('recipe', sorted({method_of(recipe) for recipe in RECIPES}))
def test_it_trains_and_validates_on_a_user_s_folder(recipe, data, tmp_path):
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
