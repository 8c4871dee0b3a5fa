"""State dicts of other projects in this one's names."""

from .allspark import allspark_to_mmseg, convert_official, mmseg_to_allspark
from .mit import convert_imagenet, mit_to_mmseg

__all__ = [
    'allspark_to_mmseg',
    'convert_imagenet',
    'convert_official',
    'mit_to_mmseg',
    'mmseg_to_allspark',
]
