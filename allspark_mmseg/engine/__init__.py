"""Hooks, loops, schedulers, mixed precision, launch preparation and checkpoints."""

from .checkpoint import AtomicLocalBackend, load_checkpoint_file, use_safe_loading
from .hooks import (
    ChannelsLastHook,
    ClassStatisticsHook,
    ClassWeightHook,
    CompileBackboneHook,
    ExactResumeHook,
    MeanTeacherHook,
    PseudoLabelQualityHook,
    PseudoLabelVisualizationHook,
    StartupCheckHook,
    StopSignalHook,
    SyncBNStatsHook,
    WarmStartHook,
)
from .label_quality import PseudoLabelQuality
from .loops import PhaseTrainLoop, ResumableEpochLoop, TeacherStudentValLoop
from .optim import BFloat16OptimWrapper
from .schedulers import PostStepPolyLR
from .sharding import ShardedStrategy
from .startup import default_work_dir, prepare_launch

__all__ = [
    'AtomicLocalBackend',
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'ClassStatisticsHook',
    'ClassWeightHook',
    'CompileBackboneHook',
    'ExactResumeHook',
    'MeanTeacherHook',
    'PhaseTrainLoop',
    'PostStepPolyLR',
    'PseudoLabelQuality',
    'PseudoLabelQualityHook',
    'PseudoLabelVisualizationHook',
    'ResumableEpochLoop',
    'ShardedStrategy',
    'StartupCheckHook',
    'StopSignalHook',
    'SyncBNStatsHook',
    'TeacherStudentValLoop',
    'WarmStartHook',
    'default_work_dir',
    'load_checkpoint_file',
    'prepare_launch',
    'use_safe_loading',
]
