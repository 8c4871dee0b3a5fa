"""Backbones that are not in MMSegmentation or differ from its versions."""

from .dinov2 import DINOv2
from .efficientnet_lite import EfficientNetLite0
from .mit import MixVisionTransformer
from .transformers_backbone import TransformersBackbone
from .vit import VisionTransformer
from .xception import Xception65

__all__ = [
    'DINOv2',
    'EfficientNetLite0',
    'MixVisionTransformer',
    'TransformersBackbone',
    'VisionTransformer',
    'Xception65',
]
