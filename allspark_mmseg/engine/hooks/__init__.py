"""Hooks of the training loop."""

from .channels_last import ChannelsLastHook
from .class_statistics import ClassStatisticsHook
from .class_weights import ClassWeightHook
from .compile_backbone import CompileBackboneHook
from .mean_teacher import MeanTeacherHook
from .pseudo_label_quality import PseudoLabelQualityHook
from .pseudo_label_visualization import PseudoLabelVisualizationHook
from .startup_check import StartupCheckHook
from .sync_bn_stats import SyncBNStatsHook
from .warm_start import WarmStartHook

__all__ = [
    'ChannelsLastHook',
    'ClassStatisticsHook',
    'ClassWeightHook',
    'CompileBackboneHook',
    'MeanTeacherHook',
    'PseudoLabelQualityHook',
    'PseudoLabelVisualizationHook',
    'StartupCheckHook',
    'SyncBNStatsHook',
    'WarmStartHook',
]
