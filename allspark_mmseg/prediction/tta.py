"""Test-time augmentation: the mean of the predictions of several sizes and of mirrored images."""

import logging

from mmengine.config import Config
from mmengine.logging import print_log

from ..utils import dicts_in
from .pipelines import count_loads, find_test_pipeline, loads_masks

RATIOS = (0.75, 1.0, 1.25)


def find_tta(cfg: Config) -> tuple[dict, list[dict]]:
    """Return the test-time augmentation of a config.

    Args:
        cfg (Config): The config of a run, or of a plain segmentor.

    Returns:
        tuple[dict, list[dict]]: ``tta_model`` and ``tta_pipeline`` of the config. The images are loaded as by
        the test pipeline. Without ``tta_model``, it is MMSegmentation's ``SegTTAModel``. Without
        ``tta_pipeline``, it is the test pipeline with the sizes ``RATIOS``; each is also mirrored, unless the
        training has no mirrored images.

    Raises:
        ValueError: The config has no test data.
    """
    model = dict(cfg.get('tta_model') or dict(type='SegTTAModel'))
    steps, own = find_test_pipeline(cfg), cfg.get('tta_pipeline')
    mirrored = _trains_mirrored(cfg)
    if not own:
        return model, _default_pipeline(steps, mirrored)
    if not mirrored and any(map(_mirrors, dicts_in(own))):
        print_log(
            'The views of tta_pipeline are mirrored, but the training mirrors no image. Set '
            'tta_pipeline=None to leave these views out.',
            logger='current',
            level=logging.WARNING,
        )
    # a child config that changes how images are loaded need not repeat it in the tta_pipeline of its base
    return model, [*steps[: count_loads(steps)], *own[count_loads(own) :]]


def use_tta(cfg: Config) -> None:
    """Wrap model and test data in test-time augmentation, as ``--tta`` of MMSegmentation's test tool does.

    Args:
        cfg (Config): A config with ``test_dataloader``. It is changed in place.

    Raises:
        ValueError: The config has no test data.
    """
    model, pipeline = find_tta(cfg)
    _set_pipeline(cfg.test_dataloader.dataset, pipeline)
    # otherwise the wrapper gives the segmentor the data_preprocessor of the Runner, instead of its own
    own = {key: cfg.model[key] for key in ('data_preprocessor',) if cfg.model.get(key)}
    cfg.model = {**model, **own, 'module': cfg.model}


def _default_pipeline(steps: list[dict], mirrored: bool) -> list[dict]:
    """Put the sizes and the flips before the last transform, and the masks after them."""
    *steps, pack = steps
    views: list[list[dict]] = [[dict(type='Resize', scale_factor=ratio, keep_ratio=True) for ratio in RATIOS]]
    if mirrored:
        views.append([dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)])
    # masks keep their size and are not flipped: the predictions of all views are brought back to it
    masks = [[step] for step in steps if loads_masks(step)]
    images = [step for step in steps if not loads_masks(step)]
    return [*images, dict(type='TestTimeAug', transforms=[*views, *masks, [pack]])]


def _trains_mirrored(cfg: Config) -> bool:
    """Tell whether the training pipelines flip images. True for a config without training."""
    steps = list(dicts_in(cfg.get('train_dataloader')))
    return not steps or any(map(_mirrors, steps))


def _mirrors(step: dict) -> bool:
    """Tell whether a transform flips images horizontally."""
    kind = str(step.get('type')).rpartition('.')[2]
    if kind in ('RandomScaleCropFlip', 'RareClassCrop'):
        return step.get('flip_prob', 0.5) > 0
    if kind != 'RandomFlip':
        return False
    directions, shares = step.get('direction', 'horizontal'), step.get('prob', 0.5)
    directions = [directions] if isinstance(directions, str) else directions
    shares = shares if isinstance(shares, list | tuple) else [shares] * len(directions)
    return any(share and name != 'vertical' for name, share in zip(directions, shares, strict=True))


def _set_pipeline(dataset: dict, pipeline: list[dict]) -> None:
    """Set the pipeline of a data set, or of those inside ``ConcatDataset`` and other wrappers."""
    inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets', [])
    for child in inner:
        _set_pipeline(child, pipeline)
    if not inner:
        dataset['pipeline'] = pipeline
