"""The semi-supervised methods, one file or folder each."""

from .allspark import AllSpark, AllSparkBottleneck, AllSparkHead, SemanticMemory
from .encoder_decoder import EncoderDecoder
from .self_training import SelfTraining
from .semi_segmentor import SemiSegmentor

__all__ = [
    'AllSpark',
    'AllSparkBottleneck',
    'AllSparkHead',
    'EncoderDecoder',
    'SelfTraining',
    'SemanticMemory',
    'SemiSegmentor',
]
