"""State dicts of other projects in this one's names."""

from .allspark import allspark_to_mmseg
from .mit import mit_to_mmseg

__all__ = ['allspark_to_mmseg', 'mit_to_mmseg']
