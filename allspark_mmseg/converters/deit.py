"""Converts ViT and DeiT classifiers to the names of MMSegmentation's ``VisionTransformer``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..backbones import VisionTransformer
from .state_dicts import build_on_meta, check_state, depth_in, size_in, to_ours

# MMPretrain's names | timm's (official) names -> MMSegmentation's; relative to the backbone.
# The rows of qkv are ordered (q, k, v), head, channel on both sides.
_RULES = (
    ('cls_token', 'cls_token'),
    ('pos_embed', 'pos_embed'),
    ('patch_embed.projection.{x}', 'patch_embed.projection.{x}'),
    ('layers.{i}.ln{n}.{x}', 'layers.{i}.ln{n}.{x}'),
    ('layers.{i}.attn.qkv.{x}', 'layers.{i}.attn.attn.in_proj_{x}'),
    ('layers.{i}.attn.proj.{x}', 'layers.{i}.attn.attn.out_proj.{x}'),
    ('layers.{i}.ffn.layers.{x}', 'layers.{i}.ffn.layers.{x}'),
    ('patch_embed.proj.{x}', 'patch_embed.projection.{x}'),
    ('blocks.{i}.norm{n}.{x}', 'layers.{i}.ln{n}.{x}'),
    ('blocks.{i}.attn.qkv.{x}', 'layers.{i}.attn.attn.in_proj_{x}'),
    ('blocks.{i}.attn.proj.{x}', 'layers.{i}.attn.attn.out_proj.{x}'),
    ('blocks.{i}.mlp.fc1.{x}', 'layers.{i}.ffn.layers.0.0.{x}'),
    ('blocks.{i}.mlp.fc2.{x}', 'layers.{i}.ffn.layers.1.{x}'),
)
# the classifier and the norm before it, which the segmentation network does not have
_UNUSED = re.compile(r'head\..+|(?:ln1|norm)\.(?:weight|bias)')
_ADVICE = (
    'Use the file of an ImageNet classifier without distillation token: '
    "OpenMMLab's deit-base_pt-16xb64_in1k_*.pth, or the official deit_base_patch16_224-*.pth."
)


@dataclass(frozen=True)
class ViTSizes:
    """Sizes of a plain vision transformer.

    Attributes:
        width (int): Channels of a token.
        depth (int): Number of layers.
        hidden (int): Width of the feed-forward network, a multiple of ``width``.
        patch (int): Side of a patch in pixels.
        positions (int): Tokens of the pre-trained grid, including the class token.
    """

    width: int
    depth: int
    hidden: int
    patch: int
    positions: int

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> 'ViTSizes':
        """Read the sizes from a state dict with MMSegmentation's keys."""
        return cls(
            width=size_in(state, 'cls_token', 2),
            depth=depth_in(state, r'layers\.(\d{1,3})\.'),
            hidden=size_in(state, 'layers.0.ffn.layers.0.0.weight'),
            patch=size_in(state, 'patch_embed.projection.weight', 3),
            positions=size_in(state, 'pos_embed', 1),
        )

    def __str__(self) -> str:
        side = round((self.positions - 1) ** 0.5)
        return f'ViT of width {self.width} and depth {self.depth}, {side} x {side} patches of {self.patch}'

    def build(self) -> VisionTransformer:
        """Build the network. Its number of heads is arbitrary; keys and shapes do not depend on it."""
        return VisionTransformer(
            img_size=(self.patch, self.patch * max(1, self.positions - 1)),
            patch_size=self.patch,
            patch_bias=True,
            embed_dims=self.width,
            num_layers=self.depth,
            num_heads=1,
            mlp_ratio=max(1, self.hidden // self.width),
        )


def convert_deit(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Convert the complete state dict of a classifier.

    Args:
        state (Mapping[str, Tensor]): MMPretrain's or official keys, with or without a ``backbone.`` prefix.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The backbone in MMSegmentation's keys, and the dropped keys.

    Raises:
        ValueError: A key is missing or unexpected, or has another shape than in the network.
    """
    bare = {key: key.removeprefix('backbone.') for key in state}
    dropped = [key for key, name in bare.items() if _UNUSED.fullmatch(name)]
    # a key without a rule keeps its name; check_state reports it
    converted = {
        to_ours(name, _RULES) or name: state[key] for key, name in bare.items() if key not in dropped
    }
    expected = build_on_meta(ViTSizes.from_state_dict(converted).build).state_dict()
    check_state(converted, expected, 'a plain ViT or DeiT classifier', _ADVICE)
    return converted, dropped
