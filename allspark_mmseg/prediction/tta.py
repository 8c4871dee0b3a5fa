"""Test-time augmentation: the mean of the predictions of several sizes and of mirrored images."""

from typing import Any

from mmengine.config import Config

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
    if not own:
        return model, _default_pipeline(steps, _trains_mirrored(cfg))
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
    cfg.test_dataloader.dataset.pipeline = pipeline
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
    steps = list(_dicts(cfg.get('train_dataloader')))
    probabilities = [
        step.get('flip_prob', 0.5)
        for step in steps
        if str(step.get('type')).endswith(('RandomScaleCropFlip', 'RareClassCrop'))
    ]
    probabilities += [step.get('prob') or 0.5 for step in steps if step.get('type') == 'RandomFlip']
    return not steps or any(probabilities)


def _dicts(node: Any) -> list[dict]:
    """Return all dicts inside a config."""
    if isinstance(node, dict):
        return [node, *_dicts(list(node.values()))]
    if isinstance(node, list | tuple):
        return [found for child in node for found in _dicts(child)]
    return []
