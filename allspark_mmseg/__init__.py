"""Semi-supervised semantic segmentation for MMSegmentation 1.x.

Importing the package registers its modules under the scope ``allspark_mmseg`` and prints nothing.
"""

import contextlib
import io
import warnings

from .environment import check_environment, find_configs

__version__ = '0.1.0'

check_environment()

# MMEngine imports this package when a config names one of its modules. It swallows an ImportError and reports
# "not in the registry" instead, so the error must have another type.
try:
    # MMSegmentation prints which optional packages are missing. MMCV warns about missing compiled operators.
    # This package needs neither.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
        from . import backbones, datasets, engine, heads, losses, methods, segmentors
except ImportError as error:
    raise RuntimeError(f'allspark_mmseg could not import one of its modules: {error}') from error

CONFIGS = find_configs()  # the folder of the shipped configs; a config elsewhere names its base with it
__all__ = [
    'CONFIGS',
    '__version__',
    'backbones',
    'datasets',
    'engine',
    'heads',
    'losses',
    'methods',
    'segmentors',
]
