"""The example of CONTRIBUTING.md fulfills the contract of a method, and its config works."""

import re
import sys
from pathlib import Path
from types import ModuleType

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
METHOD, TEST, CONFIG = re.findall(r'```python\n(.*?)```', (ROOT / 'CONTRIBUTING.md').read_text(), re.DOTALL)


def load_module(name: str, source: str) -> ModuleType:
    """Make a module from its source, as if the file of this name existed."""
    module = sys.modules[name] = ModuleType(name)
    module.__package__ = name.rpartition('.')[0]
    exec(compile(source, f'CONTRIBUTING.md: {name}', 'exec'), module.__dict__)
    return module


method = load_module('allspark_mmseg.methods.confidence_weighting', METHOD)
TestConfidenceWeighting = load_module(
    'tests.test_methods.test_confidence_weighting', TEST
).TestConfidenceWeighting


def test_config(tmp_path):
    path = tmp_path / 'camvid_1over8.py'
    path.write_text(CONFIG.replace("'../_base_", f"'{ROOT}/configs/_base_"))
    config = Config.fromfile(path)
    assert config.model.type == f'allspark_mmseg.{method.ConfidenceWeighting.__name__}'
    assert config.model.segmentor.data_preprocessor.size == config.crop_size
