"""S4Former: the method and its three components."""

from .segmentor import S4Former

__all__ = ['S4Former']
