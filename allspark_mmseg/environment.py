"""A readable check of the OpenMMLab packages, which two sets of distributions provide."""

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

# import name -> (fork's distribution, oldest version), (upstream's distribution, oldest version)
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
    """Versions of the installed OpenMMLab distributions.

    Returns:
        dict: stack name (``onedl``, ``openmmlab``) -> {distribution: version}; a stack without any
        installed distribution has an empty dict.
    """
    found = {stack: {} for stack in _STACKS}
    for choices in _DISTRIBUTIONS.values():
        for stack, (distribution, _) in zip(_STACKS, choices, strict=True):
            if (installed := _installed(distribution)) is not None:
                found[stack][distribution] = installed
    return found


def check_environment() -> None:
    """Check that one complete, recent enough set of OpenMMLab distributions is installed.

    Raises:
        RuntimeError: packages are missing, too old, or mixed from both sets. (Not an ImportError, which
            MMEngine would swallow when it imports the package on behalf of a config.)
    """
    found = installed_stack()
    if all(found.values()):
        named = ', '.join(f'{name} {number}' for stack in found.values() for name, number in stack.items())
        raise RuntimeError(
            f'allspark_mmseg found the OneDL forks mixed with the original OpenMMLab packages ({named}), '
            f'which overwrite each other; {_INSTALL}.'
        )
    which = 0 if found['onedl'] else 1
    for name, choices in _DISTRIBUTIONS.items():
        distribution, oldest = choices[which]
        installed = found[_STACKS[which]].get(distribution)
        if installed is None:
            raise RuntimeError(
                f'allspark_mmseg needs {name} ({distribution} >= {oldest}), not found; {_INSTALL}.'
            )
        if Version(installed) < Version(oldest):
            raise RuntimeError(
                f'allspark_mmseg needs {distribution} >= {oldest}, found {installed}; {_INSTALL}.'
            )
