"""Hooks, loops, schedulers, mixed precision, launch preparation and checkpoints."""

from .checkpoint import AtomicLocalBackend, load_checkpoint_file, use_safe_loading
from .hooks import (
    ClassStatisticsHook,
    CompileBackboneHook,
    MeanTeacherHook,
    PseudoLabelVisualizationHook,
    StartupCheckHook,
    SyncBNStatsHook,
)
from .loops import TeacherStudentValLoop
from .optim import BFloat16OptimWrapper
from .schedulers import PostStepPolyLR
from .startup import default_work_dir, prepare_launch

__all__ = [
    'AtomicLocalBackend',
    'BFloat16OptimWrapper',
    'ClassStatisticsHook',
    'CompileBackboneHook',
    'MeanTeacherHook',
    'PostStepPolyLR',
    'PseudoLabelVisualizationHook',
    'StartupCheckHook',
    'SyncBNStatsHook',
    'TeacherStudentValLoop',
    'default_work_dir',
    'load_checkpoint_file',
    'prepare_launch',
    'use_safe_loading',
]
