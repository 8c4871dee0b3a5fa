"""Decode heads that are not in MMSegmentation or differ from its versions."""

from .all_mlp_head import AllMLPHead
from .deeplabv3plus_head import DeepLabV3PlusHead
from .dpt_head import DINOv2DPTHead
from .representation_head import RepresentationHead

__all__ = ['AllMLPHead', 'DINOv2DPTHead', 'DeepLabV3PlusHead', 'RepresentationHead']
