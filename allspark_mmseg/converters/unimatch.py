"""UniMatch's CNNs (v1; also FixMatch, supervised) in the names of ``EncoderDecoder(DeepLabV3PlusHead)``."""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from .layout import check_layout, depth_in, size_in

# official key -> our key and the shape of both
Keys = dict[str, tuple[str, tuple[int, ...]]]

_RESNETS = {'ResNet-50': (3, 4, 6, 3), 'ResNet-101': (3, 4, 23, 3), 'ResNet-152': (3, 8, 36, 3)}
_STATISTICS = ('running_mean', 'running_var')
_COUNTER = 'num_batches_tracked'
_BUFFERS = (*_STATISTICS, _COUNTER)
_OF_A_MODEL = ('backbone.', 'head.', 'reduce.', 'fuse.', 'classifier.')
# what ImageNet files hold beyond the backbone: the classifier, and counters of a batch norm of their own
_CLASSIFIER, _BOOKKEEPING = 'fc.', ('itr', 'tmp', 'track')
_ADVICE = (
    'Give a model of UniMatch (v1), its FixMatch or its supervised baseline, or the ImageNet file of such a '
    "model's backbone."
)


def _conv_norm(conv: str, norm: str, our_conv: str, our_norm: str, *weight: int) -> Keys:
    """Keys of a convolution without bias, whose weight has the given shape, and of its batch norm."""
    keys = {f'{conv}.weight': (f'{our_conv}.weight', weight)}
    for kind in ('weight', 'bias', *_STATISTICS):
        keys[f'{norm}.{kind}'] = f'{our_norm}.{kind}', weight[:1]
    return keys | {f'{norm}.{_COUNTER}': (f'{our_norm}.{_COUNTER}', ())}


def _conv_module(conv: str, norm: str, module: str, *weight: int) -> Keys:
    """The same, ours in a ``ConvModule``."""
    return _conv_norm(conv, norm, f'{module}.conv', f'{module}.bn', *weight)


def _separable(official: str, ours: str, above: int, width: int) -> Keys:
    return {
        **_conv_module(f'{official}.depthwise', f'{official}.bn1', f'{ours}.depthwise_conv', above, 1, 3, 3),
        **_conv_module(
            f'{official}.pointwise', f'{official}.bn2', f'{ours}.pointwise_conv', width, above, 1, 1
        ),
    }


def _resnet_keys(depths: tuple[int, ...]) -> Keys:
    keys = {
        **_conv_norm('conv1.0', 'conv1.1', 'stem.0', 'stem.1', 64, 3, 3, 3),
        **_conv_norm('conv1.3', 'conv1.4', 'stem.3', 'stem.4', 64, 64, 3, 3),
        **_conv_norm('conv1.6', 'bn1', 'stem.6', 'stem.7', 128, 64, 3, 3),
    }
    above = 128
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for index in range(depth):
            block = f'layer{stage + 1}.{index}'
            shapes = (width, above, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)
            for i, shape in enumerate(shapes, 1):
                names = f'{block}.conv{i}', f'{block}.bn{i}'
                keys |= _conv_norm(*names, *names, *shape)
            if index == 0:
                names = f'{block}.downsample.0', f'{block}.downsample.1'
                keys |= _conv_norm(*names, *names, 4 * width, above, 1, 1)
            above = 4 * width
    return keys


def _xception_keys() -> Keys:
    keys = {
        **_conv_module('conv1', 'bn1', 'stem.0', 32, 3, 3, 3),
        **_conv_module('conv2', 'bn2', 'stem.1', 64, 32, 3, 3),
    }
    above = 64
    widths = [(128,) * 3, (256,) * 3, *[(728,) * 3] * 17, (728, 1024, 1024)]
    for index, block_widths in enumerate(widths):
        official, ours = f'block{index + 1}', f'blocks.{index}'
        if block_widths[-1] != above:
            shape = block_widths[-1], above, 1, 1
            keys |= _conv_module(f'{official}.skip', f'{official}.skipbn', f'{ours}.skip', *shape)
        for i, width in enumerate(block_widths):
            keys |= _separable(f'{official}.sepconv{i + 1}', f'{ours}.convs.{i}', above, width)
            above = width
    for i, width in enumerate((1536, 1536, 2048)):
        keys |= _separable(f'conv{i + 3}', f'exit_flow.{i}', above, width)
        above = width
    return keys


def _head_keys(num_classes: int) -> Keys:
    keys = {}
    for i, kernel in enumerate((1, 3, 3, 3)):
        names = f'head.b{i}.0', f'head.b{i}.1', f'aspp_modules.{i}'
        keys |= _conv_module(*names, 256, 2048, kernel, kernel)
    return {
        **keys,
        **_conv_module('head.b4.gap.1', 'head.b4.gap.2', 'image_pool.1', 256, 2048, 1, 1),
        **_conv_module('head.project.0', 'head.project.1', 'bottleneck', 256, 5 * 256, 1, 1),
        **_conv_module('reduce.0', 'reduce.1', 'c1_bottleneck', 48, 256, 1, 1),
        **_conv_module('fuse.0', 'fuse.1', 'fuse.0', 256, 48 + 256, 3, 3),
        **_conv_module('fuse.3', 'fuse.4', 'fuse.1', 256, 256, 3, 3),
        'classifier.weight': ('conv_seg.weight', (num_classes, 256, 1, 1)),
        'classifier.bias': ('conv_seg.bias', (num_classes,)),
    }


@dataclass(frozen=True)
class UniMatchBackbone:
    """One of UniMatch's backbones, and with it all keys of its state dict.

    Args:
        name: ``Xception-65``, ``ResNet-50``, ``ResNet-101`` or ``ResNet-152``.
    """

    name: str

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor], prefix: str = '') -> 'UniMatchBackbone':
        """Tell the backbone by its keys, which begin with ``prefix``, also where some are missing."""
        if any(re.match(rf'{prefix}block\d', key) for key in state):  # blocks.0 is a transformer's
            return cls('Xception-65')
        found = [depth_in(state, rf'{prefix}layer{stage}\.(\d{{1,3}})\.') for stage in (1, 2, 3, 4)]
        fitting = (
            name
            for name, depths in _RESNETS.items()
            if all(depth <= known for depth, known in zip(found, depths, strict=True))
        )
        return cls(next(fitting, 'ResNet-152'))

    def keys(self) -> Keys:
        """Every official key, in the official order, with ours and the shape."""
        return _xception_keys() if self.name == 'Xception-65' else _resnet_keys(_RESNETS[self.name])


@dataclass(frozen=True)
class UniMatchNetwork:
    """A DeepLabv3+ of UniMatch (v1), and with it all keys of its state dict.

    Args:
        backbone: one of its backbones.
        num_classes: number of classes K.
    """

    backbone: UniMatchBackbone
    num_classes: int

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> 'UniMatchNetwork':
        """Tell the network by a state dict of official keys; a number of classes it does not tell is 0."""
        return cls(UniMatchBackbone.from_state_dict(state, 'backbone.'), size_in(state, 'classifier.weight'))

    def __str__(self) -> str:
        size = f'{self.num_parameters / 1e6:.2f} M parameters'
        return f'DeepLabv3+, {self.backbone.name}, {self.num_classes} classes, {size}'

    @property
    def num_parameters(self) -> int:
        """Number of trained values: without the statistics of the batch norms."""
        return sum(math.prod(shape) for key, (_, shape) in self.keys().items() if not key.endswith(_BUFFERS))

    def keys(self) -> Keys:
        """Every official key, in the official order, with ours and the shape."""
        backbone, head = self.backbone.keys(), _head_keys(self.num_classes)
        return {
            **{f'backbone.{key}': (f'backbone.{our}', shape) for key, (our, shape) in backbone.items()},
            **{key: (f'decode_head.{our}', shape) for key, (our, shape) in head.items()},
        }


def is_backbone(state: dict[str, Tensor]) -> bool:
    """Whether official keys are those of a backbone alone, not of a segmentation model."""
    return not any(key.startswith(_OF_A_MODEL) for key in state)


def _renamed(state: dict[str, Tensor], keys: Keys, what: str) -> dict[str, Tensor]:
    check_layout(state, {key: shape for key, (_, shape) in keys.items()}, what, _ADVICE)
    return {our: state[key] for key, (our, _) in keys.items()}


def convert_unimatch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of a CNN of UniMatch (v1), checked to be complete.

    The result has every key of our model and no other, so it loads strictly.

    Args:
        state: official key -> tensor, without a ``module.`` prefix.

    Returns:
        dict: the keys of an ``EncoderDecoder`` (``backbone.*``, ``decode_head.*``) with a
        ``DeepLabV3PlusHead`` and either MMSegmentation's ``ResNet`` (``deep_stem``, ``stem_channels=128``)
        or ``Xception65``.

    Raises:
        ValueError: a key is missing, unknown, or has another shape than the network's.
    """
    network = UniMatchNetwork.from_state_dict(state)
    return _renamed(state, network.keys(), f"UniMatch's DeepLabv3+ on {network.backbone.name}")


def convert_unimatch_imagenet(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Convert the ImageNet weights with which UniMatch starts, checked to be complete.

    The classifier (``fc.*``) and the counters of a batch norm of their time are dropped; counters that
    PyTorch's batch norm has and the file lacks become 0, which nothing reads.

    Args:
        state: official key -> tensor, without a prefix.

    Returns:
        tuple: the backbone's state dict in our keys, and the official keys dropped.

    Raises:
        ValueError: a key is missing, unknown, or has another shape than the network's.
    """
    backbone = UniMatchBackbone.from_state_dict(state)
    keys = backbone.keys()
    dropped = [
        key
        for key in state
        if key not in keys and (key.startswith(_CLASSIFIER) or any(word in key for word in _BOOKKEEPING))
    ]
    counters = {key: torch.tensor(0) for key in keys if key.endswith(_COUNTER)}
    kept = counters | {key: value for key, value in state.items() if key not in dropped}
    return _renamed(kept, keys, f"UniMatch's {backbone.name}"), dropped
