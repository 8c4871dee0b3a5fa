"""Build step that places configs, tools and the model index where MIM and MMEngine look for them.

All metadata is in pyproject.toml.
"""

import shutil
from collections import Counter
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
RESOURCES = ['configs', 'tools', 'model-index.yml']
IGNORED = shutil.ignore_patterns('__pycache__')


class BuildWithResources(build_py):
    """Adds ``.mim`` to the package: copies in a wheel, links in an editable install."""

    def run(self) -> None:
        """Build the package, then add the resources."""
        super().run()
        if self.editable_mode:
            link_resources(ROOT / 'allspark_mmseg' / '.mim')
            return
        for package in ('allspark_mmseg', 'allspark_mim'):
            copy_resources(Path(self.build_lib) / package / '.mim')


def link_resources(target: Path) -> None:
    """Make ``target``, which git ignores, a folder of links to the resources."""
    target.mkdir(exist_ok=True)
    for name in RESOURCES:
        link = target / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path('..', '..', name))


def copy_resources(target: Path) -> None:
    """Copy the resources to ``target``, and give each config a name that is unique within the package."""
    shutil.rmtree(target, ignore_errors=True)
    for name in RESOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=IGNORED)
        else:
            shutil.copy2(source, target / name)
    add_aliases(target / 'configs')


def add_aliases(configs: Path) -> None:
    """Add METHOD_NAME.py, which inherits NAME.py, where several methods have a config NAME.py.

    MIM searches a config by its base name and refuses a name that it finds twice.
    """
    paths = sorted(configs.rglob('*.py'))
    counts = Counter(path.name for path in paths)
    for path in paths:
        method = path.parent.name
        if counts[path.name] > 1 and path.parent.parent == configs:
            path.with_name(f'{method}_{path.name}').write_text(f"_base_ = './{path.name}'\n")


setup(cmdclass={'build_py': BuildWithResources})
