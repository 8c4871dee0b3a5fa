"""The configs and the published rows, as the tests see them."""

import copy
import functools
from dataclasses import dataclass
from pathlib import Path

import yaml
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS
from torch import nn

from allspark_mmseg.backbones.dinov2 import ARCHS
from allspark_mmseg.utils import dicts_in

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
PATHS = sorted(path for path in CONFIGS.glob('*/*.py') if path.parent.name != '_base_')
ALL_NAMES = [f'{path.parent.name}/{path.stem}' for path in PATHS]
# configs of runs with a supervised phase, or of its baseline; test_two_phase_configs.py checks them
SMALL = ('demo', 'camvid_1over30', 'magnetic_tile_36')
NAMES = [name for name in ALL_NAMES if not name.endswith(SMALL)]
PUBLISHED = ('voc', 'cityscapes', 'coco')

# data set -> its folder, and the number of processes of its batches
DATASETS = {
    'camvid': ('data/camvid', 2),
    'voc': ('data/VOC2012', 4),
    'voc-u2pl': ('data/VOC2012', 2),
    'cityscapes': ('data/cityscapes', 4),
    'coco': ('data/coco', 4),
}
# word in a file name -> type of the backbone, and the arguments that tell its size
BACKBONES = {
    'swin-t': ('SwinTransformer', {}),
    'r50-d8': ('ResNetV1c', dict(depth=50)),
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
# method -> its network where the file name gives none
DEFAULT_BACKBONES = {
    'allspark': dict(voc='mit-b5', cityscapes='mit-b5', coco='mit-b5'),
    's4former': dict(camvid='dinov2-s14'),
    'unimatch_v2': dict(camvid='dinov2-s14'),
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


@functools.cache
def _read(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


class RunConfig:
    """A config, and what its path promises: METHOD/[METHOD_]DATASET[_SPLIT][_HEAD][_NETWORK][_scratch].py."""

    def __init__(self, name: str, options: dict | None = None):
        self.name = name
        self.method, stem = name.split('/')
        self.words = stem.removeprefix(f'{self.method}_').split('_')
        self.dataset = self.words[0].partition('-')[0]
        self.folder, self.processes = DATASETS[self.words[0]]
        split = next((word for word in self.words if 'over' in word or word.isdigit()), None)
        self.split = f'u2pl_{split}' if 'u2pl' in self.words else split
        defaults = DEFAULT_BACKBONES.get(self.method, {})
        self.network = next((word for word in BACKBONES if word in self.words), None) or defaults.get(
            self.dataset, 'efficientnet-lite0'
        )
        # the networks of UniMatch
        self.cnn = self.network in ('r101-d16', 'xception65')
        self.dinov2 = self.network.startswith('dinov2')
        self.deit = self.network.startswith('deit')
        self.patch = PATCHES.get(self.network.split('-')[0], 1)
        if self.deit:
            self.processes = 2
        self.cfg = copy.deepcopy(_read(name))
        self.cfg.merge_from_dict(options or {})

    @property
    def supervised(self) -> bool:
        return self.method == 'supervised'

    @property
    def segmentor(self) -> ConfigDict:
        return self.cfg.model.get('segmentor', self.cfg.model)

    @property
    def decoder(self) -> ConfigDict:
        head = self.segmentor.decode_head
        return head.get('decoder', head)

    @property
    def by_epoch(self) -> bool:
        """Supervised training on our own data and of transformers has the same length for all splits."""
        return not self.supervised or (self.dataset in PUBLISHED and not (self.dinov2 or self.deit))

    @property
    def streams(self) -> dict[str, ConfigDict]:
        """The streams of the training data."""
        dataset = self.cfg.train_dataloader.dataset
        return {name: dataset[name] for name in ('labeled', 'unlabeled') if dataset.get(name)}

    @property
    def views(self) -> dict[str, list]:
        """The views of labeled and unlabeled images, and their own steps."""
        return {
            view: steps
            for stream in self.streams.values()
            for view, steps in views_of(stream.pipeline[-1]).items()
        }


@dataclass(frozen=True)
class Row:
    """A published row of a metafile."""

    name: str
    config: str
    options: dict
    meta: dict

    def load(self) -> RunConfig:
        """Return a config of the row that a test may change."""
        return RunConfig(self.config, self.options)

    def peek(self) -> RunConfig:
        """Return the config of the row, shared by all tests: only to look at."""
        return _peek(self.name)


@functools.cache
def read_metafile(method: str) -> dict:
    return yaml.safe_load((CONFIGS / method / 'metafile.yml').read_text())


@functools.cache
def read_rows() -> dict[str, Row]:
    """All published rows by name."""
    models = [
        model
        for path in sorted(CONFIGS.glob('*/metafile.yml'))
        for model in read_metafile(path.parent.name)['Models']
    ]
    return {
        model['Name']: Row(
            model['Name'],
            model['Config'].removeprefix('configs/').removesuffix('.py'),
            model.get('Options', {}),
            model['Metadata'],
        )
        for model in models
    }


@functools.cache
def _peek(name: str) -> RunConfig:
    return read_rows()[name].load()


def views_of(step: ConfigDict) -> dict[str, list]:
    """The views that the last step of a training pipeline makes, and their own steps."""
    if step.type == 'allspark_mmseg.TwoCrops':
        once = views_of(step.steps[-1])
        return once | {f'{step.prefix}{view}': steps for view, steps in once.items()}
    assert step.type == 'allspark_mmseg.MultiView'
    return {view: steps for view, steps in step.items() if view != 'type'}


def replace_size(node, old: tuple, new: tuple):
    """The node with every ``old`` size replaced; lists and tuples of the same numbers count."""
    if isinstance(node, list | tuple) and tuple(node) == old:
        return type(node)(new)
    if isinstance(node, dict):
        return type(node)({key: replace_size(value, old, new) for key, value in node.items()})
    if isinstance(node, list | tuple):
        return type(node)(replace_size(value, old, new) for value in node)
    return node


def shrink(model: ConfigDict) -> None:
    """No weights to fetch, few blocks, BN in place of SyncBN; widths stay."""
    for node in dicts_in(model):
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


def make_tiny(model: ConfigDict) -> None:
    """Shrunk, and narrow, too."""
    shrink(model)
    segmentor = model.get('segmentor', model)
    backbone, head = segmentor.backbone, segmentor.decode_head
    decoder = head.get('decoder', head)
    if backbone.type == 'ResNet':
        backbone.update(base_channels=8, stem_channels=8)
        decoder.update(in_channels=(32, 256), channels=16, c1_channels=8)
    elif backbone.type.endswith('Xception65'):
        decoder.update(channels=16)
    elif backbone.type.endswith('.VisionTransformer'):
        backbone.update(embed_dims=24, num_heads=2, mlp_ratio=2)
        for each in (decoder, *segmentor.auxiliary_head):
            each.update(in_channels=24, channels=8)
        if model.type.endswith('S4Former'):
            model.shuffle = dict(block_size=32)
    elif backbone.type.endswith('DINOv2'):
        backbone.arch.update(embed_dims=24, num_heads=2)
        decoder.update(in_channels=[24] * 4, channels=8, post_process_channels=[8] * 4)
    else:
        backbone.update(embed_dims=8, drop_path_rate=0.0)
        if decoder.type.endswith('RepresentationHead'):
            decoder.update(in_channels=(8, 64), channels=16, norm_cfg=dict(type='GN', num_groups=4))
        else:
            decoder.update(in_channels=[8, 16, 40, 64], channels=16)
        if 'bottleneck' in head:
            head.bottleneck.in_channels = 64


def build_tiny(run: RunConfig) -> nn.Module:
    """The method on a tiny network; what shrinking adds to the method's arguments is left out."""
    given = set(run.cfg.model)
    make_tiny(run.cfg.model)
    return MODELS.build({key: value for key, value in run.cfg.model.items() if key in given})
