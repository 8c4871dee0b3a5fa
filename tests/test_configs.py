"""Every config of a run is a case: it says what its name says, and its parts fit together."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS

from allspark_mmseg.backbones.dinov2 import ARCHS
from allspark_mmseg.registry import MODELS as OWN_MODELS

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs'
LEAVES = sorted(path for path in CONFIGS.glob('*/*.py') if path.parent.name != '_base_')
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
# data set -> its folder, and the number of processes that its batches are meant for
DATASETS = {
    'camvid': ('data/camvid', 2),
    'voc': ('data/VOC2012', 4),
    'cityscapes': ('data/cityscapes', 4),
    'coco': ('data/coco', 4),
    'demo': ('data/demo', 1),
}
PUBLISHED = ('voc', 'cityscapes', 'coco')
# word in a file name -> type of backbone, and what tells its size
BACKBONES = {
    'swin-t': ('SwinTransformer', {}),
    'r50-d8': ('ResNetV1c', dict(depth=50)),
    'r50-d16': ('ResNet', dict(depth=50)),
    'r101-d16': ('ResNet', dict(depth=101)),
    'r101-d8': ('ResNet', dict(depth=101)),
    'xception65': ('allspark_mmseg.Xception65', {}),
    'mit-b0': ('allspark_mmseg.MixVisionTransformer', dict(embed_dims=32, num_layers=[2, 2, 2, 2])),
    'mit-b4': ('allspark_mmseg.MixVisionTransformer', dict(embed_dims=64, num_layers=[3, 8, 27, 3])),
    'mit-b5': ('allspark_mmseg.MixVisionTransformer', dict(embed_dims=64, num_layers=[3, 6, 40, 3])),
    'dinov2-s14': ('allspark_mmseg.DINOv2', dict(arch='small')),
    'dinov2-b14': ('allspark_mmseg.DINOv2', dict(arch='base')),
    'dinov2-l14': ('allspark_mmseg.DINOv2', dict(arch='large')),
    'deit-b16': ('allspark_mmseg.VisionTransformer', dict(embed_dims=768, num_layers=12)),
    'efficientnet-lite0': ('allspark_mmseg.EfficientNetLite0', {}),
}
# method -> the word that a file name of a data set may leave out; '': of all others
DEFAULT_BACKBONES = {
    '': dict(camvid='efficientnet-lite0', demo='efficientnet-lite0'),
    **{
        method: dict(voc='mit-b5', cityscapes='mit-b5', coco='mit-b5')
        for method in ('allspark', 'self_training', 'supervised')
    },
    **{
        method: dict(voc='r101-d16', cityscapes='r101-d16', coco='xception65')
        for method in ('fixmatch', 'mean_teacher', 'unimatch')
    },
    'css': dict(voc='r101-d8', cityscapes='r101-d8'),
    's4former': dict(camvid='dinov2-s14', voc='deit-b16', cityscapes='deit-b16'),
    'unimatch_v2': dict(camvid='dinov2-s14', voc='dinov2-b14', cityscapes='dinov2-b14', coco='dinov2-b14'),
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
STRONG_VIEWS = {
    'css': ('strong_1',),
    'fixmatch': ('strong_1',),
    'mean_teacher': ('strong_1',),
    's4former': ('strong_1',),
    'unimatch': ('strong_1', 'strong_2'),
    'unimatch_v2': ('strong_1', 'strong_2'),
}
# family of vision transformers -> side of a patch
PATCHES = dict(dinov2=14, deit=16)


class Leaf:
    """A config, and what its path promises: METHOD/DATASET[_u2pl][_SPLIT][_HEAD][_BACKBONE][_scratch].py."""

    def __init__(self, path: Path):
        self.name = str(path.relative_to(CONFIGS))
        self.method = path.parent.name
        self.words = path.stem.split('_')
        self.dataset = self.words[0]
        self.folder, self.processes = DATASETS[self.dataset]
        split = next((word for word in self.words if 'over' in word or word.isdigit()), None)
        self.split = f'u2pl_{split}' if 'u2pl' in self.words else split
        defaults = DEFAULT_BACKBONES[''] | DEFAULT_BACKBONES.get(self.method, {})
        self.network = (
            next((word for word in BACKBONES if word in self.words), None) or defaults[self.dataset]
        )
        # UniMatch's networks, against AllSpark's
        self.cnn = self.network in ('r50-d16', 'r101-d16', 'xception65')
        self.dinov2 = self.network.startswith('dinov2')
        self.deit = self.network.startswith('deit')  # S4Former's
        self.patch = PATCHES.get(self.network.split('-')[0], 1)
        if self.deit or (self.cnn and 'u2pl' in self.words):
            self.processes = 2
        self.cfg = Config.fromfile(path)

    @property
    def segmentor(self) -> ConfigDict:
        return self.cfg.model.get('segmentor', self.cfg.model)

    @property
    def decoder(self) -> ConfigDict:
        head = self.segmentor.decode_head
        return head.get('decoder', head)

    @property
    def by_epoch(self) -> bool:
        """Supervised training on our own data sets, and of transformers, is as long whatever the labels."""
        return self.method != 'supervised' or (self.dataset in PUBLISHED and not (self.dinov2 or self.deit))

    @property
    def training_sets(self) -> list[ConfigDict]:
        dataset = self.cfg.train_dataloader.dataset
        return list(dataset.datasets) if dataset.type == 'ConcatDataset' else [dataset]

    @property
    def views(self) -> dict[str, list]:
        """The views of labeled and unlabeled images, and their steps."""
        return {k: v for dataset in self.training_sets for k, v in views_of(dataset.pipeline[-1]).items()}


def views_of(step: ConfigDict) -> dict[str, list]:
    """The views that the last step of a training pipeline makes, and their own steps."""
    if step.type == 'allspark_mmseg.TwoCrops':
        once = views_of(step.steps[-1])
        return once | {f'{step.prefix}{view}': steps for view, steps in once.items()}
    assert step.type == 'allspark_mmseg.MultiView'
    return {view: steps for view, steps in step.items() if view != 'type'}


@pytest.fixture(scope='module', params=LEAVES, ids=lambda path: f'{path.parent.name}/{path.stem}')
def leaf(request) -> Leaf:
    return Leaf(request.param)


def dicts(node) -> Iterator[dict]:
    """All dicts of a config, from the outside in."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for part in node:
            yield from dicts(part)


def test_there_are_configs():
    assert {path.parent.name for path in LEAVES} >= set(METHODS)


def test_name_and_method(leaf):
    assert leaf.cfg.model.type in METHODS[leaf.method]
    if leaf.method == 'css':
        assert leaf.cfg.model.type == f'allspark_mmseg.CSS{leaf.words[-1].title()}'
    assert (leaf.split is None) == (leaf.dataset == 'demo')


def test_name_and_data(leaf):
    datasets = [*leaf.training_sets, leaf.cfg.val_dataloader.dataset, leaf.cfg.test_dataloader.dataset]
    assert {dataset.data_root for dataset in datasets} == {leaf.folder}
    labeled, *unlabeled = leaf.training_sets
    assert labeled.get('labeled', True)
    assert Path(labeled.ann_file).name == 'labeled.txt'
    for dataset in unlabeled:
        assert dataset.labeled is False
        assert Path(dataset.ann_file).name == 'unlabeled.txt'
    assert len(unlabeled) == (leaf.method != 'supervised')
    if leaf.split:
        for dataset in leaf.training_sets:
            folder = Path(dataset.ann_file).parent
            assert re.sub(r'(\d)_(\d)', r'\1over\2', folder.name) == leaf.split, dataset.ann_file


@pytest.mark.parametrize('path', [p for p in LEAVES if p.stem.startswith('camvid')], ids=str)
def test_lists_in_the_repository_exist_and_are_apart(path):
    lists = [Path(dataset.ann_file) for dataset in Leaf(path).training_sets]
    images = [{line.split()[0] for line in path.read_text().splitlines()} for path in lists]
    assert all(images)
    if len(images) == 2:
        assert not set.intersection(*images)
        assert len(images[0]) == -(-sum(map(len, images)) // 8)  # every 8th, the first included


def test_name_and_network(leaf):
    backbone = leaf.segmentor.backbone
    kind, size = BACKBONES[leaf.network]
    assert backbone.type == kind
    assert {key: backbone[key] for key in size} == size
    head = next((word for word in HEADS if word in (*leaf.words, leaf.method)), kind)
    assert leaf.decoder.type == HEADS[head]
    weights = leaf.segmentor.get('pretrained') or backbone.get('init_cfg')
    assert (weights is None) == ('scratch' in leaf.words)
    if leaf.cnn or leaf.dinov2:
        words = dict(r101='resnet101_mmseg', r50='resnet50_mmseg', xception65='xception65_mmseg')
        file = words.get(leaf.network.split('-')[0], leaf.network.replace('dinov2-', 'dinov2_vit'))
        if leaf.dataset in PUBLISHED:
            assert file in weights.checkpoint
    if leaf.deit:
        assert weights.checkpoint == 'pretrained/deit_base_mmseg.pth'


def test_classes(leaf):
    classes = leaf.cfg.metainfo.classes
    assert len(set(classes)) == len(classes) == len(leaf.cfg.metainfo.palette)
    assert {node['num_classes'] for node in dicts(leaf.cfg.model) if 'num_classes' in node} == {len(classes)}
    for node in dicts(leaf.cfg):
        if node.get('type') == 'allspark_mmseg.ImageListDataset':
            assert node['metainfo'] == leaf.cfg.metainfo


def test_crop_sizes(leaf):
    crop = tuple(leaf.cfg.crop_size)
    assert tuple(leaf.segmentor.data_preprocessor.size) == crop
    steps = [node for dataset in leaf.training_sets for node in dicts(dataset.pipeline)]
    found = [tuple(step['crop_size']) for step in steps if 'crop_size' in step]
    assert found == [crop] * len(leaf.training_sets)
    assert all(side % leaf.patch == 0 for side in crop)
    if leaf.method == 's4former':
        block = leaf.cfg.model.get('shuffle', dict(block_size=128))['block_size']
        assert all(side % block == 0 for side in crop) and block % leaf.patch == 0
    if leaf.dinov2:
        windows = leaf.segmentor.test_cfg.get('crop_size', crop)
        assert tuple(windows) == crop, 'windows are as large as crops, so whole patches, too'
        assert ('size_multiple' in leaf.segmentor.test_cfg) == (leaf.segmentor.test_cfg.mode == 'whole')
    if leaf.method == 'allspark':
        assert tuple(leaf.segmentor.decode_head.bottleneck.crop_size) == crop


def test_pipelines(leaf):
    pipelines = [[step.type for step in dataset.pipeline] for dataset in leaf.training_sets]
    assert ['LoadAnnotations' in steps for steps in pipelines] == [True, False][: len(pipelines)]
    jitter = 'allspark_mmseg.ColorJitter'
    # UniMatch's labeled images keep their colors, and CamVid's
    colored = leaf.dataset != 'camvid' and (
        leaf.method == 'css' or not (leaf.method in STRONG_VIEWS or leaf.cnn or leaf.dinov2 or leaf.deit)
    )
    distortion = 'PhotoMetricDistortion'  # S4Former's, of every view
    assert (jitter in str(leaf.training_sets[0].pipeline)) == colored
    if leaf.method == 'supervised':
        assert pipelines[0][-1] == 'PackSegInputs'
    else:
        strong = set(STRONG_VIEWS.get(leaf.method, ())) | {leaf.cfg.model.get('unlabeled_view', 'weak')}
        unlabeled = {'weak', *strong}
        if leaf.cfg.model.get('mix_source') == 'same_image':
            unlabeled |= {f'mix_{view}' for view in unlabeled}
        views = leaf.views
        assert set(views) == {'labeled', *unlabeled}
        for view, steps in views.items():
            assert steps[-1].type == 'PackSegInputs'
            jittered = ('strong' in view and not leaf.deit) or (view == 'labeled' and colored)
            assert (jitter in str(steps)) == jittered
            assert (distortion in str(steps)) == leaf.deit
    marked = ['allspark_mmseg.LoadEmptyAnnotations' in steps for steps in pipelines]
    assert marked == [False, True][: len(marked)]
    # CamVid's images get odd sides, for EfficientNet; a mask is loaded after any resizing of the image
    odd = leaf.dataset == 'camvid' and not leaf.dinov2
    resized = ['Resize'] if odd or (leaf.deit and leaf.dataset == 'voc') else []
    expected = ['LoadImageFromFile', *resized, 'LoadAnnotations', 'PackSegInputs']
    assert [step.type for step in leaf.cfg.test_pipeline] == expected
    assert leaf.cfg.test_dataloader.dataset.pipeline == leaf.cfg.test_pipeline


def test_loaders(leaf):
    for stage in ('train', 'val', 'test'):
        loader = leaf.cfg[f'{stage}_dataloader']
        # without it every epoch repeats the random draws of the first
        assert loader.get('persistent_workers', False) == (loader.num_workers > 0), stage
    train = leaf.cfg.train_dataloader
    if not leaf.by_epoch:
        assert train.sampler == dict(type='InfiniteSampler')
    elif leaf.method == 'supervised':
        assert train.sampler == dict(type='DefaultSampler', shuffle=True)
        assert train.drop_last is True
    else:
        assert train.sampler.type == 'allspark_mmseg.DualStreamSampler'
        assert train.batch_size == train.sampler.labeled + train.sampler.unlabeled
    assert leaf.cfg.val_dataloader.sampler == dict(type='DefaultSampler', shuffle=False)


def test_learning_rate_belongs_to_the_batch(leaf):
    assert leaf.cfg.auto_scale_lr.base_batch_size == leaf.processes * leaf.cfg.train_dataloader.batch_size
    assert leaf.cfg.auto_scale_lr.enable is False


def test_schedule_lasts_as_long_as_training(leaf):
    loop = leaf.cfg.train_cfg
    epochs = loop.type == 'EpochBasedTrainLoop'
    assert epochs == leaf.by_epoch
    length = loop.max_epochs if epochs else loop.max_iters
    last = leaf.cfg.param_scheduler[-1]
    if leaf.deit or leaf.network == 'r101-d8':  # counted in steps; S4Former's release has one more of them
        assert last.end == (1000 * length if epochs else length) + (2 if leaf.deit else 1)
        assert last.by_epoch is False
    else:
        assert last.end == length
        assert (last.by_epoch, last.get('convert_to_iter_based', False)) == (epochs, epochs)
    assert length % loop.val_interval == 0, 'the last weights are validated'
    assert leaf.cfg.log_processor.by_epoch == epochs
    checkpoint = leaf.cfg.default_hooks.checkpoint
    assert checkpoint.get('by_epoch', True) == epochs
    assert checkpoint.backend_args == dict(backend='allspark_mmseg.atomic')
    # save_best looks for the checkpoint of the iteration that was validated
    assert loop.val_interval % checkpoint.interval == 0


def test_hooks(leaf):
    hooks = leaf.cfg.default_hooks
    assert {'startup_check', 'teacher', 'sync_bn_stats'} <= set(hooks)
    assert ('memory_warm_up' in hooks) == (leaf.method == 'allspark')
    if leaf.method == 'allspark':
        assert 0 < hooks.memory_warm_up.epochs < leaf.cfg.train_cfg.max_epochs


def test_a_hook_of_one_s_own_takes_none_away(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        f"_base_ = '{CONFIGS}/allspark/camvid_1over8_strong.py'\n"
        "custom_hooks = [dict(type='allspark_mmseg.PseudoLabelVisualizationHook')]\n"
    )
    cfg = Config.fromfile(path)
    assert {'startup_check', 'teacher', 'memory_warm_up'} <= set(cfg.default_hooks)
    assert len(cfg.custom_hooks) == 1


def test_a_teacher_predicts_and_both_are_validated(leaf):
    model = leaf.cfg.model
    always = ('css', 'mean_teacher', 's4former', 'unimatch_v2')
    teacher = leaf.method in always or 'teacher' in model
    assert (model.get('predict_on') == 'teacher') == (teacher and not leaf.deit)  # S4Former's student does
    assert leaf.cfg.val_cfg.type == ('allspark_mmseg.TeacherStudentValLoop' if teacher else 'ValLoop')


def counted(path: Path) -> int:
    return len(path.read_text().split('\n')) - path.read_text().endswith('\n')


@pytest.mark.parametrize(
    'path',
    [path for path in LEAVES if path.parent.name == 'supervised' and path.stem.startswith('camvid')],
    ids=lambda p: p.stem,
)
def test_supervised_training_is_as_long_as_its_counterpart(path):
    """In iterations, and in the images of a step; the demo compares equal times instead."""
    supervised = Leaf(path)
    others = [
        Leaf(CONFIGS / method / path.name) for method in METHODS if (CONFIGS / method / path.name).exists()
    ]
    others.append(Leaf(CONFIGS / 'unimatch_v2' / 'camvid_1over8.py'))
    other = next(o for o in others if o.method != 'supervised' and o.network == supervised.network)
    unlabeled = counted(Path(other.training_sets[1].ann_file))
    per_epoch = unlabeled // other.processes // other.cfg.train_dataloader.sampler.unlabeled
    assert supervised.cfg.train_cfg.max_iters == other.cfg.train_cfg.max_epochs * per_epoch
    shares = other.cfg.train_dataloader.sampler
    assert supervised.cfg.train_dataloader.batch_size == shares.labeled + shares.unlabeled


def test_counterparts_differ_in_the_method_alone():
    """Self-training is AllSpark without the bottleneck, and nothing else."""
    for path in (path for path in LEAVES if path.parent.name == 'self_training'):
        baseline, other = Leaf(path), Leaf(CONFIGS / 'allspark' / path.name)
        assert baseline.decoder == other.decoder
        assert baseline.segmentor.backbone == other.segmentor.backbone
        for key in (
            'train_dataloader',
            'val_dataloader',
            'optim_wrapper',
            'param_scheduler',
            'train_cfg',
            'randomness',
        ):
            same = copy.deepcopy(other.cfg[key])
            if key == 'optim_wrapper' and other.dataset == 'cityscapes':
                same.optimizer.lr = 0.001  # as released: a fifth of AllSpark's
            assert baseline.cfg[key] == same, f'{path.stem}: {key}'


def test_fixmatch_differs_from_its_counterpart_in_the_method_and_a_view():
    rows = (path for path in LEAVES if path.parent.name == 'fixmatch' and '_base_ = [' in path.read_text())
    for path in rows:
        leaf = Leaf(path)
        method = 'unimatch_v2' if leaf.dinov2 else 'unimatch'
        other = Leaf(CONFIGS / method / path.name.replace('_dinov2-b14', ''))
        assert leaf.network == other.network
        assert leaf.cfg.model | dict(type='') == other.cfg.model | dict(type='')
        assert leaf.training_sets[0] == other.training_sets[0]
        assert {**leaf.views, 'strong_2': 0, 'mix_strong_2': 0}.keys() >= other.views.keys()
        assert leaf.cfg.train_dataloader.sampler == other.cfg.train_dataloader.sampler
        for key in (
            'val_dataloader',
            'optim_wrapper',
            'param_scheduler',
            'train_cfg',
            'val_cfg',
            'randomness',
        ):
            assert leaf.cfg[key] == other.cfg[key], f'{path.stem}: {key}'


def shrink(model: ConfigDict) -> None:
    """No weights to fetch, few blocks, BN in place of SyncBN; widths stay."""
    for node in dicts(model):
        for key in ('init_cfg', 'pretrained'):
            if key in node:
                node[key] = None
        for key in ('num_layers', 'depths'):
            if key in node:
                node[key] = [1, 1, 1, 1]
        if node.get('type') == 'allspark_mmseg.VisionTransformer':
            node.update(num_layers=4, out_indices=(0, 1, 2, 3))
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        if node.get('type') == 'ResNet':
            node['depth'] = 50
        if node.get('type') == 'allspark_mmseg.DINOv2':
            sizes = ARCHS[node['arch']]
            node['arch'] = {key: sizes[key] for key in ('embed_dims', 'num_heads')}
            node['arch'].update(depth=4, out_indices=(0, 1, 2, 3))


@pytest.fixture(scope='module')
def built() -> set[str]:
    """Models and views that were tried; those of a split are mostly those of its row."""
    return set()


def test_model_builds_and_fits_its_features(leaf, built):
    """On features of few pixels, at real widths: every head takes what the backbone gives."""
    model = copy.deepcopy(leaf.cfg.model)
    views = [] if leaf.method == 'supervised' else sorted(leaf.views)
    tried = json.dumps([model.to_dict(), views], default=str)
    if tried in built:
        return
    built.add(tried)
    shrink(model)
    segmentor = model.get('segmentor', model)
    if segmentor.backbone.type.endswith('EfficientNetLite0'):
        pytest.importorskip('efficientnet_lite_pytorch')
    if leaf.method == 'allspark':
        side = 2 * segmentor.decode_head.bottleneck.get('stride', 32)
        segmentor.decode_head.bottleneck.crop_size = (side, side)
    model = MODELS.build(model).eval()
    if leaf.method != 'supervised':
        assert type(model) is OWN_MODELS.get(leaf.cfg.model.type.removeprefix('allspark_mmseg.'))
        assert set(model.needed_views) == set(views)
    side = 5 * leaf.patch if leaf.dinov2 else 64
    image = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        (result,) = model.predict(image)
        if leaf.method == 'allspark':
            feature = model.extract_feat(image)[model.decode_head.bottleneck_index]
            stride = 64 // feature.shape[-1]
            assert leaf.segmentor.decode_head.bottleneck.get('stride', 32) == stride
    assert result.seg_logits.data.shape == (len(leaf.cfg.metainfo.classes), side, side)


def resized(node, old: tuple, new: tuple):
    """The node with every ``old`` size replaced; lists and tuples of the same numbers count."""
    if isinstance(node, list | tuple) and tuple(node) == old:
        return type(node)(new)
    if isinstance(node, dict):
        return type(node)({key: resized(value, old, new) for key, value in node.items()})
    if isinstance(node, list | tuple):
        return type(node)(resized(value, old, new) for value in node)
    return node


def test_resized():
    node = dict(a=(5, 5), b=[dict(c=[5, 5], d=(5, 6)), ((5, 5), 1)])
    assert resized(node, (5, 5), (3, 4)) == dict(a=(3, 4), b=[dict(c=[3, 4], d=(5, 6)), ((3, 4), 1)])


@pytest.mark.parametrize('method', ['AllSpark', 'FixMatch'])
def test_the_readme_s_config_for_own_data_builds(tmp_path, method):
    blocks = [block.split('```')[0] for block in (ROOT / 'README.md').read_text().split('```python\n')[1:]]
    source = next(block for block in blocks if '# configs/allspark/mine.py' in block)
    if method == 'FixMatch':  # "the rest is as above"
        other = next(block for block in blocks if 'allspark_mmseg.FixMatch' in block)
        source = source.partition('segmentor = _base_.model')[0] + other
    path = tmp_path / 'mine.py'
    path.write_text(source.replace("'../_base_/", f"'{CONFIGS}/_base_/"))
    cfg = Config.fromfile(path)
    cfg.model.segmentor.backbone.update(init_cfg=None, num_layers=[1, 1, 1, 1])
    model = MODELS.build(cfg.model)
    assert type(model).__name__ == method and model.num_classes == len(cfg.metainfo.classes)
    assert cfg.train_dataloader.batch_size == 8 and len(cfg.train_dataloader.dataset.datasets) == 2
    assert set(model.needed_views) == {
        view for part in cfg.train_dataloader.dataset.datasets for view in part.pipeline[-1] if view != 'type'
    }
    assert ('memory_warm_up' in cfg.default_hooks) == (method == 'AllSpark')


def test_the_documented_switches_exist():
    """Each key of the table in docs/allspark.md, given on a command line, changes what it names."""
    table = (ROOT / 'docs' / 'allspark.md').read_text().split('## Where paper and release differ')[1]
    keys = re.findall(r'^\|.*\| `([\w.]+)=(\w+)` \|', table.split('\n## ')[0], flags=re.MULTILINE)
    assert len(keys) == 6
    for key, value in keys:
        path = key.replace('head.', 'model.segmentor.decode_head.bottleneck.', 1)
        name = 'voc_1over16' if key.endswith('.prob') else 'camvid_1over8'  # CamVid's has no color
        cfg = Config.fromfile(CONFIGS / 'allspark' / f'{name}.py')
        option = {'True': True}.get(value, 0 if value == '0' else value)
        cfg.merge_from_dict({path: option})
        if key.endswith('.prob'):
            color = cfg.train_dataloader.dataset.datasets[0].pipeline[-1].labeled[0]
            assert color.type == 'RandomApply' and color.prob == 0
            assert 'ColorJitter' in str(color.transforms)
            continue
        shrink(cfg.model)
        model = MODELS.build(cfg.model)
        name = key.rpartition('.')[2]
        if name == 'memory_init':
            assert model.memory.rows.eq(0).all()
        else:
            owner = model if key.startswith('model.') else model.decode_head.bottleneck
            assert getattr(owner, name) == option
