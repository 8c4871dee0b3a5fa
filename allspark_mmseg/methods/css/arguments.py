"""Valid arguments of the CSS methods."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ...utils import require

MIXES = ('cutmix', 'cutout', 'classmix', None)
TEACHER_STATISTICS = ('labeled_and_weak', 'weak', 'student')
AVERAGES = ('positive', 'labeled')


def _is_confidence(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


_VALID: dict[str, tuple[Callable[[Any], bool], str]] = {
    'threshold': (_is_confidence, 'a confidence in [0, 1]'),
    'weak_threshold': (_is_confidence, 'a confidence in [0, 1]'),
    'hard_threshold': (
        lambda value: value is None or 0 < value <= 1,
        'a probability in (0, 1], or None to make all pixels hard',
    ),
    'contrast_temperature': (lambda value: value > 0, 'a number above 0'),
    'similarity_temperature': (lambda value: value > 0, 'a number above 0'),
    'queries': (lambda value: value >= 1, 'a number of at least 1'),
    'negatives': (lambda value: value >= 1, 'a number of at least 1'),
    'prototype_momentum': (lambda value: 0 < value <= 1, 'a share in (0, 1]'),
    'contrast_ramp_down': (
        lambda value: value is None or value >= 1,
        'a number of steps of at least 1, or None for a constant weight',
    ),
    'warm_up': (lambda value: value >= 0, 'a number of steps of at least 0'),
    'scale_range': (lambda value: 0 < value[0] <= value[1], 'an ascending pair of factors above 0'),
    'mix': (lambda value: value in MIXES, f'one of {MIXES}'),
    'average_over': (lambda value: value in AVERAGES, f'one of {AVERAGES}'),
    'teacher_statistics': (lambda value: value in TEACHER_STATISTICS, f'one of {TEACHER_STATISTICS}'),
}


def check_arguments(owner: str, arguments: Mapping[str, object]) -> None:
    """Check arguments of a CSS method.

    Args:
        owner (str): Name of the method, for the message.
        arguments (dict): Name -> value; names without a rule are skipped.

    Raises:
        ValueError: A value is not valid.
    """
    for name, (is_valid, expected) in _VALID.items():
        if name in arguments:
            require(owner, name, arguments[name], is_valid(arguments[name]), expected)


def check_makes_representations(owner: str, head: nn.Module) -> None:
    """Check that a decode head makes representations.

    Args:
        owner (str): Name of the method, for the message.
        head (nn.Module): The student's decode head.

    Raises:
        ValueError: It has no ``forward_with_representations``.
    """
    if not hasattr(head, 'forward_with_representations'):
        raise ValueError(
            f'{owner}: segmentor.decode_head is a {type(head).__name__}, which makes no representations; '
            "expected dict(type='allspark_mmseg.RepresentationHead', ...)."
        )
