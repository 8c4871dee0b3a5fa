"""Prediction of files: pipelines without masks, windows of large images, test-time augmentation."""

from .files import find_images, output_names
from .loading import ImageLoader, LoadedImage
from .output import OutputFolder
from .pipelines import find_test_pipeline
from .predictor import Prediction, Predictor
from .tta import find_tta, use_tta

__all__ = [
    'ImageLoader',
    'LoadedImage',
    'OutputFolder',
    'Prediction',
    'Predictor',
    'find_images',
    'find_test_pipeline',
    'find_tta',
    'output_names',
    'use_tta',
]
