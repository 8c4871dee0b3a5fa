"""SegFormer's backbone with the layer-norm epsilons of its official weights."""

from mmseg.models.backbones.mit import EfficientMultiheadAttention
from mmseg.models.backbones.mit import MixVisionTransformer as _MixVisionTransformer
from mmseg.models.utils import PatchEmbed

from ..registry import MODELS

_EMBEDDING_EPS = 1e-5


@MODELS.register_module()
class MixVisionTransformer(_MixVisionTransformer):
    """MMSegmentation's ``MixVisionTransformer`` as NVlabs trained it.

    The official network normalises with an epsilon of 1e-5 in the patch embeddings and after the
    reduction of keys and values, and with 1e-6 elsewhere; MMSegmentation's has one value for all. Where
    activations are faint this changes the result. Arguments and state dict are the parent's.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, PatchEmbed) or (
                isinstance(module, EfficientMultiheadAttention) and module.sr_ratio > 1
            ):
                module.norm.eps = _EMBEDDING_EPS
