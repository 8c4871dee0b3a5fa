"""NVlabs' Mix Vision Transformer (SegFormer's backbone) in MMSegmentation's names."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from .layout import check_layout, depth_in, layer_layout, size_in

# official -> MMSegmentation, relative to the backbone; {s} is the official stage (1..4), {t} = {s} - 1
_RULES = [
    (r'patch_embed(\d)\.proj\.(.+)', 'layers.{t}.0.projection.{1}'),
    (r'patch_embed(\d)\.norm\.(.+)', 'layers.{t}.0.norm.{1}'),
    (r'norm(\d)\.(.+)', 'layers.{t}.2.{1}'),
    (r'block(\d)\.(\d+)\.(norm[12])\.(.+)', 'layers.{t}.1.{1}.{2}.{3}'),
    (r'block(\d)\.(\d+)\.attn\.(sr|norm)\.(.+)', 'layers.{t}.1.{1}.attn.{2}.{3}'),
    (r'block(\d)\.(\d+)\.attn\.(?:q|kv)\.(weight|bias)', 'layers.{t}.1.{1}.attn.attn.in_proj_{2}'),
    (r'block(\d)\.(\d+)\.attn\.proj\.(.+)', 'layers.{t}.1.{1}.attn.attn.out_proj.{2}'),
    (r'block(\d)\.(\d+)\.mlp\.fc1\.(.+)', 'layers.{t}.1.{1}.ffn.layers.0.{2}'),
    (r'block(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.(.+)', 'layers.{t}.1.{1}.ffn.layers.1.{2}'),
    (r'block(\d)\.(\d+)\.mlp\.fc2\.(.+)', 'layers.{t}.1.{1}.ffn.layers.4.{2}'),
]
_QUERY = re.compile(r'block\d\.\d+\.attn\.q\.(weight|bias)')
_KEY_VALUE = re.compile(r'block\d\.\d+\.attn\.kv\.(weight|bias)')
_MLP_WEIGHT = ('fc1.weight', 'fc2.weight')
_REDUCTIONS = (8, 4, 2, 1)
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
    """Sizes of a Mix Vision Transformer, and with them all keys of its official state dict.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> 'MiT':
        """Read the sizes off a state dict of official keys; one that its keys do not tell is 0."""
        return cls(
            tuple(depth_in(state, rf'block{s}\.(\d{{1,3}})\.') for s in (1, 2, 3, 4)),
            tuple(size_in(state, f'patch_embed{s}.proj.weight') for s in (1, 2, 3, 4)),
        )

    @classmethod
    def from_mmseg_state(cls, state: dict[str, Tensor]) -> 'MiT':
        """Read the sizes off a state dict of MMSegmentation's keys; one that its keys do not tell is 0."""
        return cls(
            tuple(depth_in(state, rf'layers\.{t}\.1\.(\d{{1,3}})\.') for t in range(4)),
            tuple(size_in(state, f'layers.{t}.0.projection.weight') for t in range(4)),
        )

    def __str__(self) -> str:
        sizes = (self.depths, self.widths)
        known = [name for name, variant in _VARIANTS.items() if variant == sizes]
        return known[0] if known else f'MiT of depths {self.depths} and widths {self.widths}'

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Every official key, in the official order, with its shape."""
        shapes = {}
        for s, (above, width) in enumerate(zip((3, *self.widths), self.widths, strict=False), 1):
            kernel = 7 if s == 1 else 3
            shapes |= layer_layout(f'patch_embed{s}.proj', width, above, kernel, kernel)
            shapes |= layer_layout(f'patch_embed{s}.norm', width)
        for s, (depth, width, reduction) in enumerate(
            zip(self.depths, self.widths, _REDUCTIONS, strict=True), 1
        ):
            for i in range(depth):
                shapes |= _block_layout(f'block{s}.{i}', width, reduction)
            shapes |= layer_layout(f'norm{s}', width)
        return shapes


def _block_layout(block: str, width: int, reduction: int) -> dict[str, tuple[int, ...]]:
    hidden = 4 * width
    attention = {
        **layer_layout(f'{block}.attn.q', width, width),
        **layer_layout(f'{block}.attn.kv', 2 * width, width),
        **layer_layout(f'{block}.attn.proj', width, width),
    }
    if reduction > 1:
        attention |= layer_layout(f'{block}.attn.sr', width, width, reduction, reduction)
        attention |= layer_layout(f'{block}.attn.norm', width)
    return {
        **layer_layout(f'{block}.norm1', width),
        **attention,
        **layer_layout(f'{block}.norm2', width),
        **layer_layout(f'{block}.mlp.fc1', hidden, width),
        **layer_layout(f'{block}.mlp.dwconv.dwconv', hidden, 1, 3, 3),
        **layer_layout(f'{block}.mlp.fc2', width, hidden),
    }


def mit_name(key: str) -> str:
    """MMSegmentation's name for an official key of the MiT; query and key-value share one.

    Raises:
        KeyError: a key that no official MiT has.
    """
    for pattern, template in _RULES:
        if match := re.fullmatch(pattern, key):
            stage, *rest = match.groups()
            return template.format(None, *rest, t=int(stage) - 1)
    raise KeyError(f'{key!r} is not a key of an official MiT backbone (patch_embed*, block*, norm*)')


def mit_to_mmseg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename an official MiT state dict for MMSegmentation's ``MixVisionTransformer``.

    Query and key-value projections are concatenated, the MLP's linear layers become 1x1 convolutions.

    Args:
        state: official key -> tensor, without a ``backbone.`` prefix and without the classifier.

    Returns:
        dict: MMSegmentation's key -> tensor.

    Raises:
        KeyError: a key that no official MiT has.
    """
    converted = {}
    for key, value in state.items():
        if _QUERY.fullmatch(key):
            key_value = state[key.replace('.attn.q.', '.attn.kv.')]
            converted[mit_name(key)] = torch.cat([value, key_value])
        elif not _KEY_VALUE.fullmatch(key):
            converted[mit_name(key)] = value[:, :, None, None] if key.endswith(_MLP_WEIGHT) else value
    return converted


def mit_value(key: str, value: Tensor) -> Tensor:
    """What belongs under an official key, taken from the tensor under MMSegmentation's name for it.

    Args:
        key: official, see ``MiT.layout``.
        value: the tensor called ``mit_name(key)``.

    Returns:
        Tensor: in the official shape.
    """
    if _QUERY.fullmatch(key):
        return value[: len(value) // 3].clone()  # a view would take the whole projection into the file
    if _KEY_VALUE.fullmatch(key):
        return value[len(value) // 3 :].clone()
    return value.flatten(1) if key.endswith(_MLP_WEIGHT) else value


def convert_imagenet(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Convert the state dict of an ImageNet classifier with a MiT, checked to be complete.

    Args:
        state: official key -> tensor, without a prefix; the classifier's own (``head.*``) are dropped.

    Returns:
        tuple: the backbone's state dict in MMSegmentation's keys, and the keys dropped.

    Raises:
        ValueError: a key is missing, unknown, or has another shape than the others imply.
    """
    dropped = [key for key in state if key.startswith('head.')]
    backbone = {key: value for key, value in state.items() if key not in dropped}
    what = 'an official MiT backbone'
    advice = (
        "Give an ImageNet classifier's file (mit_b0.pth to mit_b5.pth); AllSpark's are for allspark2mmseg.py."
    )
    check_layout(backbone, MiT.from_state_dict(backbone).layout(), what, advice)
    return mit_to_mmseg(backbone), dropped
