"""ViT and DeiT classifiers' state dicts in the names of MMSegmentation's ``VisionTransformer``."""

import re
from dataclasses import dataclass

from torch import Tensor

from .layout import check_layout, depth_in, layer_layout, size_in

# MMPretrain's name | the official (timm's) -> MMSegmentation's; relative to the backbone
_RULES = [
    (r'(cls_token|pos_embed)', '{0}'),
    (r'patch_embed\.proj(?:ection)?\.(weight|bias)', 'patch_embed.projection.{0}'),
    (r'(?:layers|blocks)\.(\d+)\.(?:ln|norm)([12])\.(weight|bias)', 'layers.{0}.ln{1}.{2}'),
    # the rows of qkv are (q, k, v), head, channel on both sides
    (r'(?:layers|blocks)\.(\d+)\.attn\.qkv\.(weight|bias)', 'layers.{0}.attn.attn.in_proj_{1}'),
    (r'(?:layers|blocks)\.(\d+)\.attn\.proj\.(weight|bias)', 'layers.{0}.attn.attn.out_proj.{1}'),
    (r'layers\.(\d+)\.ffn\.layers\.(0\.0|1)\.(weight|bias)', 'layers.{0}.ffn.layers.{1}.{2}'),
    (r'blocks\.(\d+)\.mlp\.fc1\.(weight|bias)', 'layers.{0}.ffn.layers.0.0.{1}'),
    (r'blocks\.(\d+)\.mlp\.fc2\.(weight|bias)', 'layers.{0}.ffn.layers.1.{1}'),
]
# the classifier, and the norm before it, which the segmentation network does not have
_UNUSED = re.compile(r'head\..+|(?:ln1|norm)\.(?:weight|bias)')
_ADVICE = (
    "Give an ImageNet classifier's file without distillation token: "
    "OpenMMLab's deit-base_pt-16xb64_in1k_*.pth, or the official deit_base_patch16_224-*.pth."
)


@dataclass(frozen=True)
class ViTSizes:
    """Sizes of a plain vision transformer, and with them all keys of MMSegmentation's state dict.

    Args:
        width: channels of a token.
        depth: number of layers.
        hidden: width of the feed-forward part.
        patch: side of a patch, in pixels.
        positions: tokens of the trained grid, with the class token.
    """

    width: int
    depth: int
    hidden: int
    patch: int
    positions: int

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> 'ViTSizes':
        """Read the sizes off a state dict of MMSegmentation's keys; one that its keys do not tell is 0."""
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

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Every key of MMSegmentation's with its shape."""
        width, hidden = self.width, self.hidden
        shapes = {
            'cls_token': (1, 1, width),
            'pos_embed': (1, self.positions, width),
            **layer_layout('patch_embed.projection', width, 3, self.patch, self.patch),
        }
        for index in range(self.depth):
            layer = f'layers.{index}'
            shapes |= {
                **layer_layout(f'{layer}.ln1', width),
                f'{layer}.attn.attn.in_proj_weight': (3 * width, width),
                f'{layer}.attn.attn.in_proj_bias': (3 * width,),
                **layer_layout(f'{layer}.attn.attn.out_proj', width, width),
                **layer_layout(f'{layer}.ln2', width),
                **layer_layout(f'{layer}.ffn.layers.0.0', hidden, width),
                **layer_layout(f'{layer}.ffn.layers.1', width, hidden),
            }
        return shapes


def _renamed(key: str) -> str:
    for pattern, template in _RULES:
        if match := re.fullmatch(pattern, key):
            return template.format(*match.groups())
    return key  # check_layout tells that it is unknown


def convert_deit(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Convert the state dict of a classifier, checked to be complete.

    Args:
        state: MMPretrain's or official key -> tensor, the backbone's with or without a ``backbone.`` prefix.

    Returns:
        tuple: the backbone's state dict in MMSegmentation's keys, and the keys dropped.

    Raises:
        ValueError: a key is missing, unknown, or has another shape than the others imply.
    """
    bare = {key: key.removeprefix('backbone.') for key in state}
    dropped = [key for key, name in bare.items() if _UNUSED.fullmatch(name)]
    converted = {_renamed(name): state[key] for key, name in bare.items() if key not in dropped}
    check_layout(
        converted, ViTSizes.from_state_dict(converted).layout(), 'a plain ViT or DeiT classifier', _ADVICE
    )
    return converted, dropped
