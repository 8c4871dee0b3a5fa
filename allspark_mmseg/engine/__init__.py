"""Training machinery: hooks, start-up, checkpoints."""

from .checkpoint import AtomicLocalBackend, load_checkpoint_file, use_safe_loading
from .hooks import (
    ClassStatisticsHook,
    MemoryWarmUpHook,
    PseudoLabelPicturesHook,
    StartupCheckHook,
    SyncNormStatisticsHook,
)
from .schedulers import LaggedPolyLR
from .startup import prepare_launch

__all__ = [
    'AtomicLocalBackend',
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
