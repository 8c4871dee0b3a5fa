"""Hooks of the training loop."""

from .channels_last import ChannelsLastHook
from .class_statistics import ClassStatisticsHook
from .class_weights import ClassWeightHook
from .compile_backbone import CompileBackboneHook
from .exact_resume import ExactResumeHook
from .mean_teacher import MeanTeacherHook
from .non_finite_loss import NonFiniteLossHook
from .pseudo_label_quality import PseudoLabelQualityHook
from .pseudo_label_visualization import PseudoLabelVisualizationHook
from .safe_checkpoint import SafeCheckpointHook
from .startup_check import StartupCheckHook
from .stop_signal import StopSignalHook
from .sync_bn_stats import SyncBNStatsHook
from .unreadable_images import UnreadableImagesHook
from .warm_start import WarmStartHook

__all__ = [
    'ChannelsLastHook',
    'ClassStatisticsHook',
    'ClassWeightHook',
    'CompileBackboneHook',
    'ExactResumeHook',
    'MeanTeacherHook',
    'NonFiniteLossHook',
    'PseudoLabelQualityHook',
    'PseudoLabelVisualizationHook',
    'SafeCheckpointHook',
    'StartupCheckHook',
    'StopSignalHook',
    'SyncBNStatsHook',
    'UnreadableImagesHook',
    'WarmStartHook',
]
