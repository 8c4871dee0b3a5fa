"""MMSegmentation's vision transformer with an attention bias and a check of pre-trained weights."""

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

    State dict, arguments and (up to rounding) features are MMSegmentation's. Two things differ:

    - ``forward`` takes ``attention_bias``. All heads of all layers add it to their attention scores.
      PyTorch's fused attention broadcasts it over the heads, without attention weights in memory.
    - The checkpoint of ``init_cfg=dict(type='Pretrained', ...)`` must contain every parameter. MMSegmentation
      loads the keys that match and leaves the others, such as class token and positions, at zero.

    The arguments are the same as in MMSegmentation's ``VisionTransformer``. ViT and DeiT weights need
    ``patch_bias=True``.
    """

    def init_weights(self) -> None:
        """Initialize the weights as MMSegmentation does, after a check of the checkpoint.

        Raises:
            ValueError: The checkpoint of ``init_cfg`` lacks parameters, or their shapes differ.
        """
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            self._check_checkpoint(self.init_cfg['checkpoint'])
        super().init_weights()

    def _check_checkpoint(self, path: str) -> None:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        stored = checkpoint.get('state_dict', checkpoint)
        own = self.state_dict()
        # pos_embed is exempt: it is resampled to the grid of the crop
        missing = [
            key
            for key, value in own.items()
            if key not in stored or (stored[key].shape != value.shape and key != 'pos_embed')
        ]
        if missing:
            raise ValueError(
                f'backbone.init_cfg.checkpoint {path} has {len(own) - len(missing)} of {len(own)} parameters '
                f'of the VisionTransformer. It has keys like {list(stored)[:3]}, expected {missing[:3]} with '
                'the shapes of the model. Convert it with tools/model_converters/deit2mmseg.py SRC DST, and '
                'check embed_dims, num_layers and patch_bias=True.'
            )

    def forward(self, inputs: Tensor, attention_bias: Tensor | None = None) -> tuple[Tensor, ...]:
        """Compute one feature map for each of ``out_indices``.

        Args:
            inputs (Tensor): Normalized images of shape (N, 3, H, W).
            attention_bias (Tensor, optional): Bias of shape (N, 1, 1 + P, 1 + P), added to the attention
                scores of every layer. The third axis is the query and the fourth the key. The class token
                comes first, then the P patches in row-major order.

        Returns:
            tuple[Tensor, ...]: Feature maps of shape (N, C, ceil(H / patch_size), ceil(W / patch_size)). With
            ``output_cls_token``, pairs ``[map, class token]`` with class tokens of shape (N, C).
        """
        x, grid = self.patch_embed(inputs)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self._pos_embeding(x, grid, self.pos_embed)
        if not self.with_cls_token:
            x = x[:, 1:]
            attention_bias = None if attention_bias is None else attention_bias[..., 1:, 1:]
        if self.pre_norm:
            x = self.pre_ln(x)
        features: list = [self._as_map(x, grid)] if self.out_origin else []
        for index, layer in enumerate(self.layers):
            if layer.with_cp and x.requires_grad:
                # the bias is an argument, because the recomputation in the backward pass needs it too
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
        patches = patches.transpose(1, 2)
        # reshape, because the ONNX exporter makes the sizes of unflatten constant
        patches = patches.reshape(*patches.shape[:2], *grid).contiguous()
        return [patches, x[:, 0]] if self.output_cls_token else patches


def _encode(layer: TransformerEncoderLayer, x: Tensor, bias: Tensor | None) -> Tensor:
    """Apply one pre-norm layer to tokens (N, L, C)."""
    x = x + _attend(layer.attn, layer.norm1(x), bias)
    return layer.ffn(layer.norm2(x), identity=x)


def _attend(attention: MultiheadAttention, x: Tensor, bias: Tensor | None) -> Tensor:
    """Apply MMCV's attention to tokens (N, L, C), without its shortcut. All heads share the bias."""
    inner = attention.attn
    qkv = F.linear(x, inner.in_proj_weight, inner.in_proj_bias)
    # (N, L, 3C) -> 3 x (N, heads, L, width)
    q, k, v = qkv.unflatten(-1, (3, inner.num_heads, -1)).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=None if bias is None else bias.to(q.dtype),
        dropout_p=inner.dropout if inner.training else 0.0,
    )
    return attention.dropout_layer(attention.proj_drop(inner.out_proj(out.transpose(1, 2).flatten(2))))
