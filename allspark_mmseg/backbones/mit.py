"""SegFormer's backbone with the layer-norm epsilons and the initialization of its authors."""

from mmengine.model.weight_init import trunc_normal_init
from mmseg.models.backbones.mit import EfficientMultiheadAttention, MixFFN
from mmseg.models.backbones.mit import MixVisionTransformer as _MixVisionTransformer
from mmseg.models.utils import PatchEmbed
from torch import nn

from ..registry import MODELS

_EMBEDDING_EPS = 1e-5


class _FusedAttention(nn.MultiheadAttention):
    """PyTorch's, without the map of weights that nothing reads, so that its fused kernels serve."""

    def forward(self, *args, **kwargs) -> tuple:
        return super().forward(*args, **kwargs, need_weights=False)


@MODELS.register_module()
class MixVisionTransformer(_MixVisionTransformer):
    """MMSegmentation's ``MixVisionTransformer`` as NVlabs trained it.

    The official network normalizes with an epsilon of 1e-5 in the patch embeddings and after the
    reduction of keys and values, and with 1e-6 elsewhere; MMSegmentation's has one value for all. Where
    activations are faint this changes the result. From scratch, what is a linear layer there starts as one
    (truncated normal of 0.02), also where MMSegmentation writes it as a 1x1 convolution or leaves it to
    PyTorch. Attention goes through PyTorch's fused kernels, which do not keep the maps of weights. Arguments
    and state dict are the parent's.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, PatchEmbed) or (
                isinstance(module, EfficientMultiheadAttention) and module.sr_ratio > 1
            ):
                module.norm.eps = _EMBEDDING_EPS
            elif isinstance(module, nn.MultiheadAttention):
                module.__class__ = _FusedAttention

    def init_weights(self) -> None:
        """Initialize as NVlabs, or load the weights that ``init_cfg`` names."""
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
