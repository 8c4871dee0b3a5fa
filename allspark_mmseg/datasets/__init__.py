"""Data sets, the dual-stream sampler, multi-view transforms and augmentations."""

from .image_list import ImageListDataset
from .list_lines import format_list_line, parse_list_line
from .multi_view import MultiView, MultiViewSegDataPreProcessor, TwoCrops
from .samplers import DualStreamSampler, LabeledStreamSampler
from .semi_dataset import SemiDataset
from .shards import TarBackend
from .transforms import (
    ColorJitter,
    GaussianBlur,
    LoadEmptyAnnotations,
    RandomGrayscale,
    RandomResizeLongSide,
    RandomScaleCropFlip,
    RareClassCrop,
    ScaleIntensity,
)

__all__ = [
    'ColorJitter',
    'DualStreamSampler',
    'GaussianBlur',
    'ImageListDataset',
    'LabeledStreamSampler',
    'LoadEmptyAnnotations',
    'MultiView',
    'MultiViewSegDataPreProcessor',
    'RandomGrayscale',
    'RandomResizeLongSide',
    'RandomScaleCropFlip',
    'RareClassCrop',
    'ScaleIntensity',
    'SemiDataset',
    'TarBackend',
    'TwoCrops',
    'format_list_line',
    'parse_list_line',
]
