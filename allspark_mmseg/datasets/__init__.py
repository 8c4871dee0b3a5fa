"""Data layer: split lists, the sampler of two streams, named views and the colour augmentation."""

from .samplers import DualStreamSampler
from .split_list import SplitListDataset
from .transforms import (
    BlankSegMap,
    ColorJitter,
    GaussianBlur,
    RandomGrayscale,
    RandomResizeLongSide,
    RandomScaleCropFlip,
)
from .views import SemiSegDataPreProcessor, Twice, Views

__all__ = [
    'BlankSegMap',
    'ColorJitter',
    'DualStreamSampler',
    'GaussianBlur',
    'RandomGrayscale',
    'RandomResizeLongSide',
    'RandomScaleCropFlip',
    'SemiSegDataPreProcessor',
    'SplitListDataset',
    'Twice',
    'Views',
]
