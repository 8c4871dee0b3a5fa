"""The semi-supervised methods, one file or folder each."""

from .allspark import AllSpark, AllSparkBottleneck, AllSparkHead, MemoryWarmUpHook, SemanticMemory
from .css import CSSBaseline, CSSCross, CSSMix
from .fixmatch import FixMatch
from .mean_teacher import MeanTeacher
from .s4former import S4Former
from .self_training import SelfTraining
from .semi_segmentor import SemiSegmentor
from .unimatch import UniMatch
from .unimatch_v2 import UniMatchV2

__all__ = [
    'AllSpark',
    'AllSparkBottleneck',
    'AllSparkHead',
    'CSSBaseline',
    'CSSCross',
    'CSSMix',
    'FixMatch',
    'MeanTeacher',
    'MemoryWarmUpHook',
    'S4Former',
    'SelfTraining',
    'SemanticMemory',
    'SemiSegmentor',
    'UniMatch',
    'UniMatchV2',
]
