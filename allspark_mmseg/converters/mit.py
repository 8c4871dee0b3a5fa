"""Converts Mix Vision Transformers (the backbone of SegFormer) between NVlabs' and MMSegmentation's names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backbones import MixVisionTransformer
from .state_dicts import build_on_meta, check_state, depth_in, size_in, to_official, to_ours

# relative to the backbone; query and key-value are joined as "qkv"
_RULES = (
    ('patch_embed{s+1}.proj.{x}', 'layers.{s}.0.projection.{x}'),
    ('patch_embed{s+1}.norm.{x}', 'layers.{s}.0.norm.{x}'),
    ('block{s+1}.{i}.norm{n}.{x}', 'layers.{s}.1.{i}.norm{n}.{x}'),
    ('block{s+1}.{i}.attn.qkv.{x}', 'layers.{s}.1.{i}.attn.attn.in_proj_{x}'),
    ('block{s+1}.{i}.attn.proj.{x}', 'layers.{s}.1.{i}.attn.attn.out_proj.{x}'),
    ('block{s+1}.{i}.attn.sr.{x}', 'layers.{s}.1.{i}.attn.sr.{x}'),
    ('block{s+1}.{i}.attn.norm.{x}', 'layers.{s}.1.{i}.attn.norm.{x}'),
    ('block{s+1}.{i}.mlp.fc1.{x}', 'layers.{s}.1.{i}.ffn.layers.0.{x}'),
    ('block{s+1}.{i}.mlp.dwconv.dwconv.{x}', 'layers.{s}.1.{i}.ffn.layers.1.{x}'),
    ('block{s+1}.{i}.mlp.fc2.{x}', 'layers.{s}.1.{i}.ffn.layers.4.{x}'),
    ('norm{s+1}.{x}', 'layers.{s}.2.{x}'),
)
_QUERY, _KEY_VALUE, _JOINED = '.attn.q.', '.attn.kv.', '.attn.qkv.'
_MLP_WEIGHT = ('fc1.weight', 'fc2.weight')  # 1x1 convolutions in MMSegmentation
_VARIANTS = {
    'MiT-B0': ((2, 2, 2, 2), (32, 64, 160, 256)),
    'MiT-B1': ((2, 2, 2, 2), (64, 128, 320, 512)),
    'MiT-B2': ((3, 4, 6, 3), (64, 128, 320, 512)),
    'MiT-B3': ((3, 4, 18, 3), (64, 128, 320, 512)),
    'MiT-B4': ((3, 8, 27, 3), (64, 128, 320, 512)),
    'MiT-B5': ((3, 6, 40, 3), (64, 128, 320, 512)),
}


@dataclass(frozen=True)
class MiT:
    """Sizes of a Mix Vision Transformer.

    Attributes:
        depths (tuple[int, ...]): Blocks of each stage.
        widths (tuple[int, ...]): Channels of each stage.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> 'MiT':
        """Read the sizes from a state dict with official keys."""
        return cls(
            tuple(depth_in(state, rf'block{s}\.(\d{{1,3}})\.') for s in (1, 2, 3, 4)),
            tuple(size_in(state, f'patch_embed{s}.proj.weight') for s in (1, 2, 3, 4)),
        )

    @classmethod
    def from_mmseg_state(cls, state: Mapping[str, Tensor]) -> 'MiT':
        """Read the sizes from a state dict with MMSegmentation's keys."""
        return cls(
            tuple(depth_in(state, rf'layers\.{t}\.1\.(\d{{1,3}})\.') for t in range(4)),
            tuple(size_in(state, f'layers.{t}.0.projection.weight') for t in range(4)),
        )

    def __str__(self) -> str:
        sizes = (self.depths, self.widths)
        known = [name for name, variant in _VARIANTS.items() if variant == sizes]
        return known[0] if known else f'MiT of depths {self.depths} and widths {self.widths}'

    def build(self) -> MixVisionTransformer:
        """Build the network. Its number of heads is arbitrary; keys and shapes do not depend on it."""
        return MixVisionTransformer(embed_dims=1, num_layers=list(self.depths), num_heads=list(self.widths))


def mit_to_mmseg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert an official state dict for MMSegmentation's ``MixVisionTransformer``.

    Query and key-value projections are concatenated. The linear layers of the MLP become 1x1 convolutions.

    Args:
        state (Mapping[str, Tensor]): Official keys, without a ``backbone.`` prefix and without the
            classifier.

    Returns:
        dict[str, Tensor]: MMSegmentation's keys.

    Raises:
        KeyError: A key does not belong to an official MiT.
    """
    converted = {}
    for key, value in state.items():
        if _KEY_VALUE in key:
            continue
        if _QUERY in key:
            value = torch.cat([value, state[key.replace(_QUERY, _KEY_VALUE)]])
        elif key.endswith(_MLP_WEIGHT):
            value = value[:, :, None, None]
        name = to_ours(key.replace(_QUERY, _JOINED), _RULES)
        if name is None:
            raise KeyError(f'{key!r} is not a key of an official MiT backbone (patch_embed*, block*, norm*)')
        converted[name] = value
    return converted


def mmseg_to_mit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict of MMSegmentation's ``MixVisionTransformer``; the inverse of `mit_to_mmseg`.

    Args:
        state (Mapping[str, Tensor]): All of MMSegmentation's keys, in the order of the network.

    Returns:
        dict[str, Tensor]: Official keys, in the official order.

    Raises:
        KeyError: A key does not belong to a MiT.
    """
    official = {}
    for key, value in state.items():
        name = to_official(key, _RULES)
        if _JOINED in name:
            width = len(value) // 3
            # copies, because a view would store the whole projection in the file
            official[name.replace(_JOINED, _QUERY)] = value[:width].clone()
            official[name.replace(_JOINED, _KEY_VALUE)] = value[width:].clone()
        else:
            official[name] = value.flatten(1) if name.endswith(_MLP_WEIGHT) else value
    return _in_official_order(official)


def _in_official_order(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """All patch embeddings precede the stages; the weight and the bias of a layer are neighbors."""
    layers = {name: index for index, name in enumerate(dict.fromkeys(map(_layer, state)))}

    def place(key: str) -> tuple[int, int]:
        stage = re.match(r'(?:block|norm)(\d)', key)
        return int(stage[1]) if stage else 0, layers[_layer(key)]

    return {key: state[key] for key in sorted(state, key=place)}


def _layer(key: str) -> str:
    return key.rpartition('.')[0]


def convert_imagenet(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Convert the complete state dict of an ImageNet classifier with a MiT.

    Args:
        state (Mapping[str, Tensor]): Official keys without a prefix. The classifier (``head.*``) is dropped.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The backbone in MMSegmentation's keys, and the dropped keys.

    Raises:
        ValueError: A key is missing or unexpected, or has another shape than in the network.
    """
    dropped = [key for key in state if key.startswith('head.')]
    backbone = {key: value for key, value in state.items() if key not in dropped}
    expected = mmseg_to_mit(build_on_meta(MiT.from_state_dict(backbone).build).state_dict())
    check_state(
        backbone,
        expected,
        'an official MiT backbone',
        "Use the file of an ImageNet classifier (mit_b0.pth to mit_b5.pth). AllSpark's files are for "
        'allspark2mmseg.py.',
    )
    return mit_to_mmseg(backbone), dropped
