"""Configurations of Hugging Face ``transformers``, and errors that say what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..utils import message_of, require

OWNER = 'TransformersBackbone'
INSTALL = "pip install 'allspark-mmseg[hub]'"
HUB = 'https://huggingface.co'


def import_transformers() -> ModuleType:
    """Import the library.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return importlib.import_module('transformers')
    except ImportError as error:
        raise ImportError(f'{OWNER} needs the package transformers (5 or newer): run "{INSTALL}".') from error


def read_config(model: str | None, config: dict[str, Any]) -> tuple[type, Any]:
    """Read the configuration of a backbone.

    Args:
        model (str, optional): Name on the Hub, or folder.
        config (dict): See ``TransformersBackbone``.

    Returns:
        tuple[type, Any]: The class of the network, and its configuration.

    Raises:
        FileNotFoundError: ``model`` cannot be read.
        ValueError: There is no such backbone, or ``config`` is wrong.
    """
    transformers = import_transformers()
    if 'model_type' in config:
        kind = config.pop('model_type')
        known = kind in transformers.CONFIG_MAPPING
        require(OWNER, 'config.model_type', kind, known, 'a model type of transformers, for example "dinov2"')
        _check_keys(transformers.CONFIG_MAPPING[kind], config)
        with explaining_config():
            settings = transformers.CONFIG_MAPPING[kind](**config)
    elif model is None:
        raise ValueError(
            f'{OWNER}: model is None and config has no model_type. Set model to a name on the Hub or a '
            "folder, or config=dict(model_type='dinov2', ...) for random weights."
        )
    else:
        with reading(model, 'configuration'):
            settings = transformers.AutoConfig.from_pretrained(model)
        _check_keys(type(settings), config)
        if config:
            with explaining_config():
                settings = transformers.AutoConfig.from_pretrained(model, **config)
    mapping = transformers.models.auto.modeling_auto.MODEL_FOR_BACKBONE_MAPPING
    if type(settings) not in mapping:
        raise ValueError(
            f'{OWNER}: transformers has no backbone of the type {settings.model_type!r}, expected one of '
            f'{", ".join(sorted(transformers.models.auto.modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES))}.'
        )
    if not hasattr(settings, 'stage_names'):
        raise ValueError(
            f'{OWNER}: {settings.model_type!r} of transformers names no stages, so its features cannot be '
            'chosen. Use another model type.'
        )
    return mapping[type(settings)], settings


def config_keys(kind: type) -> set[str]:
    """Return the keys of a class of configurations of ``transformers``."""
    settings: Any = kind()
    return {*settings.to_dict(), *settings.attribute_map, 'attn_implementation'}


def _check_keys(kind: type, config: Mapping[str, Any]) -> None:
    """Refuse keys that ``transformers`` would store and not use."""
    known = config_keys(kind)
    for key in config:
        close = difflib.get_close_matches(key, known, n=1)
        expected = f'{close[0]!r}' if close else f'one of {", ".join(sorted(known))}'
        require(
            OWNER,
            'a key of config',
            key,
            key in known,
            f'{expected}, because {kind.__name__} has no such key',
        )


@contextmanager
def explaining_config() -> Iterator[None]:
    """Name ``config`` in the errors that ``transformers`` raises for wrong values."""
    try:
        yield
    except ImportError:
        raise  # of a package that the network needs
    except Exception as error:  # of many classes, among them KeyError and huggingface_hub's own
        raise ValueError(f'{OWNER}: transformers refuses a value of config: {message_of(error)}') from error


@contextmanager
def reading(source: str, what: str) -> Iterator[None]:
    """Explain in one sentence why a folder or the Hub cannot be read."""
    try:
        yield
    except (OSError, ValueError) as error:
        if Path(source).is_dir():
            found = ', '.join(sorted(path.name for path in Path(source).iterdir())[:5]) or 'nothing'
            raise FileNotFoundError(
                f'{OWNER}: cannot read the {what} of model {source}: the folder has {found}, expected '
                'config.json and model.safetensors (or pytorch_model.bin) as transformers save them.'
            ) from error
        gated = 'gated' in str(error).lower()
        remedy = 'accept its terms on this page and run "hf auth login", or ' if gated else ''
        raise FileNotFoundError(
            f'{OWNER}: cannot read the {what} of model {source!r}: it is no folder here, and {HUB}/{source} '
            f'{"needs access rights" if gated else "does not exist or cannot be reached"}; {remedy}run '
            f'"hf download {source} --local-dir FOLDER" on a machine with access, and set model to this '
            'folder.'
        ) from error


def check_out_indices(indices: Sequence[int], stages: Sequence[str]) -> list[int]:
    """Return the indices without negative numbers."""
    count = len(stages)
    valid = bool(indices) and all(isinstance(index, int) and -count <= index < count for index in indices)
    positive = [index % count for index in indices] if valid else []
    valid = valid and positive == sorted(set(positive))
    names = ', '.join(f'{index} ({name})' for index, name in enumerate(stages))
    require(OWNER, 'out_indices', tuple(indices), valid, f'ascending numbers of the stages {names}')
    return positive
