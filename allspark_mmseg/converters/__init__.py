"""Conversion of state dicts of other projects to the names of this project."""

from .allspark import allspark_to_mmseg, convert_official, mmseg_to_allspark
from .mit import convert_imagenet, mit_to_mmseg
from .unimatch import convert_unimatch, convert_unimatch_imagenet
from .unimatch_v2 import convert_dinov2, convert_unimatch_v2

__all__ = [
    'allspark_to_mmseg',
    'convert_dinov2',
    'convert_imagenet',
    'convert_official',
    'convert_unimatch',
    'convert_unimatch_imagenet',
    'convert_unimatch_v2',
    'mit_to_mmseg',
    'mmseg_to_allspark',
]
