"""Version check of the OpenMMLab packages.

Two sets of distributions provide these packages: the originals (``openmmlab``) and the OneDL forks
(``onedl``).
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

# import name -> (distribution of the fork, minimum version), (original distribution, minimum version)
_DISTRIBUTIONS = {
    'mmengine': (('onedl-mmengine', '0.10.12'), ('mmengine', '0.10.7')),
    'mmcv': (('onedl-mmcv', '2.3.6'), ('mmcv', '2.1.0')),
    'mmseg': (('onedl-mmsegmentation', '1.4.2'), ('mmsegmentation', '1.2.2')),
    'mmpretrain': (('onedl-mmpretrain', '1.3.6'), ('mmpretrain', '1.2.0')),
}
_STACKS = ('onedl', 'openmmlab')
_INSTALL = 'install one set in a fresh environment: pip install -e ".[onedl]" (or .[openmmlab])'


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def installed_stack() -> dict[str, dict[str, str]]:
    """Look up the versions of the installed OpenMMLab distributions.

    Returns:
        dict[str, dict[str, str]]: ``{stack: {distribution: version}}`` for the stacks ``onedl`` and
        ``openmmlab``. A stack without installed distributions has an empty dict.
    """
    stacks: dict[str, dict[str, str]] = {stack: {} for stack in _STACKS}
    for choices in _DISTRIBUTIONS.values():
        for stack, (distribution, _) in zip(_STACKS, choices, strict=True):
            if (installed := _installed(distribution)) is not None:
                stacks[stack][distribution] = installed
    return stacks


def check_environment() -> None:
    """Check that one complete set of OpenMMLab distributions with supported versions is installed.

    Raises:
        RuntimeError: A package is missing or too old, or both sets are mixed. This is not an ImportError
            because MMEngine swallows ImportErrors when it imports the package for a config.
    """
    stacks = installed_stack()
    if all(stacks.values()):
        versions = ', '.join(
            f'{name} {number}' for stack in stacks.values() for name, number in stack.items()
        )
        raise RuntimeError(
            f'allspark_mmseg: OneDL forks are mixed with original OpenMMLab packages ({versions}). They '
            f'overwrite each other; {_INSTALL}.'
        )
    choice = 0 if stacks['onedl'] else 1
    for name, choices in _DISTRIBUTIONS.items():
        distribution, minimum = choices[choice]
        installed = stacks[_STACKS[choice]].get(distribution)
        if installed is None:
            raise RuntimeError(
                f'allspark_mmseg needs {name} ({distribution} >= {minimum}), not found; {_INSTALL}.'
            )
        if Version(installed) < Version(minimum):
            raise RuntimeError(
                f'allspark_mmseg needs {distribution} >= {minimum}, found {installed}; {_INSTALL}.'
            )


def find_configs() -> str:
    """Find the folder of the shipped configs.

    Returns:
        str: ``.mim/configs`` of the installed package, which is a link in an editable install; or
        ``configs`` of a checkout that is not installed.
    """
    package = Path(__file__).resolve().parent
    installed = package / '.mim' / 'configs'
    return str(installed if installed.is_dir() else package.parent / 'configs')
