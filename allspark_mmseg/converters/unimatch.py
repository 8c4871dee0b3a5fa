"""Converts UniMatch's CNNs (v1; also FixMatch, supervised) to ``EncoderDecoder(DeepLabV3PlusHead)``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from mmseg.models.backbones import ResNet
from torch import Tensor, nn

from ..backbones import Xception65
from ..heads import DeepLabV3PlusHead
from .state_dicts import Rules, build_on_meta, check_state, depth_in, official_names, prefixed, size_in

# official key -> our key and the shape of both
Keys = dict[str, tuple[str, tuple[int, ...]]]

_RESNETS = {'ResNet-50': (3, 4, 6, 3), 'ResNet-101': (3, 4, 23, 3), 'ResNet-152': (3, 8, 36, 3)}
_XCEPTION = 'Xception-65'
_COUNTER = 'num_batches_tracked'
_MODEL_PREFIXES = ('backbone.', 'head.', 'reduce.', 'fuse.', 'classifier.')
# what the ImageNet files contain besides the backbone: the classifier, and counters of another batch norm
_CLASSIFIER, _BOOKKEEPING = 'fc.', ('itr', 'tmp', 'track')
_ADVICE = (
    'Use a model of UniMatch (v1), of its FixMatch or of its supervised baseline, or the ImageNet weights of '
    'its backbone.'
)


def _conv_module(conv: str, norm: str, ours: str) -> Rules:
    """Rules for a convolution and its batch norm, which are a ``ConvModule`` here."""
    return (f'{conv}.{{x}}', f'{ours}.conv.{{x}}'), (f'{norm}.{{x}}', f'{ours}.bn.{{x}}')


def _separable(official: str, ours: str) -> Rules:
    """Rules for a depthwise separable convolution."""
    return (
        *_conv_module(f'{official}.depthwise', f'{official}.bn1', f'{ours}.depthwise_conv'),
        *_conv_module(f'{official}.pointwise', f'{official}.bn2', f'{ours}.pointwise_conv'),
    )


_RESNET_RULES: Rules = (
    ('bn1.{x}', 'stem.7.{x}'),
    ('conv1.{i}.{x}', 'stem.{i}.{x}'),
    ('layer{i}.{x}', 'layer{i}.{x}'),
)
_XCEPTION_RULES: Rules = (
    *_conv_module('conv1', 'bn1', 'stem.0'),
    *_conv_module('conv2', 'bn2', 'stem.1'),
    *_conv_module('block{i+1}.skip', 'block{i+1}.skipbn', 'blocks.{i}.skip'),
    *_separable('block{i+1}.sepconv{n+1}', 'blocks.{i}.convs.{n}'),
    *_separable('conv{i+3}', 'exit_flow.{i}'),
)
_HEAD_RULES: Rules = (
    *_conv_module('head.b{i}.0', 'head.b{i}.1', 'aspp_modules.{i}'),
    *_conv_module('head.b4.gap.1', 'head.b4.gap.2', 'image_pool.1'),
    *_conv_module('head.project.0', 'head.project.1', 'bottleneck'),
    *_conv_module('reduce.0', 'reduce.1', 'c1_bottleneck'),
    *_conv_module('fuse.0', 'fuse.1', 'fuse.0'),
    *_conv_module('fuse.3', 'fuse.4', 'fuse.1'),
    ('classifier.{x}', 'conv_seg.{x}'),
)


@dataclass(frozen=True)
class UniMatchBackbone:
    """A backbone of UniMatch.

    Attributes:
        name (str): ``Xception-65``, ``ResNet-50``, ``ResNet-101`` or ``ResNet-152``.
    """

    name: str

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], prefix: str = '') -> 'UniMatchBackbone':
        """Recognize the backbone by its official keys, even if some are missing.

        Args:
            state (Mapping[str, Tensor]): The state dict.
            prefix (str): Prefix of the backbone's keys.

        Returns:
            UniMatchBackbone: The backbone. Unknown keys give a ResNet.
        """
        if any(re.match(rf'{prefix}block\d', key) for key in state):  # blocks.0 belongs to a transformer
            return cls(_XCEPTION)
        depths = [depth_in(state, rf'{prefix}layer{stage}\.(\d{{1,3}})\.') for stage in (1, 2, 3, 4)]
        fitting = (
            name
            for name, known in _RESNETS.items()
            if all(depth <= most for depth, most in zip(depths, known, strict=True))
        )
        return cls(next(fitting, 'ResNet-152'))

    @property
    def rules(self) -> Rules:
        """Rules for the keys, relative to the backbone."""
        return _XCEPTION_RULES if self.name == _XCEPTION else _RESNET_RULES

    def build(self) -> nn.Module:
        """Build the backbone."""
        if self.name == _XCEPTION:
            return Xception65()
        depth = int(self.name.removeprefix('ResNet-'))
        return ResNet(depth, deep_stem=True, stem_channels=128, norm_cfg=dict(type='BN'))

    def keys(self) -> Keys:
        """Return all official keys with our keys and the shapes."""
        return _keys(self)


@dataclass(frozen=True)
class UniMatchNetwork:
    """A DeepLabv3+ of UniMatch (v1).

    Attributes:
        backbone (UniMatchBackbone): The backbone.
        num_classes (int): Number of classes K.
    """

    backbone: UniMatchBackbone
    num_classes: int

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> 'UniMatchNetwork':
        """Recognize the network by a state dict with official keys."""
        return cls(UniMatchBackbone.from_state_dict(state, 'backbone.'), size_in(state, 'classifier.weight'))

    def __str__(self) -> str:
        size = f'{self.num_parameters / 1e6:.2f} M parameters'
        return f'DeepLabv3+, {self.backbone.name}, {self.num_classes} classes, {size}'

    @property
    def num_parameters(self) -> int:
        """Number of trained values, without the statistics of the batch norms."""
        return sum(parameter.numel() for parameter in build_on_meta(self.build).parameters())

    @property
    def rules(self) -> Rules:
        """Rules for the keys."""
        return (
            *prefixed(self.backbone.rules, 'backbone.', 'backbone.'),
            *prefixed(_HEAD_RULES, '', 'decode_head.'),
        )

    def build(self) -> nn.Module:
        """Build backbone and head."""
        head = DeepLabV3PlusHead(num_classes=self.num_classes, norm_cfg=dict(type='BN'))
        return nn.ModuleDict({'backbone': self.backbone.build(), 'decode_head': head})

    def keys(self) -> Keys:
        """Return all official keys with our keys and the shapes."""
        return _keys(self)


def _keys(network: UniMatchBackbone | UniMatchNetwork) -> Keys:
    ours = build_on_meta(network.build).state_dict()
    names = official_names(ours, network.rules)
    return {official: (key, tuple(ours[key].shape)) for official, key in names.items()}


def is_backbone(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict contains only a backbone, not a segmentation model."""
    return not any(key.startswith(_MODEL_PREFIXES) for key in state)


def _convert(
    state: Mapping[str, Tensor], network: UniMatchBackbone | UniMatchNetwork, source: str
) -> dict[str, Tensor]:
    ours = build_on_meta(network.build).state_dict()
    names = official_names(ours, network.rules)
    check_state(state, {official: ours[key] for official, key in names.items()}, source, _ADVICE)
    return {names[official]: value for official, value in state.items()}


def convert_unimatch(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the complete state dict of a CNN of UniMatch (v1).

    The result has exactly the keys of our model, so it loads strictly.

    Args:
        state (Mapping[str, Tensor]): Official keys, without a ``module.`` prefix.

    Returns:
        dict[str, Tensor]: The keys of an ``EncoderDecoder`` (``backbone.*``, ``decode_head.*``) with a
        ``DeepLabV3PlusHead`` and either MMSegmentation's ``ResNet`` (``deep_stem``, ``stem_channels=128``) or
        ``Xception65``.

    Raises:
        ValueError: A key is missing or unexpected, or has another shape than in the network.
    """
    network = UniMatchNetwork.from_state_dict(state)
    return _convert(state, network, f"UniMatch's DeepLabv3+ on {network.backbone.name}")


def convert_unimatch_imagenet(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Convert the complete ImageNet weights from which UniMatch starts.

    The classifier (``fc.*``) and the counters of another batch norm are dropped. Counters of PyTorch's batch
    norm that the file lacks become 0; nothing reads them.

    Args:
        state (Mapping[str, Tensor]): State dict with official keys, without a prefix.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The backbone in our keys, and the dropped official keys.

    Raises:
        ValueError: A key is missing or unexpected, or has another shape than in the network.
    """
    backbone = UniMatchBackbone.from_state_dict(state)
    names = backbone.keys()
    dropped = [
        key
        for key in state
        if key not in names and (key.startswith(_CLASSIFIER) or any(word in key for word in _BOOKKEEPING))
    ]
    kept = {}
    for key, value in state.items():
        if key not in dropped:
            kept[key] = value
        counter = f'{key.removesuffix("running_var")}{_COUNTER}'
        if key.endswith('.running_var') and counter in names and counter not in state:
            kept[counter] = torch.tensor(0)
    return _convert(kept, backbone, f"UniMatch's {backbone.name}"), dropped
