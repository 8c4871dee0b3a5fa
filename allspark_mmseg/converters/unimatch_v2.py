"""Converts DINOv2 and UniMatch V2 to the names of ``EncoderDecoder(DINOv2, DINOv2DPTHead)``."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ..backbones import DINOv2
from ..heads import DINOv2DPTHead
from .state_dicts import build_on_meta, check_state, depth_in, official_names, size_in, strip_prefix

_BACKBONE, _HEAD = 'backbone.', 'head.'
# the release never uses the first unit, so DINOv2DPTHead does not have it; both units have the same shapes
_UNUSED, _USED = (f'head.scratch.refinenet4.resConfUnit{i}.' for i in (1, 2))
_RULES = (
    ('backbone.{x}', 'backbone.{x}'),
    ('head.projects.{i}.{x}', 'decode_head.projects.{i}.{x}'),
    ('head.resize_layers.{i}.{x}', 'decode_head.resize_layers.{i}.{x}'),
    ('head.scratch.layer{i+1}_rn.{x}', 'decode_head.convs.{i}.{x}'),
    ('head.scratch.refinenet{i+1}.out_conv.{x}', 'decode_head.fusion_blocks.{i}.project.{x}'),
    (
        'head.scratch.refinenet{i+1}.resConfUnit{n}.{x}',
        'decode_head.fusion_blocks.{i}.res_conv_unit{n}.{x}',
    ),
    ('head.scratch.output_conv.0.{x}', 'decode_head.project.{x}'),
    ('head.scratch.output_conv.2.{x}', 'decode_head.conv_seg.{x}'),
)
_VARIANTS = {(384, 12): 'S', (768, 12): 'B', (1024, 24): 'L', (1536, 40): 'g'}
_OFFICIAL = (
    'an official UniMatch V2 model',
    'Use the file that its training scripts write, or weights of DINOv2 alone.',
)
_PRETRAINED = (
    'an official DINOv2 without registers, patch 14',
    'Use dinov2_vits14_pretrain.pth or another size without "reg4" in its name.',
)


@dataclass(frozen=True)
class DINOv2Sizes:
    """Sizes of an official DINOv2 without registers.

    Attributes:
        width (int): Channels of a token.
        depth (int): Number of blocks.
        swiglu (bool): Whether the feed-forward network is a SwiGLU, as in the giant model, instead of an MLP.
    """

    width: int
    depth: int
    swiglu: bool = False

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> 'DINOv2Sizes':
        """Read the sizes from a state dict with official keys."""
        return cls(
            width=size_in(state, 'cls_token', 2),
            depth=depth_in(state, r'blocks\.(\d{1,3})\.'),
            swiglu='blocks.0.mlp.w12.weight' in state,
        )

    def __str__(self) -> str:
        if name := _VARIANTS.get((self.width, self.depth)):
            return f'DINOv2 ViT-{name}/14'
        return f'DINOv2 of width {self.width} and depth {self.depth}'

    def build(self) -> DINOv2:
        """Build the network, whose keys are the official ones.

        Its number of heads and its output levels are arbitrary; keys and shapes do not depend on them.
        """
        return DINOv2(
            dict(
                embed_dims=self.width,
                depth=self.depth,
                num_heads=1,
                out_indices=(0,),
                ffn='swiglu' if self.swiglu else 'mlp',
            )
        )


@dataclass(frozen=True)
class UniMatchV2Network:
    """Sizes of an official UniMatch V2 model.

    Attributes:
        backbone (DINOv2Sizes): Sizes of the backbone.
        channels (int): Width of the DPT decoder (``features`` in the release).
        post_process_channels (tuple[int, ...]): Channels of its four levels after the projection
            (``out_channels`` in the release).
        num_classes (int): Number of classes K.
    """

    backbone: DINOv2Sizes
    channels: int
    post_process_channels: tuple[int, ...]
    num_classes: int

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> 'UniMatchV2Network':
        """Read the sizes from a state dict with official keys."""
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
        """Number of values, including unused ones, as in the official training logs."""
        return sum(value.numel() for value in self.official_state().values())

    def build(self) -> nn.Module:
        """Build backbone and head."""
        head = DINOv2DPTHead(
            [self.backbone.width] * 4,
            self.channels,
            post_process_channels=self.post_process_channels,
            num_classes=self.num_classes,
        )
        return nn.ModuleDict({'backbone': self.backbone.build(), 'decode_head': head})

    def names(self) -> dict[str, str]:
        """Return all official keys that are converted, and the corresponding keys of our network."""
        return official_names(build_on_meta(self.build).state_dict(), _RULES)

    def official_state(self) -> dict[str, Tensor]:
        """Return the official state dict on the meta device."""
        ours = build_on_meta(self.build).state_dict()
        state = {official: ours[key] for official, key in official_names(ours, _RULES).items()}
        return state | {key.replace(_USED, _UNUSED): v for key, v in state.items() if key.startswith(_USED)}


def convert_unimatch_v2(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Convert the complete state dict of an official UniMatch V2 model.

    Its baselines (FixMatch, supervised) are the same network. The result has exactly the keys of our
    ``EncoderDecoder``, so it loads strictly.

    Args:
        state (Mapping[str, Tensor]): Official keys, without a ``module.`` prefix.

    Returns:
        tuple[dict[str, Tensor], list[str]]: Our keys, and the dropped official keys: those of the unused
        unit.

    Raises:
        ValueError: A key is missing or unexpected, or has another shape than in the network.
    """
    network = UniMatchV2Network.from_state_dict(state)
    check_state(state, network.official_state(), *_OFFICIAL)
    names = network.names()
    dropped = [key for key in state if key not in names]
    return {names[key]: value for key, value in state.items() if key in names}, dropped


def convert_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Check that a state dict is a complete official DINOv2; our backbone has the same keys.

    Args:
        state (Mapping[str, Tensor]): Official keys without a prefix.

    Returns:
        dict[str, Tensor]: The same state dict.

    Raises:
        ValueError: A key is missing or unexpected (for example of registers), or has another shape than in
            the network.
    """
    check_state(state, build_on_meta(DINOv2Sizes.from_state_dict(state).build).state_dict(), *_PRETRAINED)
    return dict(state)
