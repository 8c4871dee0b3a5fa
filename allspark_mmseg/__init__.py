"""Semi-supervised semantic segmentation for MMSegmentation 1.x.

Importing the package registers its parts (scope ``allspark_mmseg``) and prints nothing.
"""

import contextlib
import io
import warnings

from .environment import check_environment

check_environment()

# An ImportError must not leave this module: MMEngine, which imports the package by itself when a config
# names one of its parts, would swallow it and report "not in the registry" instead.
try:
    # MMSegmentation prints which optional packages it lacks, and MMCV warns that its compiled operators are
    # missing; nothing here needs either
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
        from . import backbones, datasets, engine, heads, losses, methods, segmentors
except ImportError as error:
    raise RuntimeError(f'allspark_mmseg could not import one of its parts: {error}') from error

__version__ = '0.1.0'
__all__ = ['__version__', 'backbones', 'datasets', 'engine', 'heads', 'losses', 'methods', 'segmentors']
