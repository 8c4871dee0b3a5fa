"""The source distribution, the wheel built from it, and the files in which MIM looks."""

import subprocess
import sys
import tarfile
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

import allspark_mmseg

ROOT = Path(__file__).resolve().parents[1]
METAFILES = sorted((ROOT / 'configs').glob('*/metafile.yml'))
BUILD_SDIST = 'import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))'


@pytest.fixture(scope='module')
def site_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, build the wheel from it, install the wheel into a folder of its own."""
    folder = tmp_path_factory.mktemp('packaging')

    def pip(*arguments: str | Path) -> None:
        command = [sys.executable, '-m', 'pip', *map(str, arguments), '--quiet', '--no-deps']
        subprocess.run(command, check=True, cwd=folder)

    build = [sys.executable, '-c', BUILD_SDIST, str(folder)]
    # setuptools writes to the source tree, and other workers of pytest-xdist can build at the same time
    with FileLock(tmp_path_factory.getbasetemp().parent / 'build_sdist.lock'):
        done = subprocess.run(build, check=True, cwd=ROOT, capture_output=True, text=True)
    sdist = done.stdout.split()[-1]
    with tarfile.open(folder / sdist) as archive:
        archive.extractall(folder, filter='data')
    pip('wheel', folder / sdist.removesuffix('.tar.gz'), '--no-build-isolation', '--wheel-dir', folder)
    pip('install', *folder.glob('*.whl'), '--no-compile', '--target', folder / 'site-packages')
    return folder / 'site-packages'


@pytest.fixture(scope='module')
def distribution(site_packages: Path) -> Distribution:
    (info,) = site_packages.glob('*.dist-info')
    return PathDistribution(info)


def onedl_mim_folder(distribution: Distribution) -> Path:
    """Return the folder that onedl-mim takes for the package: that of the first file in RECORD."""
    files = distribution.files or []
    return Path(str(distribution.locate_file(files[0].parts[0])))


def openmim_folder(distribution: Distribution) -> Path:
    """Return the folder that openmim takes for the package: that of the distribution's name."""
    return Path(str(distribution.locate_file('allspark_mmseg')))


MIM_FOLDERS = pytest.mark.parametrize('mim_folder', [onedl_mim_folder, openmim_folder])


def test_wheel_has_the_package_and_nothing_else(site_packages, distribution):
    assert {path.parts[0] for path in distribution.files or []} == {
        'allspark_mim',
        'allspark_mmseg',
        f'allspark_mmseg-{allspark_mmseg.__version__}.dist-info',
    }
    package = ROOT / 'allspark_mmseg'
    sources = [path for kind in ('py', 'css', 'j2', 'js') for path in package.rglob(f'[!.]*.{kind}')]
    assert all((site_packages / path.relative_to(ROOT)).is_file() for path in sources)
    assert (distribution.read_text('top_level.txt') or '').split() == ['allspark_mmseg']


def test_metadata_is_complete(distribution):
    metadata = distribution.metadata
    assert metadata['Name'] == 'allspark-mmseg'
    assert metadata['Version'] == allspark_mmseg.__version__
    assert metadata['License-Expression'] == 'Apache-2.0'
    assert metadata['Requires-Python'] == '>=3.10'
    assert metadata['Summary'] and metadata['Keywords']
    assert '# allspark_mmseg' in metadata.get_payload()
    extras = set(metadata.get_all('Provides-Extra'))
    assert extras == {
        'coco',
        'demo',
        'dev',
        'docs',
        'export',
        'hub',
        'new',
        'onedl',
        'openmmlab',
        'shards',
        'tests',
    }
    for field in ('Classifier', 'License-File', 'Project-URL', 'Requires-Dist'):
        assert metadata.get_all(field), field


@MIM_FOLDERS
def test_mim_finds_every_file(distribution, mim_folder):
    resources = mim_folder(distribution) / '.mim'
    for name in ('configs', 'tools', 'model-index.yml'):
        for source in [ROOT / name, *(ROOT / name).rglob('*')]:
            if '__pycache__' not in source.parts:
                copy = resources / source.relative_to(ROOT)
                assert copy.exists(), copy
                assert copy.is_dir() or copy.read_bytes() == source.read_bytes(), copy


@MIM_FOLDERS
def test_mim_finds_every_config_under_one_name(distribution, mim_folder):
    folder = mim_folder(distribution)
    for config in (ROOT / 'configs').glob('[!_]*/*.py'):
        names = (config.name, f'{config.parent.name}_{config.name}')
        assert 1 in [len(list(folder.rglob(name))) for name in names], config


def test_mim_search_reads_the_model_index():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert [ROOT / path for path in index['Import']] == METAFILES
    models = [model for path in METAFILES for model in yaml.safe_load(path.read_text())['Models']]
    names = [model['Name'] for model in models]
    assert len(names) == len(set(names))
    # mim calls str.lower on the members of a list
    values = [value for model in models for value in model['Metadata'].values()]
    assert all(isinstance(value, str | int | float) for value in values)
