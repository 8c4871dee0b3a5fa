"""Hooks, loops, schedulers, mixed precision, launch preparation and checkpoints."""

from .checkpoint import AtomicLocalBackend, find_last_checkpoint, load_checkpoint_file, use_safe_loading
from .hooks import (
    ChannelsLastHook,
    ClassStatisticsHook,
    ClassWeightHook,
    CompileBackboneHook,
    ExactResumeHook,
    MeanTeacherHook,
    NonFiniteLossHook,
    PseudoLabelQualityHook,
    PseudoLabelVisualizationHook,
    SafeCheckpointHook,
    StartupCheckHook,
    StopSignalHook,
    SyncBNStatsHook,
    UnreadableImagesHook,
    WarmStartHook,
)
from .label_quality import PseudoLabelQuality
from .loops import PhaseTrainLoop, ResumableEpochLoop, TeacherStudentValLoop
from .optim import BFloat16OptimWrapper
from .schedulers import PostStepPolyLR
from .sharding import ShardedStrategy
from .startup import default_work_dir, end_process_group, prepare_launch
from .work_dir_lock import lock_work_dir

__all__ = [
    'AtomicLocalBackend',
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'ClassStatisticsHook',
    'ClassWeightHook',
    'CompileBackboneHook',
    'ExactResumeHook',
    'MeanTeacherHook',
    'NonFiniteLossHook',
    'PhaseTrainLoop',
    'PostStepPolyLR',
    'PseudoLabelQuality',
    'PseudoLabelQualityHook',
    'PseudoLabelVisualizationHook',
    'ResumableEpochLoop',
    'SafeCheckpointHook',
    'ShardedStrategy',
    'StartupCheckHook',
    'StopSignalHook',
    'SyncBNStatsHook',
    'TeacherStudentValLoop',
    'UnreadableImagesHook',
    'WarmStartHook',
    'default_work_dir',
    'end_process_group',
    'find_last_checkpoint',
    'load_checkpoint_file',
    'lock_work_dir',
    'prepare_launch',
    'use_safe_loading',
]
