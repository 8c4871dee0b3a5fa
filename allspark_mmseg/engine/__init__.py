"""Training machinery: hooks, schedules, mixed precision, start-up, checkpoints."""

from .checkpoint import AtomicLocalBackend, load_checkpoint_file, use_safe_loading
from .hooks import (
    ClassStatisticsHook,
    CompileBackboneHook,
    MemoryWarmUpHook,
    PseudoLabelPicturesHook,
    StartupCheckHook,
    SyncNormStatisticsHook,
    TeacherHook,
)
from .loops import StudentTeacherValLoop
from .optim import BFloat16OptimWrapper
from .schedulers import LaggedPolyLR
from .startup import default_work_dir, prepare_launch

__all__ = [
    'AtomicLocalBackend',
    'BFloat16OptimWrapper',
    'ClassStatisticsHook',
    'CompileBackboneHook',
    'LaggedPolyLR',
    'MemoryWarmUpHook',
    'PseudoLabelPicturesHook',
    'StartupCheckHook',
    'StudentTeacherValLoop',
    'SyncNormStatisticsHook',
    'TeacherHook',
    'default_work_dir',
    'load_checkpoint_file',
    'prepare_launch',
    'use_safe_loading',
]
