"""Decode heads that several methods use."""

from .all_mlp_head import AllMLPHead

__all__ = ['AllMLPHead']
