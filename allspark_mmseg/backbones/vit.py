"""MMSegmentation's plain vision transformer, whose attention takes a bias and whose weights must be there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmengine.runner.checkpoint import CheckpointLoader
from mmseg.models.backbones import VisionTransformer as MMSegVisionTransformer
from mmseg.models.backbones.vit import TransformerEncoderLayer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..registry import MODELS


@MODELS.register_module()
class VisionTransformer(MMSegVisionTransformer):
    """MMSegmentation's ``VisionTransformer`` with an additive bias of the attention scores.

    Keys, shapes and arguments are MMSegmentation's; so are features, up to rounding. Two things differ:

    - ``forward`` takes ``attention_bias``, which all heads of all layers add to their scores. It is
      broadcast over the heads inside PyTorch's fused attention, which keeps no (N, heads, L, L) weights.
    - A checkpoint named in ``init_cfg=dict(type='Pretrained', ...)`` must fill every parameter.
      MMSegmentation loads what fits by chance, and leaves the rest, class token and positions, at zero.

    Args:
        kwargs: as in MMSegmentation; ``patch_bias=True`` for ViT and DeiT weights, which have that bias.

    Raises:
        ValueError: by ``init_weights``, when the checkpoint lacks parameters.
    """

    def init_weights(self) -> None:
        """Load or draw the weights, as MMSegmentation does, after a look into the checkpoint."""
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            self._check_checkpoint(self.init_cfg['checkpoint'])
        super().init_weights()

    def _check_checkpoint(self, path: str) -> None:
        stored = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        stored = stored.get('state_dict', stored)
        own = self.state_dict()
        # positions are resampled to the crop's grid
        unfilled = [
            key
            for key, value in own.items()
            if key not in stored or (stored[key].shape != value.shape and key != 'pos_embed')
        ]
        if unfilled:
            raise ValueError(
                f'backbone.init_cfg.checkpoint {path} fills {len(own) - len(unfilled)} of {len(own)} '
                f'parameters of the VisionTransformer: it has keys like {list(stored)[:3]}, but not '
                f'{unfilled[:3]} of these shapes. Convert it: python tools/model_converters/deit2mmseg.py '
                'SRC DST; and mind embed_dims, num_layers and patch_bias=True.'
            )

    def forward(self, inputs: Tensor, attention_bias: Tensor | None = None) -> tuple[Tensor, ...]:
        """Compute one map of patch tokens for each of ``out_indices``.

        Args:
            inputs: normalized images (N, 3, H, W).
            attention_bias: (N, 1, 1 + P, 1 + P), added to the scores of each query (third axis) with each key
                (fourth) in every layer; the class token comes first, then the P patches row by row.

        Returns:
            tuple: maps (N, C, h, w), h and w being H and W in patches, rounded up.
        """
        x, grid = self.patch_embed(inputs)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = self._pos_embeding(x, grid, self.pos_embed)
        if not self.with_cls_token:
            x = x[:, 1:]
            attention_bias = None if attention_bias is None else attention_bias[..., 1:, 1:]
        if self.pre_norm:
            x = self.pre_ln(x)
        features = [self._as_map(x, grid)] if self.out_origin else []
        for index, layer in enumerate(self.layers):
            if layer.with_cp and x.requires_grad:
                # the bias is an argument: what is computed again on the way back must see it, too
                x = checkpoint(_encode, layer, x, attention_bias, use_reentrant=False)
            else:
                x = _encode(layer, x, attention_bias)
            if self.final_norm and index == len(self.layers) - 1:
                x = self.norm1(x)
            if index in self.out_indices:
                features.append(self._as_map(x, grid))
        return tuple(features)

    def _as_map(self, x: Tensor, grid: tuple[int, int]) -> Tensor | list[Tensor]:
        patches = x[:, 1:] if self.with_cls_token else x
        patches = patches.transpose(1, 2).unflatten(2, tuple(grid)).contiguous()
        return [patches, x[:, 0]] if self.output_cls_token else patches


def _encode(layer: TransformerEncoderLayer, x: Tensor, bias: Tensor | None) -> Tensor:
    """One pre-norm layer, on tokens (N, L, C)."""
    x = x + _attend(layer.attn, layer.norm1(x), bias)
    return layer.ffn(layer.norm2(x), identity=x)


def _attend(attention: MultiheadAttention, x: Tensor, bias: Tensor | None) -> Tensor:
    """MMCV's attention among tokens (N, L, C), without its shortcut; the heads share the bias."""
    inner = attention.attn
    qkv = F.linear(x, inner.in_proj_weight, inner.in_proj_bias)
    # (N, L, 3C) -> 3 x (N, heads, L, width)
    q, k, v = qkv.unflatten(-1, (3, inner.num_heads, -1)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=None if bias is None else bias.to(q.dtype),
        dropout_p=inner.dropout if inner.training else 0.0,
    )
    return attention.dropout_layer(attention.proj_drop(inner.out_proj(mixed.transpose(1, 2).flatten(2))))
