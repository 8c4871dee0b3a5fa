"""The argument ``threshold`` of the methods."""

import inspect
from collections.abc import Mapping
from typing import Any

from ..utils import require
from .base import ConfidenceThreshold
from .class_balanced import ClassBalancedThreshold
from .freematch import FreeMatchThreshold
from .softmatch import SoftMatchThreshold

_ADAPTIVE: dict[str, type[ConfidenceThreshold]] = {
    'FreeMatch': FreeMatchThreshold,
    'SoftMatch': SoftMatchThreshold,
    'ClassBalanced': ClassBalancedThreshold,
}


def check_threshold(owner: str, threshold: object) -> None:
    """Check that a confidence threshold is a number in [0, 1].

    Args:
        owner (str): Name of the method, for the message.
        threshold (object): The threshold.

    Raises:
        ValueError: It is not.
    """
    valid = isinstance(threshold, int | float) and 0 <= threshold <= 1
    require(owner, 'threshold', threshold, valid, 'a confidence in [0, 1]')


def build_threshold(
    owner: str, threshold: float | Mapping[str, Any], num_classes: int
) -> float | ConfidenceThreshold:
    """Check the argument ``threshold`` of a method, and build an adaptive threshold from a dict.

    Args:
        owner (str): Name of the method, for the messages.
        threshold (float or dict): A confidence in [0, 1]; or a dict with arguments of the class, of the
            type ``'FreeMatch'``, ``'SoftMatch'`` or ``'ClassBalanced'``.
        num_classes (int): Number of classes K.

    Returns:
        float or ConfidenceThreshold: The number itself, or the module.

    Raises:
        ValueError: The number is not in [0, 1], the type is unknown, or an argument is unknown or invalid.
    """
    if not isinstance(threshold, Mapping):
        check_threshold(owner, threshold)
        return threshold
    options = dict(threshold)
    kind = options.pop('type', None)
    require(owner, 'threshold.type', kind, kind in _ADAPTIVE, f'one of {tuple(_ADAPTIVE)}')
    known = tuple(name for name in inspect.signature(_ADAPTIVE[kind]).parameters if name != 'num_classes')
    for name in options:
        require(owner, 'a key of threshold', name, name in known, f'one of {known} for {kind}')
    return _ADAPTIVE[kind](num_classes, **options)
