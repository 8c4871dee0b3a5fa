"""Hooks of the training loop."""

from .class_statistics import ClassStatisticsHook
from .compile_backbone import CompileBackboneHook
from .memory_warm_up import MemoryWarmUpHook
from .pseudo_label_pictures import PseudoLabelPicturesHook
from .startup_check import StartupCheckHook
from .sync_norm_statistics import SyncNormStatisticsHook
from .teacher import TeacherHook

__all__ = [
    'ClassStatisticsHook',
    'CompileBackboneHook',
    'MemoryWarmUpHook',
    'PseudoLabelPicturesHook',
    'StartupCheckHook',
    'SyncNormStatisticsHook',
    'TeacherHook',
]
