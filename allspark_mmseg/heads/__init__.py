"""Decode heads that several methods use."""

from .all_mlp_head import AllMLPHead
from .deeplabv3plus_head import DeepLabV3PlusHead
from .dpt_head import DPTHead

__all__ = ['AllMLPHead', 'DPTHead', 'DeepLabV3PlusHead']
