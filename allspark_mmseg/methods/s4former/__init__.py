"""S4Former (CVPR 2024)."""

from .segmentor import S4Former

__all__ = ['S4Former']
