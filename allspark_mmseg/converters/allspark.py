"""The AllSpark authors' state dicts in the names of ``EncoderDecoder(MiT, AllSparkHead(AllMLPHead))``."""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from .layout import check_keys, check_layout, layer_layout, size_in
from .mit import MiT, mit_name, mit_to_mmseg, mit_value

_BOTTLENECK = {
    'map_in.0': 'map_in.0',
    'map_out.0': 'map_out.0',
    'attn_norm': 'norm_in',
    'encoder_norm': 'norm_out',
    'attn.q_u': 'unlabeled_attention.query',
    'attn.k_u': 'unlabeled_attention.key',
    'attn.v_u': 'unlabeled_attention.value',
    'attn.out_u': 'unlabeled_attention.out',
    'attn.q_l2u': 'labeled_attention.query',
    'attn.k_l2u': 'labeled_attention.key',
    'attn.v_l2u': 'labeled_attention.value',
    'attn.out_l2u': 'labeled_attention.out',
}
_MEMORY = {'attn.kv_queue': 'memory.rows', 'attn.queue_ptr': 'memory.pointer'}
_BUFFERS = ('queue_ptr', 'kv_queue', 'running_mean', 'running_var', 'num_batches_tracked')
_BACKBONE, _ALLSPARK, _DECODER = 'backbone.', 'decoder.allspark.', 'decoder.decoder.'
_OUR_BOTTLENECK = 'decode_head.bottleneck.'
_STUDENT = 'student.'
_OFFICIAL = (
    'an official AllSpark model or baseline',
    'Give the file that its training scripts write; a backbone alone is for mit2mmseg.py.',
)
_OURS = (
    'a MixVisionTransformer and an AllMLPHead, alone or in an AllSparkHead',
    'No other network has an official counterpart.',
)


@dataclass(frozen=True)
class AllSparkNetwork:
    """Sizes of an official AllSpark model or baseline, and with them all keys of its state dict.

    Args:
        backbone: sizes of the backbone.
        channels: width of the all-MLP decoder.
        num_classes: number of classes K.
        bottleneck: None for a baseline, else width D, heads times width H*D, and positions N of a row of
            the memory.
    """

    backbone: MiT
    channels: int
    num_classes: int
    bottleneck: tuple[int, int, int] | None

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> 'AllSparkNetwork':
        """Read the sizes off a state dict of official keys; one that its keys do not tell is 0."""
        backbone = MiT.from_state_dict(strip_prefix(_BACKBONE, state))
        attention = f'{_ALLSPARK}attn'
        keys = f'{_DECODER}linear_pred.weight', f'{attention}.q_u.weight', f'{attention}.kv_queue'
        return cls._from_sizes(state, backbone, *keys, has_bottleneck=bool(strip_prefix(_ALLSPARK, state)))

    @classmethod
    def from_mmseg_state(cls, state: dict[str, Tensor], decoder: str) -> 'AllSparkNetwork':
        """Read the sizes off an ``EncoderDecoder``'s state dict.

        Args:
            state: our key -> tensor.
            decoder: what the keys of its all-MLP head begin with.

        Returns:
            AllSparkNetwork: with 0 for a size that the keys do not tell.
        """
        backbone = MiT.from_mmseg_state(strip_prefix(_BACKBONE, state))
        query = f'{_OUR_BOTTLENECK}unlabeled_attention.query.weight'
        keys = f'{decoder}conv_seg.weight', query, f'{_OUR_BOTTLENECK}memory.rows'
        return cls._from_sizes(
            state, backbone, *keys, has_bottleneck=bool(strip_prefix(_OUR_BOTTLENECK, state))
        )

    @classmethod
    def _from_sizes(
        cls, state: dict, backbone: MiT, classifier: str, query: str, rows: str, *, has_bottleneck: bool
    ) -> 'AllSparkNetwork':
        bottleneck = size_in(state, query, 1), size_in(state, query, 0), size_in(state, rows, 2)
        return cls(
            backbone,
            channels=size_in(state, classifier, 1),
            num_classes=size_in(state, classifier, 0),
            bottleneck=bottleneck if has_bottleneck else None,
        )

    def __str__(self) -> str:
        name = 'AllSpark' if self.bottleneck else 'baseline (no bottleneck)'
        size = f'{self.num_parameters / 1e6:.2f} M parameters'
        told = f'{name}, {self.backbone}, {self.num_classes} classes, {size}'
        if not self.bottleneck:
            return told
        positions = self.bottleneck[2]
        side = math.isqrt(positions)
        if side * side != positions:
            return f'{told}, memory of {positions} positions'
        crops = f'crops of {32 * side - 31} to {32 * side} pixels'
        return f'{told}, memory of {side} x {side} positions ({crops})'

    @property
    def num_parameters(self) -> int:
        """Number of trained values: neither the memory nor the statistics of the batch norm."""
        shapes = {key: shape for key, shape in self.layout().items() if not key.endswith(_BUFFERS)}
        return sum(math.prod(shape) for shape in shapes.values())

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Every official key, in the official order, with its shape."""
        parts = {_BACKBONE: self.backbone.layout(), _ALLSPARK: {}, _DECODER: self._decoder_layout()}
        if self.bottleneck:
            parts[_ALLSPARK] = self._bottleneck_layout(*self.bottleneck)
        return {prefix + key: shape for prefix, part in parts.items() for key, shape in part.items()}

    def _bottleneck_layout(self, width: int, wide: int, positions: int) -> dict[str, tuple[int, ...]]:
        deepest = self.backbone.widths[-1]
        projections = [f'{kind}_{stream}' for stream in ('u', 'l2u') for kind in 'qkv']
        return {
            **layer_layout('map_in.0', width, deepest, 1, 1),
            **layer_layout('attn_norm', width),
            'attn.queue_ptr': (self.num_classes,),
            'attn.kv_queue': (self.num_classes, width, positions),
            **{f'attn.{projection}.weight': (wide, width) for projection in projections},
            'attn.out_u.weight': (width, wide),
            'attn.out_l2u.weight': (width, wide),
            **layer_layout('encoder_norm', width),
            **layer_layout('map_out.0', deepest, width, 1, 1),
        }

    def _decoder_layout(self) -> dict[str, tuple[int, ...]]:
        shapes = {}
        for s in (4, 3, 2, 1):
            shapes |= layer_layout(f'linear_c{s}.proj', self.channels, self.backbone.widths[s - 1])
        shapes['linear_fuse.conv.weight'] = (self.channels, 4 * self.channels, 1, 1)
        for kind in ('weight', 'bias', 'running_mean', 'running_var'):
            shapes[f'linear_fuse.bn.{kind}'] = (self.channels,)
        shapes['linear_fuse.bn.num_batches_tracked'] = ()
        return shapes | layer_layout('linear_pred', self.num_classes, self.channels, 1, 1)


def strip_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _bottleneck_name(key: str) -> str:
    module, _, kind = key.rpartition('.')
    name = _MEMORY.get(key) or (f'{_BOTTLENECK[module]}.{kind}' if module in _BOTTLENECK else None)
    if name is None:
        raise KeyError(f'{key!r} is not a key of the official AllSpark bottleneck')
    return name


def _decoder_name(key: str) -> str:
    if match := re.fullmatch(r'linear_c([1-4])\.proj\.(weight|bias)', key):
        return f'projections.{int(match[1]) - 1}.{match[2]}'
    if match := re.fullmatch(r'linear_fuse\.(conv|bn)\.(.+)', key):
        return f'fuse.{match[1]}.{match[2]}'
    if match := re.fullmatch(r'linear_pred\.(weight|bias)', key):
        return f'conv_seg.{match[1]}'
    raise KeyError(f'{key!r} is not a key of the official all-MLP decoder')


def bottleneck_to_mmseg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the official bottleneck's keys (``map_in.0.weight``, ``attn.q_u.weight``, ...).

    Raises:
        KeyError: a key that the official bottleneck does not have.
    """
    return {_bottleneck_name(key): value for key, value in state.items()}


def decoder_to_mmseg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the official all-MLP decoder's keys (``linear_c4.proj.weight``, ...) for ``AllMLPHead``.

    Raises:
        KeyError: a key that the official decoder does not have.
    """
    return {_decoder_name(key): value for key, value in state.items()}


def allspark_to_mmseg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of an official AllSpark model, or of its SegFormer baselines.

    Args:
        state: official key -> tensor; a ``module.`` prefix is taken off.

    Returns:
        dict: the keys of an ``EncoderDecoder`` (``backbone.*``, ``decode_head.*``).

    Raises:
        KeyError: a key that no official AllSpark model has.
    """
    parts = {_BACKBONE: {}, _ALLSPARK: {}, _DECODER: {}}
    for key, value in state.items():
        name = key.removeprefix('module.')
        prefix = next((prefix for prefix in parts if name.startswith(prefix)), None)
        if prefix is None:
            raise KeyError(
                f'{key!r} is not a key of an official AllSpark model, which begin with {list(parts)}'
            )
        parts[prefix][name.removeprefix(prefix)] = value
    has_bottleneck = bool(parts[_ALLSPARK])
    head = 'decode_head.decoder.' if has_bottleneck else 'decode_head.'
    return {
        **{f'backbone.{key}': value for key, value in mit_to_mmseg(parts[_BACKBONE]).items()},
        **{f'{_OUR_BOTTLENECK}{key}': value for key, value in bottleneck_to_mmseg(parts[_ALLSPARK]).items()},
        **{f'{head}{key}': value for key, value in decoder_to_mmseg(parts[_DECODER]).items()},
    }


def convert_official(state: dict[str, Tensor], *, plain: bool = False) -> dict[str, Tensor]:
    """Convert the whole state dict of an official AllSpark model or baseline, checked to be complete.

    The result has every key of our model and no other, so it loads strictly. What the official model does
    not have: ``memory.written``, which only feeds the reported ``memory.filled``, becomes the write
    pointer, the number of rows that are written for certain (a pointer does not tell whether it has gone
    round); ``memory_ready`` is False, as at the start: ``MemoryWarmUpHook`` sets it in every iteration.

    Args:
        state: official key -> tensor, without a ``module.`` prefix.
        plain: give an AllSpark model the keys of its ``EncoderDecoder`` alone, as a baseline always has
            them, and not those of the ``AllSpark`` segmentor around it.

    Returns:
        dict: our key -> tensor.

    Raises:
        ValueError: a key is missing, unknown, or has another shape than the others imply.
    """
    network = AllSparkNetwork.from_state_dict(state)
    check_layout(state, network.layout(), *_OFFICIAL)
    converted = allspark_to_mmseg(state)
    if network.bottleneck:
        pointer = converted[f'{_OUR_BOTTLENECK}memory.pointer']
        converted[f'{_OUR_BOTTLENECK}memory.written'] = pointer.clone()
        if not plain:
            converted = {_STUDENT + key: value for key, value in converted.items()}
            converted['memory_ready'] = torch.tensor(False)
    return converted


def mmseg_to_allspark(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert our state dict to an official one, bit by bit what ``convert_official`` was given.

    Args:
        state: keys of an ``AllSpark`` or ``SelfTraining`` segmentor, or of an ``EncoderDecoder``, whose
            backbone is a MiT and whose decoder is the all-MLP head.

    Returns:
        dict: official key -> tensor, in the official order, without a ``module.`` prefix.

    Raises:
        ValueError: a key is missing or has no official counterpart, or a shape is not official.
    """
    own = {key.removeprefix(_STUDENT): value for key, value in state.items()}
    for key in ('memory_ready', f'{_OUR_BOTTLENECK}memory.written'):
        own.pop(key, None)
    has_bottleneck = any(key.startswith(_OUR_BOTTLENECK) for key in own)
    prefixes = {
        _BACKBONE: _BACKBONE,
        _ALLSPARK: _OUR_BOTTLENECK,
        _DECODER: 'decode_head.decoder.' if has_bottleneck else 'decode_head.',
    }
    layout = AllSparkNetwork.from_mmseg_state(own, prefixes[_DECODER]).layout()
    names = {key: _name(key, prefixes) for key in layout}
    check_keys(own, names.values(), *_OURS)
    official = {}
    for key, name in names.items():
        backbone_key = key.removeprefix(_BACKBONE)
        official[key] = own[name] if backbone_key == key else mit_value(backbone_key, own[name])
    check_layout(official, layout, *_OFFICIAL)
    return official


def _name(key: str, prefixes: dict[str, str]) -> str:
    renaming = {_BACKBONE: mit_name, _ALLSPARK: _bottleneck_name, _DECODER: _decoder_name}
    prefix = next(prefix for prefix in renaming if key.startswith(prefix))
    return prefixes[prefix] + renaming[prefix](key.removeprefix(prefix))
