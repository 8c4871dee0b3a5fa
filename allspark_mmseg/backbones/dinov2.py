"""The vision transformer of DINOv2, as UniMatch V2 uses it. It loads the official checkpoints."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..registry import MODELS
from ..utils import require
from .positions import resample_positions

PATCH_SIZE = 14
TRAINED_GRID = 37
NORM_EPS = 1e-6
# out_indices are those of UniMatch V2 (and of Depth Anything)
ARCHS: dict[str, dict[str, Any]] = {
    'small': dict(embed_dims=384, depth=12, num_heads=6, out_indices=(2, 5, 8, 11)),
    'base': dict(embed_dims=768, depth=12, num_heads=12, out_indices=(2, 5, 8, 11)),
    'large': dict(embed_dims=1024, depth=24, num_heads=16, out_indices=(4, 11, 17, 23)),
    'giant': dict(embed_dims=1536, depth=40, num_heads=24, out_indices=(9, 19, 29, 39), ffn='swiglu'),
}
FFNS = ('mlp', 'swiglu')


class Attention(nn.Module):
    """Multi-head self-attention on tokens (N, L, C).

    The output channels of ``qkv`` are ordered by (q, k, v), then by head, then by channel.

    Args:
        embed_dims (int): Channels C of the tokens.
        num_heads (int): Number of heads. It divides ``embed_dims``.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Apply self-attention.

        Args:
            x (Tensor): Tokens of shape (N, L, C).
            bias (Tensor, optional): Bias of shape (N, num_heads or 1, L, L), added to the attention scores.

        Returns:
            Tensor: Tokens of shape (N, L, C).
        """
        # (N, L, 3C) -> (N, L, 3, heads, width) -> 3 x (N, heads, L, width)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
        # (N, heads, L, width) -> (N, L, C)
        return self.proj(y.transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    """Scaling of each of ``embed_dims`` channels by a learned factor ``gamma``, initialized to 1."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(embed_dims))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of tokens of shape (N, L, C)."""
        return x * self.gamma


class SwiGLU(nn.Module):
    """The feed-forward part of the giant model: ``w3(SiLU(a) * b)`` with ``a, b = w12(x)``.

    The hidden width is 2/3 of ``4 * embed_dims``, rounded up to a multiple of 8. The number of parameters is
    then about that of the two-layer MLP.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        hidden = -(-(8 * embed_dims // 3) // 8) * 8
        self.w12 = nn.Linear(embed_dims, 2 * hidden)
        self.w3 = nn.Linear(hidden, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens of shape (N, L, C) to tokens of the same shape."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


def _mlp(embed_dims: int) -> nn.Sequential:
    layers = {
        'fc1': nn.Linear(embed_dims, 4 * embed_dims),
        'act': nn.GELU(),
        'fc2': nn.Linear(4 * embed_dims, embed_dims),
    }
    return nn.Sequential(OrderedDict(layers))


class Block(nn.Module):
    """A pre-norm transformer block with layer scale and stochastic depth on both branches.

    Args:
        embed_dims (int): Channels C of the tokens.
        num_heads (int): Attention heads.
        drop_path (float): Probability of dropping a branch for an image in training, in [0, 1).
        ffn (str): Feed-forward part, ``'mlp'`` or ``'swiglu'``.
    """

    def __init__(self, embed_dims: int, num_heads: int, drop_path: float, ffn: str = 'mlp') -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims, eps=NORM_EPS)
        self.attn = Attention(embed_dims, num_heads)
        self.ls1 = LayerScale(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims, eps=NORM_EPS)
        self.mlp = SwiGLU(embed_dims) if ffn == 'swiglu' else _mlp(embed_dims)
        self.ls2 = LayerScale(embed_dims)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map tokens (N, L, C) to tokens (N, L, C), with the ``bias`` of :class:`Attention`."""
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), bias)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


@MODELS.register_module()
class DINOv2(BaseModule):
    """DINOv2 vision transformer with patch size 14 and without register tokens. All features have stride 14.

    State-dict keys and shapes equal those of the official checkpoints (``dinov2_vits14_pretrain.pth`` and the
    larger models), so the checkpoints load with ``strict=True``: ``init_cfg=dict(type='Pretrained',
    checkpoint='dinov2_vits14_pretrain.pth')``. The input is RGB, normalized with the mean and standard
    deviation of ImageNet::

        dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)

    Without ``init_cfg``, linear layers are initialized from a truncated normal distribution (std 0.02).

    Parts that ``out_indices`` does not use (later blocks, and the final norm with ``final_norm=False``) stay
    in the state dict but are frozen. ``mask_token``, which only pre-training uses, is a buffer. So every
    trainable parameter gets a gradient.

    Sources: Oquab et al., "DINOv2", TMLR 2024, table 17 (sizes); Yang et al., "UniMatch V2", TPAMI 2025, and
    its released code (``out_indices``, and the final norm after each of them).

    Args:
        arch (str or dict): ``'small'`` (22.1 M parameters), ``'base'`` (86.6 M), ``'large'`` (304.4 M),
            ``'giant'`` (1136.5 M), or a dict with ``embed_dims``, ``depth``, ``num_heads``, ``out_indices``
            and optionally ``ffn``, which is ``'mlp'`` (default) or ``'swiglu'``.
        out_indices (Sequence[int], optional): Blocks, counted from 0, whose outputs are returned. None
            selects the blocks of UniMatch V2: 2, 5, 8, 11 (small, base), 4, 11, 17, 23 (large), 9, 19, 29, 39
            (giant).
        final_norm (bool): Apply the final layer norm to every returned output.
        drop_path_rate (float): Probability, in [0, 1), that the last block drops a branch for an image. It
            decreases linearly to 0 at the first block. UniMatch V2 uses 0.
        interpolate_offset (float): Offset, in patches, added to the size of the target grid when the trained
            37 x 37 position grid is resampled. The official code and UniMatch V2 use 0.1. 0 resamples to the
            exact size, as in Hugging Face's port. With trained weights, the features at 224 x 224 differ by
            0.5 %.
        frozen (bool): Freeze all parameters and stay in evaluation mode (``lock_backbone`` of UniMatch V2).
        with_cp (bool): Recompute each block in the backward pass to save memory: 30 instead of 521 MiB for an
            image of 518 x 518 (small), with about 1/3 more time. Results are the same.
        init_cfg (dict or list[dict], optional): MMEngine's initialization config.

    Raises:
        ValueError: ``arch`` or its ``ffn`` is unknown, ``out_indices`` is empty or names a block that does
            not exist.
    """

    def __init__(
        self,
        arch: str | dict = 'small',
        out_indices: Sequence[int] | None = None,
        final_norm: bool = True,
        drop_path_rate: float = 0.0,
        interpolate_offset: float = 0.1,
        frozen: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg or {'type': 'TruncNormal', 'layer': 'Linear', 'std': 0.02})
        sizes, ffn = _resolve_arch(arch)
        dims, depth = sizes['embed_dims'], sizes['depth']
        self.out_indices = _check_out_indices(
            sizes['out_indices'] if out_indices is None else out_indices, depth
        )
        self.embed_dims = dims
        self.patch_size = PATCH_SIZE
        self.final_norm = final_norm
        self.interpolate_offset = interpolate_offset
        self.frozen = frozen
        self.with_cp = with_cp

        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + TRAINED_GRID**2, dims))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.register_buffer('mask_token', torch.zeros(1, dims))
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, dims, PATCH_SIZE, PATCH_SIZE)))
        rates = [drop_path_rate * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(Block(dims, sizes['num_heads'], rate, ffn) for rate in rates)
        self.norm = nn.LayerNorm(dims, eps=NORM_EPS)

        self.blocks[max(self.out_indices) + 1 :].requires_grad_(False)
        self.norm.requires_grad_(final_norm)
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def train(self, mode: bool = True) -> DINOv2:
        """Set the training mode. A ``frozen`` backbone stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor, attention_bias: Tensor | None = None) -> tuple[Tensor, ...]:
        """Compute one feature map for each of ``out_indices``, in ascending order.

        Args:
            x (Tensor): Normalized images of shape (N, 3, H, W). H and W are multiples of 14.
            attention_bias (Tensor, optional): Bias of shape (N, 1, 1 + P, 1 + P), added to the attention
                scores of every block. The third axis is the query and the fourth the key. The class token
                comes first, then the P patches in row-major order.

        Returns:
            tuple[Tensor, ...]: Feature maps of shape (N, C, H / 14, W / 14) with C = ``embed_dims``.

        Raises:
            ValueError: H or W is not a multiple of 14.
        """
        _check_image_size(*x.shape[-2:])
        x = self.patch_embed(x)
        grid = x.shape[-2:]
        # (N, C, h, w) -> (N, h * w, C)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self._positions(*grid)
        features = []
        for index in range(max(self.out_indices) + 1):
            block = self.blocks[index]
            # without a gradient (frozen backbone, inference), no activations are stored
            if self.with_cp and x.requires_grad:
                x = checkpoint(block, x, attention_bias, use_reentrant=False)
            else:
                x = block(x, attention_bias)
            if index in self.out_indices:
                tokens = self.norm(x) if self.final_norm else x
                # (N, 1 + h * w, C) -> (N, C, h, w)
                patches = tokens[:, 1:].transpose(1, 2)
                # reshape, because the ONNX exporter makes the sizes of unflatten constant
                features.append(patches.reshape(*patches.shape[:2], *grid).contiguous())
        return tuple(features)

    def _positions(self, height: int, width: int) -> Tensor:
        """Resample the position embeddings to a grid: (1, 1 + height * width, C), class token first."""
        if not torch.jit.is_tracing() and (height, width) == (TRAINED_GRID, TRAINED_GRID):
            return self.pos_embed
        # (1, 37 * 37, C) -> (1, C, 37, 37)
        trained = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (TRAINED_GRID, TRAINED_GRID))
        trained = trained.to(torch.promote_types(trained.dtype, torch.float32))
        resampled = resample_positions(trained, height, width, self.interpolate_offset)
        patches = resampled.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)


def _resolve_arch(arch: str | dict) -> tuple[dict[str, Any], str]:
    if isinstance(arch, str):
        require('DINOv2', 'arch', arch, arch in ARCHS, f'one of {", ".join(ARCHS)} or a dict')
    sizes = ARCHS[arch] if isinstance(arch, str) else arch
    ffn = sizes.get('ffn', 'mlp')
    require('DINOv2', 'arch.ffn', ffn, ffn in FFNS, f'one of {", ".join(FFNS)}')
    return sizes, ffn


def _check_out_indices(indices: Sequence[int], depth: int) -> tuple[int, ...]:
    indices = tuple(indices)
    valid = bool(indices) and all(0 <= index < depth for index in indices)
    require('DINOv2', 'out_indices', indices, valid, f'blocks from 0 to {depth - 1}')
    return tuple(sorted(indices))


def _check_image_size(height: int, width: int) -> None:
    if height % PATCH_SIZE == 0 and width % PATCH_SIZE == 0:
        return

    def nearest_multiples(side: int) -> str:
        below, above = max(side // PATCH_SIZE, 1), -(-side // PATCH_SIZE)
        return ' or '.join(str(patches * PATCH_SIZE) for patches in sorted({below, above}))

    raise ValueError(
        f'DINOv2: the image size is {height} x {width} (H x W), expected multiples of {PATCH_SIZE}. Resize, '
        f'crop or pad to H = {nearest_multiples(height)}, W = {nearest_multiples(width)}.'
    )
