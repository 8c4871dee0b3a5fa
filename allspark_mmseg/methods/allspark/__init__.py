"""AllSpark (CVPR 2024)."""

from .bottleneck import AllSparkBottleneck, group_channels
from .head import AllSparkHead
from .memory_warm_up_hook import MemoryWarmUpHook
from .segmentor import AllSpark
from .semantic_memory import SemanticMemory

__all__ = [
    'AllSpark',
    'AllSparkBottleneck',
    'AllSparkHead',
    'MemoryWarmUpHook',
    'SemanticMemory',
    'group_channels',
]
