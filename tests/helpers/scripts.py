"""Loads scripts below tools/, which are not part of the package."""

import importlib.util
from types import ModuleType

from .configs import ROOT

CONVERTERS = ROOT / 'tools' / 'model_converters'


def load_converter(name: str) -> ModuleType:
    """Import ``tools/model_converters/<name>.py``."""
    spec = importlib.util.spec_from_file_location(name, CONVERTERS / f'{name}.py')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
