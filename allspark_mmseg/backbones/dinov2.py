"""DINOv2's vision transformer, as UniMatch V2 uses it; official checkpoints load strictly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from allspark_mmseg.registry import MODELS

PATCH_SIZE = 14
TRAINED_GRID = 37
NORM_EPS = 1e-6
# The levels are those of UniMatch V2 (and of Depth Anything).
ARCHS = {
    'small': {'embed_dims': 384, 'depth': 12, 'num_heads': 6, 'out_indices': (2, 5, 8, 11)},
    'base': {'embed_dims': 768, 'depth': 12, 'num_heads': 12, 'out_indices': (2, 5, 8, 11)},
    'large': {'embed_dims': 1024, 'depth': 24, 'num_heads': 16, 'out_indices': (4, 11, 17, 23)},
    'giant': {
        'embed_dims': 1536,
        'depth': 40,
        'num_heads': 24,
        'out_indices': (9, 19, 29, 39),
        'ffn': 'swiglu',
    },
}
FFNS = ('mlp', 'swiglu')


class Attention(nn.Module):
    """Multi-head self-attention; the rows of ``qkv`` are ordered (q, k, v), head, channel."""

    def __init__(self, embed_dims: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend among tokens.

        Args:
            x: Tokens (N, L, C).
            bias: Added to the scores, (N, heads or 1, L, L).

        Returns:
            Tokens (N, L, C).
        """
        # (N, L, 3C) -> (N, L, 3, heads, width) -> 3 x (N, heads, L, width)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
        # (N, heads, L, width) -> (N, L, C)
        return self.proj(y.transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    """A learned factor ``gamma`` for each channel, 1 at the start."""

    def __init__(self, embed_dims: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(embed_dims))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last axis of tokens (N, L, C)."""
        return x * self.gamma


class SwiGLU(nn.Module):
    """The giant model's feed-forward part: one half of a linear map gates the other by its SiLU.

    Two thirds of the usual hidden width, rounded up to a multiple of 8, keep the number of parameters.
    """

    def __init__(self, embed_dims: int):
        super().__init__()
        hidden = -(-(8 * embed_dims // 3) // 8) * 8
        self.w12 = nn.Linear(embed_dims, 2 * hidden)
        self.w3 = nn.Linear(hidden, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, L, C) to tokens (N, L, C)."""
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
    """A pre-norm transformer block whose two branches are layer-scaled and, in training, dropped."""

    def __init__(self, embed_dims: int, num_heads: int, drop_path: float, ffn: str = 'mlp'):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims, eps=NORM_EPS)
        self.attn = Attention(embed_dims, num_heads)
        self.ls1 = LayerScale(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims, eps=NORM_EPS)
        self.mlp = SwiGLU(embed_dims) if ffn == 'swiglu' else _mlp(embed_dims)
        self.ls2 = LayerScale(embed_dims)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map tokens (N, L, C) to tokens (N, L, C); ``bias`` as in ``Attention``."""
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), bias)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


@MODELS.register_module()
class DINOv2(BaseModule):
    """DINOv2 vision transformer, patch 14, without register tokens; all its features have stride 14.

    State-dict keys and shapes are those of the official checkpoints (``dinov2_vits14_pretrain.pth`` and
    its larger siblings), which load strictly:
    ``init_cfg=dict(type='Pretrained', checkpoint='dinov2_vits14_pretrain.pth')``.
    Images are RGB with ImageNet's mean and deviation::

        dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)

    Without ``init_cfg`` the linear layers are drawn from a truncated normal (deviation 0.02).

    Sources: Oquab et al., "DINOv2", TMLR 2024, table 17 (sizes); Yang et al., "UniMatch V2", TPAMI 2025,
    and its released code (levels, each after the final norm). Parts that ``out_indices`` does not reach
    (later blocks; the final norm without ``final_norm``) stay in the state dict but are frozen, and
    ``mask_token``, which only pre-training reads, is a buffer: every trainable parameter gets a gradient.

    Args:
        arch: ``'small'`` (22.1 M parameters), ``'base'`` (86.6 M), ``'large'`` (304.4 M), ``'giant'``
            (1136.5 M), or a dict with ``embed_dims``, ``depth``, ``num_heads``, ``out_indices`` and, if it is
            not ``'mlp'``, ``ffn`` (for tests).
        out_indices: Blocks, counted from 0, whose outputs are returned; ``None`` takes UniMatch V2's four:
            2, 5, 8, 11 (small, base), 4, 11, 17, 23 (large) or 9, 19, 29, 39 (giant).
        final_norm: Pass every returned level through the final layer norm.
        drop_path_rate: Probability, in [0, 1), that the last block drops a branch for an image; earlier
            blocks have proportionally less. UniMatch V2 uses 0.
        interpolate_offset: In patches, added to the size of the grid before the trained 37 x 37 position
            grid is resampled. The official code and UniMatch V2 use 0.1; 0 resamples to the exact size,
            as Hugging Face's port does. With trained weights the features at 224 x 224 differ by 0.5 %.
        frozen: Train nothing and stay in evaluation mode (UniMatch V2's ``lock_backbone``).
        with_cp: In training keep the input of each block alone and compute the rest once more on the way
            back: 30 instead of 521 MiB for an image of 518 x 518 (small), for about a third more time.
            Results are the same.
        init_cfg: MMEngine's initialization config.

    Raises:
        ValueError: ``arch`` or its ``ffn`` is not one of the above, or ``out_indices`` names a block that is
            not there.
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
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg or {'type': 'TruncNormal', 'layer': 'Linear', 'std': 0.02})
        if isinstance(arch, str) and arch not in ARCHS:
            raise ValueError(f'arch must be one of {", ".join(ARCHS)} or a dict, found "{arch}"')
        sizes = ARCHS[arch] if isinstance(arch, str) else arch
        depth, dims, ffn = sizes['depth'], sizes['embed_dims'], sizes.get('ffn', 'mlp')
        if ffn not in FFNS:
            raise ValueError(f'arch.ffn must be one of {", ".join(FFNS)}, found "{ffn}"')
        self.out_indices = _checked_indices(
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
        """Set the training mode; a ``frozen`` backbone stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor, attention_bias: Tensor | None = None) -> tuple[Tensor, ...]:
        """Compute one map of patch tokens for each of ``out_indices``, in ascending order.

        Args:
            x: Normalized images (N, 3, H, W); H and W are multiples of 14.
            attention_bias: (N, 1, 1 + P, 1 + P), added to the scores of each query (third axis) with each key
                (fourth) in every block; the class token comes first, then the P patches row by row.

        Returns:
            Maps (N, C, H / 14, W / 14), C = ``embed_dims``; layer-normed with ``final_norm``.

        Raises:
            ValueError: H or W is not a multiple of 14.
        """
        _check_multiple(*x.shape[-2:])
        x = self.patch_embed(x)
        grid = x.shape[-2:]
        # (N, C, h, w) -> (N, h * w, C)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self._positions(*grid)
        features = []
        for index in range(max(self.out_indices) + 1):
            block = self.blocks[index]
            # without a gradient (a frozen backbone, prediction) nothing is kept that could be computed again
            if self.with_cp and x.requires_grad:
                x = checkpoint(block, x, attention_bias, use_reentrant=False)
            else:
                x = block(x, attention_bias)
            if index in self.out_indices:
                level = self.norm(x) if self.final_norm else x
                # (N, 1 + h * w, C) -> (N, C, h, w)
                features.append(level[:, 1:].transpose(1, 2).unflatten(2, grid).contiguous())
        return tuple(features)

    def _positions(self, height: int, width: int) -> Tensor:
        """Position encodings (1, 1 + height * width, C); the class token keeps its own."""
        if (height, width) == (TRAINED_GRID, TRAINED_GRID):
            return self.pos_embed
        offset = self.interpolate_offset
        if offset:
            # Given as a factor, not as a size, because the factor also places the samples.
            target = {'scale_factor': ((height + offset) / TRAINED_GRID, (width + offset) / TRAINED_GRID)}
        else:
            target = {'size': (height, width)}
        # (1, 37 * 37, C) -> (1, C, 37, 37)
        trained = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (TRAINED_GRID, TRAINED_GRID))
        trained = trained.to(torch.promote_types(trained.dtype, torch.float32))
        resampled = F.interpolate(trained, mode='bicubic', align_corners=False, **target)
        patches = resampled.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)


def _checked_indices(indices: Sequence[int], depth: int) -> tuple[int, ...]:
    if not indices or not all(0 <= index < depth for index in indices):
        raise ValueError(f'out_indices must name blocks 0 to {depth - 1}, found {tuple(indices)}')
    return tuple(sorted(indices))


def _check_multiple(height: int, width: int) -> None:
    if height % PATCH_SIZE == 0 and width % PATCH_SIZE == 0:
        return

    def nearest(side: int) -> str:
        below, above = max(side // PATCH_SIZE, 1), -(-side // PATCH_SIZE)
        return ' or '.join(str(patches * PATCH_SIZE) for patches in sorted({below, above}))

    raise ValueError(
        f'DINOv2 needs image sides that are multiples of {PATCH_SIZE}, found {height} x {width} (H x W): '
        f'resize, crop or pad to H = {nearest(height)}, W = {nearest(width)}'
    )
