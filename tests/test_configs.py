"""Every runnable config says what its name says, and its parts fit together."""

import copy
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from allspark_mmseg.registry import MODELS as OWN_MODELS
from allspark_mmseg.utils import dicts_in

from .helpers.configs import (
    ALL_NAMES,
    BACKBONES,
    CONFIGS,
    NAMES,
    PUBLISHED,
    ROOT,
    STRONG_VIEWS,
    RunConfig,
    read_rows,
    replace_size,
    shrink,
)

METHODS = {
    'allspark': ('allspark_mmseg.AllSpark',),
    'css': ('allspark_mmseg.CSSBaseline', 'allspark_mmseg.CSSMix', 'allspark_mmseg.CSSCross'),
    'fixmatch': ('allspark_mmseg.FixMatch',),
    'mean_teacher': ('allspark_mmseg.MeanTeacher',),
    's4former': ('allspark_mmseg.S4Former',),
    'self_training': ('allspark_mmseg.SelfTraining',),
    'unimatch': ('allspark_mmseg.UniMatch',),
    'unimatch_v2': ('allspark_mmseg.UniMatchV2',),
    'supervised': ('EncoderDecoder', 'allspark_mmseg.ExtendedEncoderDecoder'),
}
# word in a file name, or else the type of backbone -> the decode head
HEADS = {
    'upernet': 'UPerHead',
    'css': 'allspark_mmseg.RepresentationHead',
    'fcn': 'FCNHead',
    'ResNet': 'allspark_mmseg.DeepLabV3PlusHead',
    'allspark_mmseg.Xception65': 'allspark_mmseg.DeepLabV3PlusHead',
    'allspark_mmseg.DINOv2': 'allspark_mmseg.DINOv2DPTHead',
    'allspark_mmseg.MixVisionTransformer': 'allspark_mmseg.AllMLPHead',
    'allspark_mmseg.EfficientNetLite0': 'allspark_mmseg.AllMLPHead',
    'allspark_mmseg.VisionTransformer': 'SETRUPHead',
}
CAMVID = [name for name in NAMES if '/camvid' in name]


@pytest.fixture(scope='module', params=NAMES)
def run(request) -> RunConfig:
    return RunConfig(request.param)


def test_there_are_at_most_90_configs():
    assert len(ALL_NAMES) <= 90
    assert {name.split('/')[0] for name in NAMES} == set(METHODS)


def test_base_names_are_unique_so_that_mim_finds_them():
    """The CamVid and demo configs have the same name in each folder; mim takes their path."""
    counts = Counter(
        name.split('/')[1] for name in ALL_NAMES if not name.split('/')[1].startswith(('camvid', 'demo'))
    )
    assert max(counts.values()) == 1
    for name in ALL_NAMES:
        method, stem = name.split('/')
        assert method == 'allspark' or stem.startswith((f'{method}_', 'camvid', 'demo'))


def test_config(run):
    """One test for each config, because 82 configs times twelve tests take half a minute."""
    check_name_and_method(run)
    check_name_and_data(run)
    check_name_and_network(run)
    check_classes(run)
    check_crop_sizes(run)
    check_pipelines(run)
    check_test_pipeline(run)
    check_loaders(run)
    check_learning_rate_belongs_to_the_batch(run)
    check_schedule_lasts_as_long_as_training(run)
    check_hooks(run)
    check_a_teacher_predicts_and_both_are_validated(run)


def check_name_and_method(run):
    assert run.cfg.model.type in METHODS[run.method]
    if run.method == 'css' and run.dataset == 'camvid':
        assert run.cfg.model.type == f'allspark_mmseg.CSS{run.words[-1].title()}'
    assert (run.split is not None) == (run.dataset == 'camvid' or run.method == 'allspark')


def check_name_and_data(run):
    train = run.cfg.train_dataloader.dataset
    assert train.type == 'allspark_mmseg.SemiDataset'
    datasets = [train, run.cfg.val_dataloader.dataset, run.cfg.test_dataloader.dataset]
    assert {dataset.data_root for dataset in datasets} == {run.folder}
    assert set(run.streams) == ({'labeled'} if run.supervised else {'labeled', 'unlabeled'})
    for stream in run.streams.values():
        assert set(stream) == {'pipeline'}
    if run.split:
        assert re.sub(r'(\d)_(\d)', r'\1over\2', Path(train.split).name) == run.split
    if run.dataset in PUBLISHED:
        assert train.split.startswith(f'data/splits/{run.dataset}/')


@pytest.mark.parametrize('name', CAMVID)
def test_lists_in_the_repository_exist_and_are_disjoint(name):
    split = Path(RunConfig(name).cfg.train_dataloader.dataset.split)
    labeled, unlabeled = (
        {line.split()[0] for line in (split / f'{stream}.txt').read_text().splitlines()}
        for stream in ('labeled', 'unlabeled')
    )
    assert labeled and unlabeled and not labeled & unlabeled
    assert len(labeled) == -(-len(labeled | unlabeled) // 8)  # every 8th, the first included


def check_name_and_network(run):
    backbone = run.segmentor.backbone
    kind, size = BACKBONES[run.network]
    assert backbone.type == kind
    assert {key: backbone[key] for key in size} == size
    head = next((word for word in HEADS if word in (*run.words, run.method)), kind)
    assert run.decoder.type == HEADS[head]
    weights = run.segmentor.get('pretrained') or backbone.get('init_cfg')
    assert (weights is None) == ('scratch' in run.words)
    if (run.cnn or run.dinov2) and run.dataset in PUBLISHED:
        words = dict(r101='resnet101_mmseg', xception65='xception65_mmseg')
        file = words.get(run.network.split('-')[0], run.network.replace('dinov2-', 'dinov2_vit'))
        assert file in weights.checkpoint
    if run.deit:
        assert weights.checkpoint == 'pretrained/deit_base_mmseg.pth'


def check_classes(run):
    classes = run.cfg.metainfo.classes
    assert len(set(classes)) == len(classes) == len(run.cfg.metainfo.palette)
    assert {node['num_classes'] for node in dicts_in(run.cfg.model) if 'num_classes' in node} == {
        len(classes)
    }
    for stage in ('train', 'val', 'test'):
        assert run.cfg[f'{stage}_dataloader'].dataset.metainfo == run.cfg.metainfo


def check_crop_sizes(run):
    crop = tuple(run.cfg.crop_size)
    assert tuple(run.segmentor.data_preprocessor.size) == crop
    steps = [node for stream in run.streams.values() for node in dicts_in(stream.pipeline)]
    assert [tuple(step['crop_size']) for step in steps if 'crop_size' in step] == [crop] * len(run.streams)
    assert all(side % run.patch == 0 for side in crop)
    if run.method == 's4former':
        block = run.cfg.model.get('shuffle', dict(block_size=128))['block_size']
        assert all(side % block == 0 for side in crop) and block % run.patch == 0
    if run.dinov2:
        windows = run.segmentor.test_cfg.get('crop_size', crop)
        assert tuple(windows) == crop, 'windows are as large as crops, so they hold whole patches, too'
        assert ('size_multiple' in run.segmentor.test_cfg) == (run.segmentor.test_cfg.mode == 'whole')
    if run.method == 'allspark':
        assert tuple(run.segmentor.decode_head.bottleneck.crop_size) == crop


def check_pipelines(run):
    pipelines = {name: [step.type for step in stream.pipeline] for name, stream in run.streams.items()}
    for name, steps in pipelines.items():
        assert ('LoadAnnotations' in steps) == (name == 'labeled')
        assert ('allspark_mmseg.LoadEmptyAnnotations' in steps) == (name == 'unlabeled')
    jitter = 'allspark_mmseg.ColorJitter'
    # UniMatch and our CamVid configs keep the colors of labeled images
    colored = run.dataset != 'camvid' and (
        run.method == 'css' or not (run.method in STRONG_VIEWS or run.cnn or run.dinov2 or run.deit)
    )
    assert (jitter in str(run.streams['labeled'].pipeline)) == colored
    if run.supervised:
        assert pipelines['labeled'][-1] == 'PackSegInputs'
        return
    strong = set(STRONG_VIEWS.get(run.method, ())) | {run.cfg.model.get('unlabeled_view', 'weak')}
    unlabeled = {'weak', *strong}
    if run.cfg.model.get('mix_source') == 'same_image':
        unlabeled |= {f'mix_{view}' for view in unlabeled}
    assert set(run.views) == {'labeled', *unlabeled}
    for view, steps in run.views.items():
        assert steps[-1].type == 'PackSegInputs'
        jittered = ('strong' in view and not run.deit) or (view == 'labeled' and colored)
        assert (jitter in str(steps)) == jittered
        assert ('PhotoMetricDistortion' in str(steps)) == run.deit, 'S4Former distorts every view'


def check_test_pipeline(run):
    # CamVid images get odd sides for EfficientNet; a mask is loaded after the image is resized
    odd = run.dataset == 'camvid' and not run.dinov2
    resize = ['Resize'] if odd or (run.deit and run.dataset == 'voc') else []
    expected = ['LoadImageFromFile', *resize, 'LoadAnnotations', 'PackSegInputs']
    assert [step.type for step in run.cfg.test_pipeline] == expected
    assert run.cfg.test_dataloader.dataset.pipeline == run.cfg.test_pipeline


def check_loaders(run):
    for stage in ('train', 'val', 'test'):
        loader = run.cfg[f'{stage}_dataloader']
        # otherwise every epoch repeats the random draws of the first
        assert loader.get('persistent_workers', False) == (loader.num_workers > 0), stage
    train = run.cfg.train_dataloader
    if not run.by_epoch:
        assert train.sampler == dict(type='InfiniteSampler')
    elif run.supervised:
        assert train.sampler == dict(type='DefaultSampler', shuffle=True)
        assert train.drop_last is True
    else:
        assert train.sampler.type == 'allspark_mmseg.DualStreamSampler'
        assert train.batch_size == train.sampler.labeled + train.sampler.unlabeled
    assert run.cfg.val_dataloader.sampler == dict(type='DefaultSampler', shuffle=False)


def check_learning_rate_belongs_to_the_batch(run):
    assert run.cfg.auto_scale_lr.base_batch_size == run.processes * run.cfg.train_dataloader.batch_size
    assert run.cfg.auto_scale_lr.enable is False


def check_schedule_lasts_as_long_as_training(run):
    loop = run.cfg.train_cfg
    epochs = loop.type == 'EpochBasedTrainLoop'
    assert epochs == run.by_epoch
    length = loop.max_epochs if epochs else loop.max_iters
    last = run.cfg.param_scheduler[-1]
    if run.deit or run.network == 'r101-d8':  # counted in steps; S4Former's release has one more step
        assert last.end == (1000 * length if epochs else length) + (2 if run.deit else 1)
        assert last.by_epoch is False
    else:
        assert last.end == length
        assert (last.by_epoch, last.get('convert_to_iter_based', False)) == (epochs, epochs)
    assert length % loop.val_interval == 0, 'the last weights are validated'
    assert run.cfg.log_processor.by_epoch == epochs
    checkpoint = run.cfg.default_hooks.checkpoint
    assert checkpoint.get('by_epoch', True) == epochs
    assert checkpoint.type == 'allspark_mmseg.SafeCheckpointHook'
    # save_best looks for the checkpoint of the iteration that was validated
    assert loop.val_interval % checkpoint.interval == 0


def check_hooks(run):
    hooks = run.cfg.default_hooks
    assert {'startup_check', 'mean_teacher', 'sync_bn_stats', 'pseudo_label_quality'} <= set(hooks)
    assert ('memory_warm_up' in hooks) == (run.method == 'allspark')
    if run.method == 'allspark':
        assert 0 < hooks.memory_warm_up.epochs < run.cfg.train_cfg.max_epochs


def test_own_custom_hooks_remove_none_of_ours(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        f"_base_ = '{CONFIGS}/allspark/camvid_1over8_strong.py'\n"
        "custom_hooks = [dict(type='allspark_mmseg.PseudoLabelVisualizationHook')]\n"
    )
    cfg = Config.fromfile(path)
    assert {'startup_check', 'mean_teacher', 'memory_warm_up'} <= set(cfg.default_hooks)
    assert len(cfg.custom_hooks) == 1


def check_a_teacher_predicts_and_both_are_validated(run):
    model = run.cfg.model
    always = ('css', 'mean_teacher', 's4former', 'unimatch_v2')
    teacher = run.method in always or 'teacher' in model
    # with DeiT the student predicts, as in S4Former's release
    assert (model.get('predict_on') == 'teacher') == (teacher and not run.deit)
    assert run.cfg.val_cfg.type == ('allspark_mmseg.TeacherStudentValLoop' if teacher else 'ValLoop')


@pytest.mark.parametrize(
    ('name', 'other'),
    [
        ('supervised/camvid_1over8', 'allspark/camvid_1over8'),
        ('supervised/camvid_1over8_mit-b0_scratch', 'allspark/camvid_1over8_mit-b0_scratch'),
        ('supervised/camvid_1over8_dinov2-s14', 'unimatch_v2/camvid_1over8'),
    ],
)
def test_supervised_training_is_as_long_as_its_counterpart(name, other):
    """In iterations, and in the images of a step; the demo compares equal times instead."""
    supervised, other = RunConfig(name), RunConfig(other)
    assert supervised.network == other.network
    lines = Path(other.cfg.train_dataloader.dataset.split, 'unlabeled.txt').read_text().splitlines()
    sampler = other.cfg.train_dataloader.sampler
    per_epoch = len(lines) // other.processes // sampler.unlabeled
    assert supervised.cfg.train_cfg.max_iters == other.cfg.train_cfg.max_epochs * per_epoch
    assert supervised.cfg.train_dataloader.batch_size == sampler.labeled + sampler.unlabeled


@pytest.mark.parametrize(
    ('name', 'other'),
    [
        ('self_training/self_training_voc_mit-b5', 'allspark/voc_1over16'),
        ('self_training/self_training_cityscapes_mit-b5', 'allspark/cityscapes_1over16'),
        ('self_training/self_training_coco_mit-b5', 'allspark/coco_1over512'),
        ('self_training/camvid_1over8', 'allspark/camvid_1over8'),
        ('self_training/camvid_1over8_mit-b0_scratch', 'allspark/camvid_1over8_mit-b0_scratch'),
    ],
)
def test_self_training_is_allspark_without_the_bottleneck(name, other):
    baseline, other = RunConfig(name), RunConfig(other)
    assert baseline.decoder == other.decoder
    assert baseline.segmentor.backbone == other.segmentor.backbone
    if other.dataset == 'cityscapes':
        other.cfg.optim_wrapper.optimizer.lr = 0.001  # as released: a fifth of AllSpark's
    for key in (
        'train_dataloader',
        'val_dataloader',
        'optim_wrapper',
        'param_scheduler',
        'train_cfg',
        'randomness',
    ):
        assert baseline.cfg[key] == other.cfg[key], key


FIXMATCH = [name for name in NAMES if name.startswith('fixmatch/')]


@pytest.mark.parametrize('name', FIXMATCH)
def test_fixmatch_differs_from_its_counterpart_in_the_method_and_one_view(name):
    run = RunConfig(name)
    method = 'unimatch_v2' if run.dinov2 else 'unimatch'
    other = RunConfig(name.replace('fixmatch', method))
    assert run.network == other.network
    assert run.cfg.model | dict(type='') == other.cfg.model | dict(type='')
    assert run.streams['labeled'] == other.streams['labeled']
    assert set(other.views) - set(run.views) <= {'strong_2', 'mix_strong_2'}
    assert run.cfg.train_dataloader.sampler == other.cfg.train_dataloader.sampler
    for key in ('val_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'randomness'):
        assert run.cfg[key] == other.cfg[key], key


def test_css_variants_on_camvid_differ_in_the_class():
    mix = RunConfig('css/camvid_1over8_mix')
    for variant in ('baseline', 'cross'):
        other = RunConfig(f'css/camvid_1over8_{variant}')
        for key, value in mix.cfg.items():
            if key != 'model':
                assert other.cfg[key] == value, key
        changed = {key for key in mix.cfg.model if mix.cfg.model[key] != other.cfg.model[key]}
        assert changed <= {'type', 'contrast_ramp_down'}


def distinct_models() -> dict[str, tuple[str, dict]]:
    """Models of all configs and rows that differ, with their views: name -> (config, options)."""
    tried: dict[str, tuple[str, tuple[str, dict]]] = {}
    rows = read_rows().values()
    runs = {name: RunConfig(name) for name in NAMES} | {row.name: row.peek() for row in rows}
    sources = dict.fromkeys(NAMES, None) | {row.name: (row.config, row.options) for row in rows}
    for name, run in runs.items():
        views = [] if run.supervised else sorted(run.views)
        key = json.dumps([run.cfg.model.to_dict(), views], default=str)
        tried.setdefault(key, (name, sources[name] or (name, {})))
    return dict(tried.values())


MODELS_TO_BUILD = distinct_models()


@pytest.mark.parametrize('name', MODELS_TO_BUILD)
def test_model_builds_and_fits_its_features(name):
    """Every head takes the features of its backbone; on few pixels, at real widths."""
    run = RunConfig(*MODELS_TO_BUILD[name])
    model = copy.deepcopy(run.cfg.model)
    shrink(model)
    segmentor = model.get('segmentor', model)
    if run.method == 'allspark':
        side = 2 * segmentor.decode_head.bottleneck.get('stride', 32)
        segmentor.decode_head.bottleneck.crop_size = (side, side)
    model = MODELS.build(model).eval()
    if not run.supervised:
        assert type(model) is OWN_MODELS.get(run.cfg.model.type.removeprefix('allspark_mmseg.'))
        assert set(model.needed_views) == set(run.views)
    side = 5 * run.patch if run.dinov2 else 64
    image = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        (result,) = model.predict(image)
        if run.method == 'allspark':
            feature = model.extract_feat(image)[model.decode_head.bottleneck_index]
            stride = 64 // feature.shape[-1]
            assert run.segmentor.decode_head.bottleneck.get('stride', 32) == stride
    assert result.seg_logits.data.shape == (len(run.cfg.metainfo.classes), side, side)


def test_replace_size():
    node = dict(a=(5, 5), b=[dict(c=[5, 5], d=(5, 6)), ((5, 5), 1)])
    assert replace_size(node, (5, 5), (3, 4)) == dict(a=(3, 4), b=[dict(c=[3, 4], d=(5, 6)), ((3, 4), 1)])


def switches() -> list[tuple[str, str]]:
    text = (ROOT / 'docs' / 'methods' / 'allspark.md').read_text()
    table = text.split('## Where paper and release differ')[1].split('\n## ')[0]
    return re.findall(r'^\|.*\| `([\w.]+)=(\w+)` \|', table, flags=re.MULTILINE)


def test_allspark_documents_six_switches():
    assert len(switches()) == 6


@pytest.mark.parametrize(('key', 'value'), switches())
def test_a_documented_switch_changes_what_it_names(key, value):
    """The keys are those of a command line."""
    path = key.replace('head.', 'model.segmentor.decode_head.bottleneck.', 1)
    option = {'True': True}.get(value, 0 if value == '0' else value)
    if key.endswith('.prob'):
        cfg = RunConfig('allspark/voc_1over16', {path: option}).cfg
        color = cfg.train_dataloader.dataset.labeled.pipeline[-1].labeled[0]
        assert color.type == 'RandomApply' and color.prob == 0
        assert 'ColorJitter' in str(color.transforms)
        return
    cfg = RunConfig('allspark/camvid_1over8', {path: option}).cfg
    shrink(cfg.model)
    model = MODELS.build(cfg.model)
    name = key.rpartition('.')[2]
    if name == 'memory_init':
        assert model.memory.rows.eq(0).all()
    else:
        owner = model if key.startswith('model.') else model.decode_head.bottleneck
        assert getattr(owner, name) == option


LABELED_LISTS = sorted((CONFIGS / '_base_' / 'splits').glob('*/*/labeled.txt'))


@pytest.mark.parametrize('path', LABELED_LISTS, ids=lambda path: '/'.join(path.parts[-3:-1]))
def test_every_labeled_image_of_a_split_has_its_mask(path):
    rows = [line.split() for line in path.read_text().splitlines()]
    assert rows
    for image, mask in rows:
        assert Path(mask).stem == Path(image).stem
    unlabeled = path.with_name('unlabeled.txt')
    images = set(unlabeled.read_text().splitlines()) if unlabeled.is_file() else set()
    assert not images & {image for image, _ in rows}
