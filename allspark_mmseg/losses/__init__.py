"""Losses that are not in MMSegmentation or differ from its versions."""

from .ohem import OHEMCrossEntropyLoss

__all__ = ['OHEMCrossEntropyLoss']
