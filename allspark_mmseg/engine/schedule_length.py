"""The length of the training against the length of the learning-rate schedule."""

from collections.abc import Sequence
from math import inf

from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop

_LENGTHS = ('max_epochs', 'max_iters')
_SCALED = ('begin', 'end', 'T_max', 'milestones')
_TOLERANCE = 0.01  # schedules that end a step after the training are usual


def scale_schedule(cfg: Config, before: dict[str, int | None]) -> str | None:
    """Scale the learning-rate schedule of a config whose length of training was changed.

    Args:
        cfg (Config): The config. ``param_scheduler`` is changed in place.
        before (dict): ``max_epochs`` and ``max_iters`` of ``train_cfg`` before the change, or None.

    Returns:
        str, optional: What was changed; None if the length is the same or there is no schedule.
    """
    for name in _LENGTHS:
        old, new = before.get(name), (cfg.get('train_cfg') or {}).get(name)
        if old and new and old != new and cfg.get('param_scheduler'):
            for scheduler in _as_list(cfg.param_scheduler):
                for key in _SCALED:
                    if isinstance(scheduler.get(key), int | list | tuple):
                        scheduler[key] = _scale(scheduler[key], new, old)
            return f'{name} is {new} instead of {old}: the learning-rate schedule is scaled by {new / old:g}.'
    return None


def training_length(cfg: Config) -> dict[str, int | None]:
    """Return ``max_epochs`` and ``max_iters`` of a config, None if not set."""
    return {name: (cfg.get('train_cfg') or {}).get(name) for name in _LENGTHS}


def warn_of_schedule(runner: Runner, loop: BaseLoop) -> None:
    """Warn if the learning-rate schedule of the config ends before or after the training.

    Args:
        runner (Runner): The runner.
        loop (BaseLoop): The loop of the config's ``train_cfg``.
    """
    schedulers = _as_list(runner.cfg.get('param_scheduler') or [])
    # of a warm-up and the schedule after it, the second
    last = max(schedulers, key=lambda one: (one.get('begin', 0), one.get('end', inf)), default={})
    length = training_length(runner.cfg)
    by_epoch = last.get('by_epoch', True)
    if not isinstance(last.get('end'), int) or not any(length.values()):
        return  # without an end, MMEngine takes the length of the training
    if isinstance(loop, EpochBasedTrainLoop):
        expected = loop.max_epochs if by_epoch else loop.max_epochs * len(loop.dataloader)
    elif by_epoch:
        return
    else:
        expected = length['max_iters'] or loop.max_iters
    unit = 'epoch' if by_epoch else 'iteration'
    if abs(last['end'] - expected) > max(_TOLERANCE * expected, 2 if not by_epoch else 0):
        early = last['end'] < expected
        runner.logger.warning(
            f'param_scheduler: the schedule of the learning rate ends at {unit} {last["end"]}, but the '
            f'training at {unit} {expected}. '
            + ('The rest is trained with the last rate. ' if early else 'The last rates are never reached. ')
            + f'Set end={expected} in param_scheduler. The command train scales the schedule if the length '
            'is changed with --cfg-options.'
        )


def _as_list(schedulers: Sequence[dict] | dict) -> list[dict]:
    if isinstance(schedulers, dict):
        return [schedulers] if 'type' in schedulers else []
    return [scheduler for scheduler in schedulers if isinstance(scheduler, dict)]


def _scale(value: int | Sequence[int], new: int, old: int) -> int | list[int]:
    if isinstance(value, int):
        return round(value * new / old)
    return [round(one * new / old) for one in value]
