"""Confidence thresholds of pseudo-labels: a number, FreeMatch, SoftMatch or class-balanced."""

from .base import ConfidenceThreshold, most_probable
from .build import build_threshold, check_threshold
from .class_balanced import ClassBalancedThreshold
from .freematch import FreeMatchThreshold
from .softmatch import SoftMatchThreshold

__all__ = [
    'ClassBalancedThreshold',
    'ConfidenceThreshold',
    'FreeMatchThreshold',
    'SoftMatchThreshold',
    'build_threshold',
    'check_threshold',
    'most_probable',
]
