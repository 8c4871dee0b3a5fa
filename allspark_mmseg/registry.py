"""Child registries of MMEngine's root registries with the scope ``allspark_mmseg``.

Configs name classes as ``allspark_mmseg.X``. MMEngine then imports this module and the ``locations`` below,
so configs need no ``custom_imports`` and run under MMSegmentation's own launchers.

This module must import only MMEngine, because MMEngine hides an ImportError of this module.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

SCOPE = 'allspark_mmseg'


def _child_registry(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=list(locations))


MODELS = _child_registry(
    MMENGINE_MODELS,
    'allspark_mmseg.methods',
    'allspark_mmseg.segmentors',
    'allspark_mmseg.heads',
    'allspark_mmseg.losses',
    'allspark_mmseg.backbones',
    'allspark_mmseg.datasets',
)
DATASETS = _child_registry(MMENGINE_DATASETS, 'allspark_mmseg.datasets')
DATA_SAMPLERS = _child_registry(MMENGINE_DATA_SAMPLERS, 'allspark_mmseg.datasets')
TRANSFORMS = _child_registry(MMENGINE_TRANSFORMS, 'allspark_mmseg.datasets')
HOOKS = _child_registry(MMENGINE_HOOKS, 'allspark_mmseg.engine', 'allspark_mmseg.methods')
LOOPS = _child_registry(MMENGINE_LOOPS, 'allspark_mmseg.engine')
OPTIM_WRAPPERS = _child_registry(MMENGINE_OPTIM_WRAPPERS, 'allspark_mmseg.engine')
PARAM_SCHEDULERS = _child_registry(MMENGINE_PARAM_SCHEDULERS, 'allspark_mmseg.engine')
STRATEGIES = _child_registry(MMENGINE_STRATEGIES, 'allspark_mmseg.engine')
