"""Trained segmentors as ONNX and TorchScript files that need neither PyTorch code nor this package."""

from .checks import Comparison, compare, describe_complexity, read_image
from .files import OPSET, TOLERANCE, Exported, export_model, largest_difference, open_file
from .segmentor import PRECISIONS, DeployedSegmentor
from .tracing import traceable

__all__ = [
    'OPSET',
    'PRECISIONS',
    'TOLERANCE',
    'Comparison',
    'DeployedSegmentor',
    'Exported',
    'compare',
    'describe_complexity',
    'export_model',
    'largest_difference',
    'open_file',
    'read_image',
    'traceable',
]
