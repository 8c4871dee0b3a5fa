"""AllSpark (CVPR 2024)."""

from .bottleneck import AllSparkBottleneck, group_channels
from .head import AllSparkHead
from .segmentor import AllSpark
from .semantic_memory import SemanticMemory

__all__ = ['AllSpark', 'AllSparkBottleneck', 'AllSparkHead', 'SemanticMemory', 'group_channels']
