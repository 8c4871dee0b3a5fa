"""Import of an S4Former checkout.

The release replaces files of MMSegmentation 0.x and does not import as a package. Its files are therefore
loaded one by one: the package folders become empty packages that only have a path, and MMCV 2 and MMEngine
take the place of MMCV 1.
"""

import collections
import collections.abc
import copy
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import mmcv.cnn
import mmcv.cnn.utils
import mmcv.utils
import mmengine
import torch
from common import check_checkout, new_module
from mmengine.model import weight_init
from torch import Tensor, nn

SUBPACKAGES = (
    'core',
    'core.utils',
    'utils',
    'ops',
    'models',
    'models.utils',
    'models.backbones',
    'models.decode_heads',
    'models.losses',
    'models.segmentors',
    'datasets',
    'datasets.samplers',
)


def stand_in_for_mmcv_1() -> None:
    """Provide the members of MMCV 1 that the release imports."""

    def undecorated(*args: Any, **options: Any) -> Callable:
        return lambda function: function

    members: dict[str, Any] = dict(
        BaseModule=mmengine.model.BaseModule,
        ModuleList=mmengine.model.ModuleList,
        Sequential=mmengine.model.Sequential,
        auto_fp16=undecorated,
        force_fp32=undecorated,
        get_dist_info=mmengine.dist.get_dist_info,
        CheckpointLoader=None,
        load_state_dict=None,
    )
    new_module('mmcv.runner', __path__=[], **members)
    new_module('mmcv.runner.base_module', __path__=[], **members)
    sys.modules['mmcv.cnn.utils.weight_init'] = weight_init
    vars(mmcv.utils)['to_2tuple'] = mmengine.utils.to_2tuple
    for name in ('Mapping', 'Sequence'):  # Python 3.10 removed them from collections
        setattr(collections, name, getattr(collections.abc, name))


class Reference:
    """The parts of an S4Former checkout, and a record of the CutMix boxes that it draws.

    Everything runs in float64, the default type of tensors after this constructor.
    """

    def __init__(self, checkout: Path):
        torch.set_default_dtype(torch.float64)
        check_checkout(checkout)
        self.checkout = checkout
        self.classes: dict[str, type] = {}
        stand_in_for_mmcv_1()
        self._add_packages()
        self._load_files()
        self.boxes: list[list[int]] = []
        self._released_box = self.generate.generate_cutout_mask
        vars(self.generate)['generate_cutout_mask'] = self.draw_box

    def _add_packages(self) -> None:
        folder = self.checkout / 'mmseg'
        new_module('mmseg', __path__=[str(folder)])
        for name in SUBPACKAGES:
            new_module(f'mmseg.{name}', __path__=[str(folder.joinpath(*name.split('.')))])
        registry = SimpleNamespace(
            register_module=lambda *args, **options: lambda c: self.classes.setdefault(c.__name__, c)
        )
        registries = ('BACKBONES', 'HEADS', 'LOSSES', 'SEGMENTORS', 'NECKS')
        builders = ('build_backbone', 'build_head', 'build_loss', 'build_neck')
        builder = new_module(
            'mmseg.models.builder',
            __path__=[],
            **dict.fromkeys(registries, registry),
            **dict.fromkeys(builders, self.build),
        )
        self._provide('models', builder=builder)

    def _load_files(self) -> None:
        """Load the files in the order of their dependencies and export what the packages would export."""
        self._provide('ops', **vars(self._load('ops.wrappers')))
        self.generate = self._load('utils.generate_unsup_data')
        functions = {
            name: value
            for name, value in vars(self.generate).items()
            if name.startswith(('generate_', 'cut_mix'))
        }
        self._provide('utils', get_root_logger=None, **functions)
        self._provide('core', add_prefix=self._load('core.utils.misc').add_prefix, build_pixel_sampler=None)
        embed = self._load('models.utils.embed').PatchEmbed
        self._provide('models.utils', PatchEmbed=embed, **vars(self._load('models.utils.shape_convert')))
        self._provide('models.losses', accuracy=None)
        self._load('models.losses.cross_entropy_loss')
        self.vit = self._load('models.backbones.vit').VisionTransformer
        self.mit = self._load('models.backbones.mit').MixVisionTransformer
        self._load('models.decode_heads.setr_up_head')
        self._load('models.segmentors.encoder_decoder')
        self.sampler = self._load('datasets.samplers.semi_sampler').DistributedSemiBalanceSampler
        self.segmentor: Any = self.classes['EncoderDecoder']

    @staticmethod
    def _load(name: str) -> ModuleType:
        return importlib.import_module(f'mmseg.{name}')

    @staticmethod
    def _provide(package: str, **members: Any) -> None:
        vars(sys.modules[f'mmseg.{package}']).update(members)

    def build(self, cfg: dict) -> nn.Module:
        """Build a released module from a config."""
        options = copy.deepcopy(dict(cfg))
        return self.classes[options.pop('type')](**options)

    def build_head(self, classes: int, **options: Any) -> Any:
        """Build a small SETR-PUP head."""
        options.setdefault('loss_decode', dict(type='CrossEntropyLoss'))
        return self.build(
            dict(
                type='SETRUPHead',
                in_channels=5,
                channels=4,
                num_classes=classes,
                in_index=0,
                dropout_ratio=0,
                norm_cfg=dict(type='BN'),
                **options,
            )
        )

    def draw_box(self, size: list[int], ratio: int = 2) -> Tensor:
        """Draw a box as released and add it to ``boxes`` as left, top, right, bottom, end exclusive."""
        mask = self._released_box(size, ratio)
        y, x = torch.nonzero(mask == 0, as_tuple=True)
        left, top, right, bottom = int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1
        self.boxes.append([left, top, right, bottom])
        assert int((mask == 0).sum()) == (right - left) * (bottom - top)
        return mask
