"""Reading of a config and of ``--cfg-options``, with errors that name them."""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from mmengine.config import Config
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner

from ..engine.formatted_config import FormattedOnce

# keys that MMEngine, MMSegmentation or this package read from a config, beside the arguments of Runner
_OTHER_KEYS = (
    'auto_scale_lr',
    'data_preprocessor',
    'default_scope',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'strategy',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
)
_NEEDED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')


def read_config_file(path: str) -> Config:
    """Read a config.

    Args:
        path (str): The file.

    Returns:
        Config: The config. Its text is formatted once.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        read = Config.fromfile(path)  # of the class Config, also if called on another class
    except Exception as error:  # a config is a program
        raise ValueError(f'the config {path} cannot be read: {_in_one_line(error)}') from error
    cfg = FormattedOnce()
    cfg.__setstate__(read.__getstate__())
    return cfg


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Apply ``--cfg-options`` to a config, in place.

    Args:
        cfg (Config): The config.
        options (dict): The options, with keys such as ``'train_cfg.max_epochs'``.

    Raises:
        ValueError: A key is unknown, or cannot be set.
    """
    known = {*cfg.keys(), *inspect.signature(Runner.__init__).parameters, *_OTHER_KEYS}
    for key in options:
        first = key.split('.')[0]
        if first not in known:
            raise ValueError(f'--cfg-options {key}: the config has no key {first}.{_suggest(first, known)}')
    try:
        cfg.merge_from_dict(options)
    except Exception as error:
        raise ValueError(f'--cfg-options {" ".join(options)}: {_in_one_line(error)}') from error


def require_keys(cfg: Config, path: str) -> None:
    """Check that a config describes a training.

    Args:
        cfg (Config): The config.
        path (str): Its file, for the message.

    Raises:
        ValueError: A key is missing, or the optimizer is unknown.
    """
    missing = [key for key in _NEEDED if not cfg.get(key)]
    if missing:
        raise ValueError(
            f'the config {path} has no {", no ".join(missing)}, but a training needs all of '
            f'{", ".join(_NEEDED)}. python -m allspark_mmseg new writes complete configs for your images.'
        )
    optimizer = cfg.optim_wrapper.get('optimizer', {}).get('type')
    # MMEngine's own error does not name it
    if isinstance(optimizer, str) and OPTIMIZERS.get(optimizer) is None:
        names = OPTIMIZERS.module_dict
        raise ValueError(f'optim_wrapper.optimizer: there is no {optimizer}.{_suggest(optimizer, names)}')


def _suggest(name: str, names: Iterable[str]) -> str:
    by_lower_case = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return f' Did you mean {by_lower_case[close[0]]}?' if close else ''


def _in_one_line(error: Exception) -> str:
    message = ' '.join(str(error).split()).rstrip('.')
    return f'{type(error).__name__}: {message}' if message else type(error).__name__
