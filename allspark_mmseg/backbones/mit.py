"""Mix Transformer (MiT), the backbone of SegFormer, with the details of its released code."""

from typing import Any

from mmengine.model.weight_init import trunc_normal_init
from mmseg.models.backbones.mit import EfficientMultiheadAttention, MixFFN
from mmseg.models.backbones.mit import MixVisionTransformer as _MixVisionTransformer
from mmseg.models.utils import PatchEmbed
from torch import Tensor, nn

from ..registry import MODELS

_EMBEDDING_EPS = 1e-5


class _FusedAttention(nn.MultiheadAttention):
    """PyTorch's attention without attention weights as output. PyTorch can then use fused kernels."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        return super().forward(*args, **{**kwargs, 'need_weights': False})


@MODELS.register_module()
class MixVisionTransformer(_MixVisionTransformer):
    """MMSegmentation's ``MixVisionTransformer`` with the details of NVlabs' released code (arXiv 2105.15203).

    Three things differ. Arguments and state dict are MMSegmentation's.

    - Layer norms use an epsilon of 1e-5 in the patch embeddings and after the spatial reduction of keys and
      values, and 1e-6 elsewhere. MMSegmentation uses one value for all. This changes the result where
      activations are small.
    - Linear layers are initialized from a truncated normal distribution (std 0.02). This includes layers that
      MMSegmentation implements as 1x1 convolutions or leaves to PyTorch's default.
    - Attention uses PyTorch's fused kernels, which do not store attention weights.

    Args:
        *args: Positional arguments of MMSegmentation's ``MixVisionTransformer``.
        **kwargs: Keyword arguments of MMSegmentation's ``MixVisionTransformer``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, PatchEmbed) or (
                isinstance(module, EfficientMultiheadAttention) and module.sr_ratio > 1
            ):
                module.norm.eps = _EMBEDDING_EPS
            elif isinstance(module, nn.MultiheadAttention):
                module.__class__ = _FusedAttention

    def init_weights(self) -> None:
        """Initialize the weights as NVlabs do, or load the checkpoint that ``init_cfg`` names."""
        super().init_weights()
        if self.init_cfg is not None:
            return
        for module in self.modules():
            if isinstance(module, MixFFN):
                for linear in (module.layers[0], module.layers[4]):
                    trunc_normal_init(linear, std=0.02, bias=0.0)
            elif isinstance(module, nn.MultiheadAttention):
                nn.init.trunc_normal_(module.in_proj_weight, std=0.02)
                nn.init.zeros_(module.in_proj_bias)
