"""Losses that are not in MMSegmentation or differ from its versions."""

from .cross_entropy import CrossEntropyLoss, balanced_weights
from .ohem import OHEMCrossEntropyLoss

__all__ = ['CrossEntropyLoss', 'OHEMCrossEntropyLoss', 'balanced_weights']
