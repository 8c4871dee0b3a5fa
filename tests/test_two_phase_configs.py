"""Configs with a supervised phase, and the fragment that adds one to any other config."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmseg.registry import MODELS

from allspark_mmseg.utils import dicts_in

from .helpers.configs import ALL_NAMES, CONFIGS, NAMES, SMALL, shrink

TWO_PHASES = [name for name in ALL_NAMES if name.endswith(SMALL)]
METHODS = {
    'allspark': 'allspark_mmseg.AllSpark',
    'fixmatch': 'allspark_mmseg.FixMatch',
    'mean_teacher': 'allspark_mmseg.MeanTeacher',
    'unimatch': 'allspark_mmseg.UniMatch',
    'supervised': 'EncoderDecoder',
}
LABELED = {'camvid_1over30': (13, 354), 'magnetic_tile_36': (36, 634)}


@pytest.fixture(params=TWO_PHASES)
def cfg(request) -> Config:
    return Config.fromfile(CONFIGS / f'{request.param}.py')


@pytest.mark.parametrize('name', TWO_PHASES)
def test_method_classes_and_crops(name):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    assert cfg.model.type == METHODS[name.split('/')[0]]
    classes = len(cfg.metainfo.classes)
    assert {node['num_classes'] for node in dicts_in(cfg.model) if 'num_classes' in node} == {classes}
    sizes = [node[key] for node in dicts_in(cfg._cfg_dict) for key in ('crop_size', 'size') if key in node]
    assert {tuple(size) for size in sizes} == {tuple(cfg.crop_size)}
    shrink(cfg.model)
    model = MODELS.build(cfg.model)
    if name.startswith('supervised'):
        return
    views = {
        view
        for stream in ('labeled', 'unlabeled')
        for view in cfg.train_dataloader.dataset[stream].pipeline[-1]
        if view != 'type'
    }
    assert set(model.needed_views) == views
    assert model.teacher is not None and model.predict_on == 'teacher'


def test_phases_have_the_same_length_and_the_learning_rate_starts_anew(cfg):
    steps = cfg.train_dataloader.batch_size
    assert cfg.auto_scale_lr.base_batch_size == steps
    if cfg.model.type == 'EncoderDecoder':
        assert steps == 8 and cfg.train_dataloader.dataset.unlabeled is None
        return
    assert cfg.train_dataloader.sampler.labeled == cfg.train_dataloader.sampler.unlabeled == 8
    (hook,) = [hook for hook in cfg.custom_hooks if hook.type == 'allspark_mmseg.WarmStartHook']
    assert cfg.train_cfg.type == 'allspark_mmseg.PhaseTrainLoop'
    (schedule,) = cfg.param_scheduler
    assert schedule.end == cfg.train_cfg.max_iters
    assert hook.ramp_up < cfg.train_cfg.max_iters
    assert hook.max_iters % hook.val_interval == cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0


@pytest.mark.parametrize('split', LABELED)
def test_lists_are_disjoint(split):
    cfg = Config.fromfile(CONFIGS / 'allspark' / f'{split}.py')
    folder = Path(cfg.train_dataloader.dataset.split)
    labeled, unlabeled = (
        [line.split()[0] for line in (folder / f'{stream}.txt').read_text().splitlines()]
        for stream in ('labeled', 'unlabeled')
    )
    assert (len(labeled), len(unlabeled)) == LABELED[split]
    assert len({*labeled, *unlabeled}) == sum(LABELED[split])


# one published config of each method
PUBLISHED = list({name.split('/')[0]: name for name in NAMES if not name.startswith('supervised/')}.values())


@pytest.mark.parametrize('name', PUBLISHED)
def test_the_fragment_adds_a_supervised_phase_to_any_method(name, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = ['{CONFIGS}/{name}.py', '{CONFIGS}/_base_/warm_start.py']\n")
    cfg, published = Config.fromfile(path), Config.fromfile(CONFIGS / f'{name}.py')
    assert [hook.type for hook in cfg.custom_hooks] == ['allspark_mmseg.WarmStartHook']
    for key, value in published.items():
        assert cfg[key] == value, key


def test_the_hook_of_the_fragment_builds():
    cfg = Config.fromfile(CONFIGS / '_base_' / 'warm_start.py')
    from allspark_mmseg.registry import HOOKS

    hook = HOOKS.build(cfg.custom_hooks[0])
    assert hook.max_iters > hook.val_interval
