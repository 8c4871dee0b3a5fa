"""What a config says about its test data: the pipeline, with or without masks, and the class colors."""

import copy
import inspect
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS

from ..methods.student import multi_view_preprocessor

_LOADS_MASKS = re.compile(r'(.*\.)?Load\w*Annotations?')


def find_test_data(cfg: Config) -> dict:
    """Return the config of the data set on which ``tools/test.py`` evaluates.

    Args:
        cfg (Config): The config of a run, or of a plain segmentor.

    Returns:
        dict: The config of the test data set, otherwise of the validation data set. Of nested or joined data
        sets it is the first that has a pipeline. A config without data sets gives
        ``dict(pipeline=test_pipeline)``.

    Raises:
        ValueError: The config has neither a test or validation data set nor ``test_pipeline``.
    """
    for key in ('test_dataloader', 'val_dataloader'):
        found = _first_with_pipeline((cfg.get(key) or {}).get('dataset'))
        if found is not None:
            return found
    if cfg.get('test_pipeline') is None:
        raise ValueError(
            'the config has no test pipeline: no test_dataloader, no val_dataloader and no test_pipeline. '
            'Expected one of them, because it says how an image is loaded. Add test_pipeline=[...] to the '
            'config.'
        )
    return dict(pipeline=cfg.test_pipeline)


def find_preprocessor(cfg: Config) -> dict:
    """Return the config of the data preprocessor that the Runner gives to the model.

    Args:
        cfg (Config): The config of a run, or of a plain segmentor.

    Returns:
        dict: That of the model, otherwise that of the config; for a method, see ``multi_view_preprocessor``.
    """
    own = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    if 'segmentor' in cfg.model:
        chosen: Any = multi_view_preprocessor(own, cfg.model.segmentor.get('data_preprocessor'))
        return dict(chosen)
    return dict(own or dict(type='SegDataPreProcessor'))


def loads_rgb(steps: Sequence[dict], preprocessor: dict) -> bool:
    """Tell whether images of three bands are RGB when they are loaded.

    Args:
        steps (Sequence[dict]): Configs of transforms.
        preprocessor (dict): Config of the data preprocessor.

    Returns:
        bool: MMCV's ``LoadImageFromFile`` loads BGR, except with tifffile. Images of another loader are RGB
        if the data preprocessor does not convert them.
    """
    first = steps[0] if steps else {}
    if str(first.get('type')).rpartition('.')[2] == 'LoadImageFromFile':
        return first.get('imdecode_backend') == 'tifffile'
    return not preprocessor.get('bgr_to_rgb', False)


def reduces_zero_label(data: dict) -> bool:
    """Tell whether a data set ignores the label 0 of its masks, and counts classes from 1.

    Args:
        data (dict): Config of the data set. Some classes, such as ``ADE20KDataset``, do so by default.

    Returns:
        bool: ``reduce_zero_label`` of the config, otherwise the default of the class.
    """
    kind = DATASETS.get(data['type']) if 'type' in data else None
    parameter = inspect.signature(kind).parameters.get('reduce_zero_label') if kind else None
    default = parameter is not None and parameter.default is True
    return bool(data.get('reduce_zero_label', default))


def class_colors(palette: Sequence | None, count: int) -> list[tuple[int, ...]]:
    """Return a color for each class.

    Args:
        palette (Sequence, optional): RGB colors of a data set.
        count (int): Number of classes K.

    Returns:
        list[tuple[int, ...]]: K RGB colors. A palette without K colors is replaced by random colors, which
        are the same in each call.
    """
    known = palette is not None and len(palette) == count
    colors: Any = palette if known else np.random.default_rng(42).integers(0, 256, (count, 3))
    return [tuple(map(int, color)) for color in colors]


def find_test_pipeline(cfg: Config) -> list[dict]:
    """Return the transforms of the test data, as :func:`find_test_data` finds them.

    Args:
        cfg (Config): The config.

    Returns:
        list[dict]: A copy of the transforms.

    Raises:
        ValueError: The config has no test data.
    """
    return copy.deepcopy(list(find_test_data(cfg)['pipeline']))


def _first_with_pipeline(dataset: Any) -> dict | None:
    if not isinstance(dataset, dict):
        return None
    if dataset.get('pipeline'):
        return dataset
    children = [dataset.get('dataset'), *(dataset.get('datasets') or [])]
    return next((found for child in children if (found := _first_with_pipeline(child))), None)


def loads_masks(step: Any) -> bool:
    """Tell whether a transform reads a mask, by its type: ``LoadAnnotations``, ``LoadEmptyAnnotations``.

    Args:
        step (dict or other): Config of a transform.

    Returns:
        bool: Whether it reads a mask. False for what is not a dict.
    """
    return isinstance(step, dict) and _LOADS_MASKS.fullmatch(str(step.get('type'))) is not None


def count_loads(steps: Sequence[dict]) -> int:
    """Return the number of transforms at the beginning of a pipeline that load an image.

    Args:
        steps (Sequence[dict]): Configs of transforms.

    Returns:
        int: The number of leading transforms whose type begins with ``Load`` and that read no mask.
    """
    names = [str(step['type']).rpartition('.')[2] for step in steps]
    loads = [
        name.startswith('Load') and not loads_masks(step) for name, step in zip(names, steps, strict=True)
    ]
    return [*loads, False].index(False)


def without_masks(steps: list) -> list:
    """Remove the transforms that read masks, also inside ``TestTimeAug``.

    Args:
        steps (list): Configs of transforms, or lists of them.

    Returns:
        list: The other transforms. Lists that are then empty are removed, because ``TestTimeAug`` combines
        one transform of each list.
    """
    kept: list = []
    for step in steps:
        if isinstance(step, list | tuple):
            kept += [inner] if (inner := without_masks(list(step))) else []
        elif isinstance(step, dict) and isinstance(step.get('transforms'), list | tuple):
            kept.append({**step, 'transforms': without_masks(list(step['transforms']))})
        elif not loads_masks(step):
            kept.append(step)
    return kept
