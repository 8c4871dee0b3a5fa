"""Converts the AllSpark authors' models to and from ``EncoderDecoder(MiT, AllSparkHead(AllMLPHead))``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..heads import AllMLPHead
from ..methods.allspark import AllSparkHead
from .mit import MiT, mit_to_mmseg, mmseg_to_mit
from .state_dicts import (
    Rules,
    add_prefix,
    build_on_meta,
    check_state,
    official_names,
    size_in,
    strip_prefix,
    to_ours,
)

# both in the official order
_BOTTLENECK_RULES: Rules = (
    ('map_in.0.{x}', 'map_in.0.{x}'),
    ('attn_norm.{x}', 'norm_in.{x}'),
    ('attn.queue_ptr', 'memory.pointer'),
    ('attn.kv_queue', 'memory.rows'),
    ('attn.q_u.{x}', 'unlabeled_attention.query.{x}'),
    ('attn.k_u.{x}', 'unlabeled_attention.key.{x}'),
    ('attn.v_u.{x}', 'unlabeled_attention.value.{x}'),
    ('attn.q_l2u.{x}', 'labeled_attention.query.{x}'),
    ('attn.k_l2u.{x}', 'labeled_attention.key.{x}'),
    ('attn.v_l2u.{x}', 'labeled_attention.value.{x}'),
    ('attn.out_u.{x}', 'unlabeled_attention.out.{x}'),
    ('attn.out_l2u.{x}', 'labeled_attention.out.{x}'),
    ('encoder_norm.{x}', 'norm_out.{x}'),
    ('map_out.0.{x}', 'map_out.0.{x}'),
)
_DECODER_RULES: Rules = (
    ('linear_c4.proj.{x}', 'projections.3.{x}'),
    ('linear_c3.proj.{x}', 'projections.2.{x}'),
    ('linear_c2.proj.{x}', 'projections.1.{x}'),
    ('linear_c1.proj.{x}', 'projections.0.{x}'),
    ('linear_fuse.conv.{x}', 'fuse.conv.{x}'),
    ('linear_fuse.bn.{x}', 'fuse.bn.{x}'),
    ('linear_pred.{x}', 'conv_seg.{x}'),
)
_BACKBONE, _BOTTLENECK, _DECODER = 'backbone.', 'decoder.allspark.', 'decoder.decoder.'
_OUR_BOTTLENECK = 'decode_head.bottleneck.'
_WRITTEN = f'{_OUR_BOTTLENECK}memory.written'  # the official model does not count the written rows
_STUDENT = 'student.'
_OFFICIAL = (
    'an official AllSpark model or baseline',
    'Use the file that its training scripts write; a backbone alone is for mit2mmseg.py.',
)
_OURS = (
    'a MixVisionTransformer and an AllMLPHead, alone or in an AllSparkHead',
    'Other networks have no official counterpart.',
)


def _our_decoder(has_bottleneck: bool) -> str:
    return 'decode_head.decoder.' if has_bottleneck else 'decode_head.'


class BottleneckSizes(NamedTuple):
    """Sizes of an AllSpark bottleneck.

    Attributes:
        channels (int): Width D.
        num_heads (int): Heads H.
        positions (int): Positions N of a row of the memory.
    """

    channels: int
    num_heads: int
    positions: int

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], query: str, rows: str) -> 'BottleneckSizes':
        """Read the sizes from a state dict.

        Args:
            state (Mapping[str, Tensor]): The state dict.
            query (str): Key of the weight of a query projection, ``(H * D, D)``.
            rows (str): Key of the memory, ``(K, D, N)``.
        """
        channels = size_in(state, query, 1)
        return cls(channels, max(1, size_in(state, query, 0) // channels), size_in(state, rows, 2))


@dataclass(frozen=True)
class AllSparkNetwork:
    """Sizes of an official AllSpark model or baseline.

    Attributes:
        backbone (MiT): Sizes of the backbone.
        channels (int): Width of the all-MLP decoder.
        num_classes (int): Number of classes K.
        bottleneck (BottleneckSizes, optional): Sizes of the bottleneck; None for a baseline.
    """

    backbone: MiT
    channels: int
    num_classes: int
    bottleneck: BottleneckSizes | None

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> 'AllSparkNetwork':
        """Read the sizes from a state dict with official keys."""
        attention, classifier = f'{_BOTTLENECK}attn', f'{_DECODER}linear_pred.weight'
        bottleneck = None
        if any(key.startswith(_BOTTLENECK) for key in state):
            query, rows = f'{attention}.q_u.weight', f'{attention}.kv_queue'
            bottleneck = BottleneckSizes.from_state_dict(state, query, rows)
        backbone = MiT.from_state_dict(strip_prefix(_BACKBONE, state))
        return cls(backbone, size_in(state, classifier, 1), size_in(state, classifier), bottleneck)

    @classmethod
    def from_mmseg_state(cls, state: Mapping[str, Tensor]) -> 'AllSparkNetwork':
        """Read the sizes from the state dict of an ``EncoderDecoder``."""
        bottleneck = None
        if any(key.startswith(_OUR_BOTTLENECK) for key in state):
            query = f'{_OUR_BOTTLENECK}unlabeled_attention.query.weight'
            bottleneck = BottleneckSizes.from_state_dict(state, query, f'{_OUR_BOTTLENECK}memory.rows')
        classifier = f'{_our_decoder(bool(bottleneck))}conv_seg.weight'
        backbone = MiT.from_mmseg_state(strip_prefix(_BACKBONE, state))
        return cls(backbone, size_in(state, classifier, 1), size_in(state, classifier), bottleneck)

    def __str__(self) -> str:
        name = 'AllSpark' if self.bottleneck else 'baseline (no bottleneck)'
        size = f'{self.num_parameters / 1e6:.2f} M parameters'
        description = f'{name}, {self.backbone}, {self.num_classes} classes, {size}'
        if not self.bottleneck:
            return description
        positions = self.bottleneck.positions
        side = math.isqrt(positions)
        if side * side != positions:
            return f'{description}, memory of {positions} positions'
        crops = f'crops of {32 * side - 31} to {32 * side} pixels'
        return f'{description}, memory of {side} x {side} positions ({crops})'

    @property
    def num_parameters(self) -> int:
        """Number of trained values, without the memory and the statistics of the batch norm."""
        return sum(parameter.numel() for parameter in build_on_meta(self.build).parameters())

    def build(self) -> nn.Module:
        """Build backbone and head."""
        decoder: dict[str, Any] = dict(
            in_channels=list(self.backbone.widths),
            channels=self.channels,
            num_classes=self.num_classes,
            norm_cfg=dict(type='BN'),
        )
        head: nn.Module
        if self.bottleneck:
            channels, num_heads, positions = self.bottleneck
            bottleneck = dict(
                in_channels=self.backbone.widths[-1],
                crop_size=(32, 32 * positions),
                channels=channels,
                num_heads=num_heads,
            )
            head = AllSparkHead(bottleneck, dict(type='allspark_mmseg.AllMLPHead', **decoder))
        else:
            head = AllMLPHead(**decoder)
        return nn.ModuleDict({'backbone': self.backbone.build(), 'decode_head': head})

    def mmseg_state(self) -> dict[str, Tensor]:
        """Return our state dict, on the meta device, without keys that have no official counterpart."""
        state = build_on_meta(self.build).state_dict()
        return {key: value for key, value in state.items() if key != _WRITTEN}


def _rename(state: Mapping[str, Tensor], rules: Rules, part: str) -> dict[str, Tensor]:
    converted = {}
    for key, value in state.items():
        name = to_ours(key, rules)
        if name is None:
            raise KeyError(f'{key!r} is not a key of the official {part}')
        converted[name] = value
    return converted


def bottleneck_to_mmseg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of the official bottleneck (``map_in.0.weight``, ``attn.q_u.weight``, ...).

    Raises:
        KeyError: A key does not belong to the official bottleneck.
    """
    return _rename(state, _BOTTLENECK_RULES, 'AllSpark bottleneck')


def decoder_to_mmseg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of the official all-MLP decoder for ``AllMLPHead``.

    Raises:
        KeyError: A key does not belong to the official decoder.
    """
    return _rename(state, _DECODER_RULES, 'all-MLP decoder')


def allspark_to_mmseg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of an official AllSpark model or of its SegFormer baselines.

    Args:
        state (Mapping[str, Tensor]): Official keys; a ``module.`` prefix is removed.

    Returns:
        dict[str, Tensor]: The keys of an ``EncoderDecoder`` (``backbone.*``, ``decode_head.*``).

    Raises:
        KeyError: A key does not belong to an official AllSpark model.
    """
    bare = {key.removeprefix('module.'): value for key, value in state.items()}
    prefixes = (_BACKBONE, _BOTTLENECK, _DECODER)
    if foreign := [key for key in bare if not key.startswith(prefixes)]:
        raise KeyError(
            f'{foreign[0]!r} is not a key of an official AllSpark model; those start with {list(prefixes)}'
        )
    bottleneck = strip_prefix(_BOTTLENECK, bare)
    return {
        **add_prefix(_BACKBONE, mit_to_mmseg(strip_prefix(_BACKBONE, bare))),
        **add_prefix(_OUR_BOTTLENECK, bottleneck_to_mmseg(bottleneck)),
        **add_prefix(_our_decoder(bool(bottleneck)), decoder_to_mmseg(strip_prefix(_DECODER, bare))),
    }


def _to_official(state: Mapping[str, Tensor], has_bottleneck: bool) -> dict[str, Tensor]:
    """Rename a complete state dict of an ``EncoderDecoder``; the result has the official order."""

    def part(prefix: str, rules: Rules) -> dict[str, Tensor]:
        ours = strip_prefix(prefix, state)
        return {official: ours[key] for official, key in official_names(ours, rules).items()}

    return {
        **add_prefix(_BACKBONE, mmseg_to_mit(strip_prefix(_BACKBONE, state))),
        **(add_prefix(_BOTTLENECK, part(_OUR_BOTTLENECK, _BOTTLENECK_RULES)) if has_bottleneck else {}),
        **add_prefix(_DECODER, part(_our_decoder(has_bottleneck), _DECODER_RULES)),
    }


def convert_official(state: Mapping[str, Tensor], *, plain: bool = False) -> dict[str, Tensor]:
    """Convert the complete state dict of an official AllSpark model or baseline.

    The result has exactly the keys of our model, so it loads strictly. Two keys have no official counterpart.
    ``memory.written`` is only used for the logged ``memory.filled``. It gets the value of the write pointer,
    because at least this many rows are written. ``memory_ready`` is False, as at the start of training.
    ``MemoryWarmUpHook`` sets it in every iteration.

    Args:
        state (Mapping[str, Tensor]): Official keys, without a ``module.`` prefix.
        plain (bool): Whether to use the keys of an ``EncoderDecoder`` instead of the keys of the ``AllSpark``
            segmentor. Baselines always get the keys of an ``EncoderDecoder``.

    Returns:
        dict[str, Tensor]: Our keys.

    Raises:
        ValueError: A key is missing or unexpected, or has another shape than in the network.
    """
    network = AllSparkNetwork.from_state_dict(state)
    check_state(state, _to_official(network.mmseg_state(), bool(network.bottleneck)), *_OFFICIAL)
    converted = allspark_to_mmseg(state)
    if network.bottleneck:
        converted[_WRITTEN] = converted[f'{_OUR_BOTTLENECK}memory.pointer'].clone()
        if not plain:
            converted = add_prefix(_STUDENT, converted)
            converted['memory_ready'] = torch.tensor(False)
    return converted


def mmseg_to_allspark(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert our state dict to an official one. This is the exact inverse of `convert_official`.

    Args:
        state (Mapping[str, Tensor]): Keys of an ``AllSpark`` or ``SelfTraining`` segmentor, or of an
            ``EncoderDecoder``, with a MiT and the all-MLP head. Statistics of an adaptive threshold are
            omitted.

    Returns:
        dict[str, Tensor]: Official keys in the official order, without a ``module.`` prefix.

    Raises:
        ValueError: A key is missing, has another shape or no official counterpart, or is of a teacher.
    """
    if any(key.startswith('teacher.') for key in state):
        raise ValueError(
            'it has a student and a teacher; tools/model_converters/extract_segmentor.py takes one of them'
        )
    own = {key.removeprefix(_STUDENT): value for key, value in state.items()}
    own = {key: own[key] for key in own if not key.startswith(('memory_ready', _WRITTEN, 'threshold.'))}
    network = AllSparkNetwork.from_mmseg_state(own)
    expected = network.mmseg_state()
    check_state(own, expected, *_OURS)
    return _to_official({key: own[key] for key in expected}, bool(network.bottleneck))
