"""NVlabs' Mix Vision Transformer (SegFormer's backbone) in MMSegmentation's names."""

import re

import torch
from torch import Tensor

# official -> MMSegmentation, relative to the backbone; {s} is the official stage (1..4), {t} = {s} - 1
_RULES = [
    (r'patch_embed(\d)\.proj\.(.+)', 'layers.{t}.0.projection.{1}'),
    (r'patch_embed(\d)\.norm\.(.+)', 'layers.{t}.0.norm.{1}'),
    (r'norm(\d)\.(.+)', 'layers.{t}.2.{1}'),
    (r'block(\d)\.(\d+)\.(norm[12])\.(.+)', 'layers.{t}.1.{1}.{2}.{3}'),
    (r'block(\d)\.(\d+)\.attn\.(sr|norm)\.(.+)', 'layers.{t}.1.{1}.attn.{2}.{3}'),
    (r'block(\d)\.(\d+)\.attn\.proj\.(.+)', 'layers.{t}.1.{1}.attn.attn.out_proj.{2}'),
    (r'block(\d)\.(\d+)\.mlp\.fc1\.(.+)', 'layers.{t}.1.{1}.ffn.layers.0.{2}'),
    (r'block(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.(.+)', 'layers.{t}.1.{1}.ffn.layers.1.{2}'),
    (r'block(\d)\.(\d+)\.mlp\.fc2\.(.+)', 'layers.{t}.1.{1}.ffn.layers.4.{2}'),
]
_QUERY = re.compile(r'block(\d)\.(\d+)\.attn\.q\.(weight|bias)')
_KEY_VALUE = re.compile(r'block\d\.\d+\.attn\.kv\.(weight|bias)')


def _renamed(key: str) -> str:
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
        if match := _QUERY.fullmatch(key):
            stage, block, kind = match.groups()
            key_value = state[key.replace('.attn.q.', '.attn.kv.')]
            name = f'layers.{int(stage) - 1}.1.{block}.attn.attn.in_proj_{kind}'
            converted[name] = torch.cat([value, key_value])
        elif not _KEY_VALUE.fullmatch(key):
            name = _renamed(key)
            is_linear_of_mlp = key.endswith(('fc1.weight', 'fc2.weight'))
            converted[name] = value[:, :, None, None] if is_linear_of_mlp else value
    return converted
