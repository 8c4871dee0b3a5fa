"""DINOv2's and UniMatch V2's state dicts in the names of ``EncoderDecoder(DINOv2, DINOv2DPTHead)``."""

import math
import re
from dataclasses import dataclass

from torch import Tensor

from .layout import check_layout, depth_in, layer_layout, size_in

_BACKBONE, _HEAD = 'backbone.', 'head.'
# the release builds it and never uses it; DINOv2DPTHead does not have it
_UNUSED = 'head.scratch.refinenet4.resConfUnit1.'
# official -> ours, relative to the head; {n} is the number in the key less 1: official levels count from 1
_RULES = [
    (r'(projects|resize_layers)\.(\d)\.(weight|bias)', '{0}.{1}.{2}'),
    (r'scratch\.layer(\d)_rn\.(weight)', 'convs.{n}.{1}'),
    (r'scratch\.refinenet(\d)\.resConfUnit([12])\.(conv[12]\..+)', 'fusion_blocks.{n}.res_conv_unit{1}.{2}'),
    (r'scratch\.refinenet(\d)\.out_conv\.(weight|bias)', 'fusion_blocks.{n}.project.{1}'),
    (r'scratch\.output_conv\.0\.(weight|bias)', 'project.{0}'),
    (r'scratch\.output_conv\.2\.(weight|bias)', 'conv_seg.{0}'),
]
_PATCH, _POSITIONS = 14, 1 + 37 * 37
_VARIANTS = {(384, 12): 'S', (768, 12): 'B', (1024, 24): 'L', (1536, 40): 'g'}
_OFFICIAL = (
    'an official UniMatch V2 model',
    'Give the file that its training scripts write, or weights of DINOv2 alone.',
)
_PRETRAINED = (
    'an official DINOv2 without registers, patch 14',
    'Give dinov2_vits14_pretrain.pth or one of its siblings without "reg4" in its name.',
)


@dataclass(frozen=True)
class DINOv2Sizes:
    """Sizes of an official DINOv2 without registers, and with them all keys of its state dict.

    Args:
        width: channels of a token.
        depth: number of blocks.
        swiglu: the blocks are fed forward by a SwiGLU, as the giant's, not by an MLP.
    """

    width: int
    depth: int
    swiglu: bool = False

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> 'DINOv2Sizes':
        """Read the sizes off a state dict of official keys; one that its keys do not tell is 0."""
        return cls(
            width=size_in(state, 'cls_token', 2),
            depth=depth_in(state, r'blocks\.(\d{1,3})\.'),
            swiglu='blocks.0.mlp.w12.weight' in state,
        )

    def __str__(self) -> str:
        if name := _VARIANTS.get((self.width, self.depth)):
            return f'DINOv2 ViT-{name}/{_PATCH}'
        return f'DINOv2 of width {self.width} and depth {self.depth}'

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Every official key, in the official order, with its shape."""
        shapes = {
            'cls_token': (1, 1, self.width),
            'pos_embed': (1, _POSITIONS, self.width),
            'mask_token': (1, self.width),
            **layer_layout('patch_embed.proj', self.width, 3, _PATCH, _PATCH),
        }
        for i in range(self.depth):
            shapes |= self._block_layout(f'blocks.{i}')
        return shapes | layer_layout('norm', self.width)

    def _block_layout(self, block: str) -> dict[str, tuple[int, ...]]:
        width = self.width
        if self.swiglu:
            hidden = math.ceil(8 * width // 3 / 8) * 8
            ffn = {
                **layer_layout(f'{block}.mlp.w12', 2 * hidden, width),
                **layer_layout(f'{block}.mlp.w3', width, hidden),
            }
        else:
            ffn = {
                **layer_layout(f'{block}.mlp.fc1', 4 * width, width),
                **layer_layout(f'{block}.mlp.fc2', width, 4 * width),
            }
        return {
            **layer_layout(f'{block}.norm1', width),
            **layer_layout(f'{block}.attn.qkv', 3 * width, width),
            **layer_layout(f'{block}.attn.proj', width, width),
            f'{block}.ls1.gamma': (width,),
            **layer_layout(f'{block}.norm2', width),
            **ffn,
            f'{block}.ls2.gamma': (width,),
        }


@dataclass(frozen=True)
class UniMatchV2Network:
    """Sizes of an official UniMatch V2 model, and with them all keys of its state dict.

    Args:
        backbone: sizes of the backbone.
        channels: width of the DPT decoder (official: ``features``).
        post_process_channels: channels of its four levels after the projection (``out_channels``).
        num_classes: number of classes K.
    """

    backbone: DINOv2Sizes
    channels: int
    post_process_channels: tuple[int, ...]
    num_classes: int

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> 'UniMatchV2Network':
        """Read the sizes off a state dict of official keys; one that its keys do not tell is 0."""
        classifier = f'{_HEAD}scratch.output_conv.2.weight'
        return cls(
            DINOv2Sizes.from_state_dict(strip_prefix(_BACKBONE, state)),
            channels=size_in(state, classifier, 1),
            post_process_channels=tuple(size_in(state, f'{_HEAD}projects.{i}.weight') for i in range(4)),
            num_classes=size_in(state, classifier),
        )

    def __str__(self) -> str:
        size = f'{self.num_parameters / 1e6:.2f} M parameters'
        return f'UniMatch V2, {self.backbone}, DPT of {self.channels}, {self.num_classes} classes, {size}'

    @property
    def num_parameters(self) -> int:
        """Number of values, those that are never used included, as the official training logs count."""
        return sum(math.prod(shape) for shape in self.layout().values())

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Every official key, in the official order, with its shape."""
        parts = {_BACKBONE: self.backbone.layout(), _HEAD: self._head_layout()}
        return {prefix + key: shape for prefix, part in parts.items() for key, shape in part.items()}

    def _head_layout(self) -> dict[str, tuple[int, ...]]:
        channels, levels = self.channels, self.post_process_channels
        shapes = {}
        for i, width in enumerate(levels):
            shapes |= layer_layout(f'projects.{i}', width, self.backbone.width, 1, 1)
        for i, kernel in ((0, 4), (1, 2), (3, 3)):
            shapes |= layer_layout(f'resize_layers.{i}', levels[i], levels[i], kernel, kernel)
        for i, width in enumerate(levels, 1):
            shapes[f'scratch.layer{i}_rn.weight'] = (channels, width, 3, 3)
        for i in (1, 2, 3, 4):
            block = f'scratch.refinenet{i}'
            shapes |= layer_layout(f'{block}.out_conv', channels, channels, 1, 1)
            for conv in (
                'resConfUnit1.conv1',
                'resConfUnit1.conv2',
                'resConfUnit2.conv1',
                'resConfUnit2.conv2',
            ):
                shapes |= layer_layout(f'{block}.{conv}', channels, channels, 3, 3)
        shapes |= layer_layout('scratch.output_conv.0', channels, channels, 3, 3)
        return shapes | layer_layout('scratch.output_conv.2', self.num_classes, channels, 1, 1)


def strip_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _name(key: str) -> str:
    """Our name for an official key."""
    if key.startswith(_BACKBONE):
        return key
    for pattern, template in _RULES:
        if match := re.fullmatch(_HEAD + pattern, key):
            groups = match.groups()
            level = int(groups[0]) - 1 if groups[0].isdigit() else None
            return f'decode_head.{template.format(*groups, n=level)}'
    raise KeyError(f'{key!r} is not a key of an official UniMatch V2 model')


def convert_unimatch_v2(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Convert the whole state dict of an official UniMatch V2 model, checked to be complete.

    Its baselines (FixMatch, supervised) are the same network. The result has every key of our
    ``EncoderDecoder`` and no other, so it loads strictly.

    Args:
        state: official key -> tensor, without a ``module.`` prefix.

    Returns:
        tuple: our key -> tensor; and the official keys dropped, those of the one unit that is never used.

    Raises:
        ValueError: a key is missing, unknown, or has another shape than the others imply.
    """
    check_layout(state, UniMatchV2Network.from_state_dict(state).layout(), *_OFFICIAL)
    dropped = [key for key in state if key.startswith(_UNUSED)]
    return {_name(key): value for key, value in state.items() if key not in dropped}, dropped


def convert_dinov2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Check that a state dict is a complete official DINOv2; our backbone has the same keys.

    Args:
        state: official key -> tensor, without a prefix.

    Returns:
        dict: the same.

    Raises:
        ValueError: a key is missing, unknown (as those of registers are), or has another shape than the
            others imply.
    """
    check_layout(state, DINOv2Sizes.from_state_dict(state).layout(), *_PRETRAINED)
    return dict(state)
