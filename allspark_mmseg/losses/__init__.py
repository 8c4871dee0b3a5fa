"""Losses that MMSegmentation lacks."""

from .ohem import OHEMCrossEntropyLoss

__all__ = ['OHEMCrossEntropyLoss']
