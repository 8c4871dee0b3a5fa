"""Importing the package checks the installed OpenMMLab packages and prints nothing if they are complete."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from allspark_mmseg import environment

from .helpers.configs import ROOT

FORKS = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmsegmentation': '1.4.2',
    'onedl-mmpretrain': '1.3.6',
}
UPSTREAM = {'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmsegmentation': '1.2.2', 'mmpretrain': '1.2.0'}


@pytest.fixture
def install(monkeypatch):
    """Simulate an environment in which exactly the given distributions are installed."""

    def simulate(distributions: dict) -> None:
        def version(name: str) -> str:
            if name not in distributions:
                raise PackageNotFoundError(name)
            return distributions[name]

        monkeypatch.setattr(environment, 'version', version)

    return simulate


@pytest.mark.parametrize('complete', [FORKS, UPSTREAM, {**FORKS, 'onedl-mmcv': '3.0.0'}])
def test_a_complete_stack_is_accepted(install, complete):
    install(complete)
    environment.check_environment()


@pytest.mark.parametrize(
    'distributions, message',
    [
        ({}, r'needs mmengine \(mmengine >= 0\.10\.7\), not found; install one set .*\[onedl\]'),
        (
            {k: v for k, v in FORKS.items() if 'mmcv' not in k},
            r'needs mmcv \(onedl-mmcv >= 2\.3\.6\), not found',
        ),
        ({**FORKS, 'onedl-mmsegmentation': '1.4.1'}, r'needs onedl-mmsegmentation >= 1\.4\.2, found 1\.4\.1'),
        ({**UPSTREAM, 'mmengine': '0.9.1'}, r'needs mmengine >= 0\.10\.7, found 0\.9\.1'),
        ({**FORKS, 'mmcv': '2.1.0'}, r'mixed .*onedl-mmcv 2\.3\.6.*mmcv 2\.1\.0.*overwrite each other'),
    ],
)
def test_incomplete_environment_is_reported_in_one_line(install, distributions, message):
    install(distributions)
    with pytest.raises(RuntimeError, match=message) as caught:
        environment.check_environment()
    assert '\n' not in str(caught.value)


def test_a_config_needs_no_custom_imports_and_the_import_prints_nothing():
    """MMEngine imports the package because of the scope in ``type``."""
    code = (
        'from mmengine.registry import init_default_scope; init_default_scope("mmseg");'
        'from mmseg.registry import MODELS;'
        'head = dict(type="allspark_mmseg.AllMLPHead", in_channels=[4, 8], channels=4, num_classes=3);'
        'head = MODELS.build(head);'
        'import allspark_mmseg.registry as r; assert "AllSpark" in r.MODELS.module_dict;'
        'print(type(head).__name__)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == 'AllMLPHead\n'
    assert 'allspark_mmseg' not in done.stderr  # MMSegmentation warns of its own parts
