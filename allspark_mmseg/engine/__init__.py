"""Training machinery: hooks, schedules, mixed precision, start-up, checkpoints."""

from .checkpoint import AtomicLocalBackend, load_checkpoint_file, use_safe_loading
from .hooks import (
    ClassStatisticsHook,
    MemoryWarmUpHook,
    PseudoLabelPicturesHook,
    StartupCheckHook,
    SyncNormStatisticsHook,
)
from .optim import BFloat16OptimWrapper
from .schedulers import LaggedPolyLR
from .startup import prepare_launch

__all__ = [
    'AtomicLocalBackend',
    'BFloat16OptimWrapper',
    'ClassStatisticsHook',
    'LaggedPolyLR',
    'MemoryWarmUpHook',
    'PseudoLabelPicturesHook',
    'StartupCheckHook',
    'SyncNormStatisticsHook',
    'load_checkpoint_file',
    'prepare_launch',
    'use_safe_loading',
]
