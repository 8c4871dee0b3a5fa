"""Reads sizes from state dicts, renames their keys, and compares them with a network."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..utils import join_first

Rules = tuple[tuple[str, str], ...]
Module = TypeVar('Module', bound=nn.Module)
_FIELD = re.compile(r'\{([a-z])(?:\+(\d))?\}')


# ---- networks without memory


class _LinspaceOnCPU(TorchFunctionMode):
    """Keeps ``torch.linspace`` off the meta device, because MMSegmentation reads its values (drop path)."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault('device', 'cpu')
        return func(*args, **kwargs)


def build_on_meta(build: Callable[[], Module]) -> Module:
    """Build a network on the meta device, where it has shapes but no values.

    Args:
        build (Callable): Builds the network.

    Returns:
        nn.Module: The network.
    """
    with torch.device('meta'), _LinspaceOnCPU(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about losses and thresholds, which are not used
        return build()


# ---- sizes


def depth_in(state: Iterable[str], pattern: str) -> int:
    """Count numbered blocks by the highest number. Blocks in a gap then count as missing keys.

    Args:
        state (Iterable[str]): The keys.
        pattern (str): Regular expression for the start of a block's keys; its only group is the number.

    Returns:
        int: Number of blocks, at least 1.
    """
    numbers = (int(match[1]) for key in state if (match := re.match(pattern, key)))
    return 1 + max(numbers, default=0)


def size_in(state: Mapping[str, Tensor], key: str, dim: int = 0) -> int:
    """Return the size of a tensor along ``dim``.

    Args:
        state (Mapping[str, Tensor]): The state dict.
        key (str): Key of the tensor.
        dim (int): The dimension.

    Returns:
        int: The size. If there is no such tensor or dimension, 1, because a network can then be built and
        `check_state` reports the key.
    """
    shape = state[key].shape if key in state else ()
    return max(1, shape[dim]) if dim < len(shape) else 1


# ---- names


def strip_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a state dict whose keys start with ``prefix``, without the prefix."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def add_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with ``prefix`` before each key."""
    return {prefix + key: value for key, value in state.items()}


def prefixed(rules: Rules, official: str, ours: str) -> Rules:
    """Put a prefix before the official and before our templates of all rules."""
    return tuple((official + first, ours + second) for first, second in rules)


def to_ours(key: str, rules: Rules) -> str | None:
    """Translate an official key.

    Args:
        key (str): The official key.
        rules (Rules): Pairs of an official template and our template. ``{x}`` matches any text, another
            letter matches a number, and ``{a+1}`` matches the number a plus one. The first matching rule is
            used.

    Returns:
        str, optional: Our key, or None if no rule fits.

    Examples:
        >>> to_ours('norm1.weight', (('norm{a+1}.{x}', 'layers.{a}.2.{x}'),))
        'layers.0.2.weight'
    """
    names = (_translate(key, official, ours) for official, ours in rules)
    return next(filter(None, names), None)


def to_official(key: str, rules: Rules) -> str:
    """Translate our key; the inverse of `to_ours`.

    Raises:
        KeyError: No rule fits.
    """
    names = (_translate(key, ours, official) for official, ours in rules)
    if (name := next(filter(None, names), None)) is None:
        raise KeyError(f'{key!r} has no official counterpart')
    return name


def official_names(keys: Iterable[str], rules: Rules) -> dict[str, str]:
    """Translate our keys.

    Args:
        keys (Iterable[str]): Our keys.
        rules (Rules): See `to_ours`.

    Returns:
        dict[str, str]: Maps official keys to our keys, in the order of the rules.

    Raises:
        KeyError: No rule fits a key.
    """
    rest, names = list(keys), dict[str, str]()
    for official, ours in rules:
        found = {key: name for key in rest if (name := _translate(key, ours, official))}
        names |= {name: key for key, name in found.items()}
        rest = [key for key in rest if key not in found]
    if rest:
        raise KeyError(f'{rest[0]!r} has no official counterpart')
    return names


def _translate(key: str, source: str, target: str) -> str | None:
    match = _compile(source).fullmatch(key)
    if not match:
        return None
    fields: dict[str, str | int] = {}
    for name, offset in _FIELD.findall(source):
        fields[name] = match[name] if name == 'x' else int(match[name]) - int(offset or 0)

    def fill(field: re.Match) -> str:
        value = fields[field[1]]
        return value if isinstance(value, str) else str(value + int(field[2] or 0))

    return _FIELD.sub(fill, target)


@cache
def _compile(template: str) -> re.Pattern:
    parts, end = [], 0
    for field in _FIELD.finditer(template):
        value = '.+' if field[1] == 'x' else r'\d+'
        parts += [re.escape(template[end : field.start()]), f'(?P<{field[1]}>{value})']
        end = field.end()
    return re.compile(''.join(parts) + re.escape(template[end:]))


# ---- comparison


def check_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str, advice: str
) -> None:
    """Compare keys and shapes with those of a network.

    Args:
        state (Mapping[str, Tensor]): The state dict to check.
        expected (Mapping[str, Tensor]): The state dict of the network, for example on the meta device.
        source (str): Name of the network, for the message.
        advice (str): What to do, for the message.

    Raises:
        ValueError: Keys are missing or unexpected, or tensors have another shape.
    """
    problems = [
        _problem('unexpected', [key for key in state if key not in expected]),
        _problem('missing', [key for key in expected if key not in state]),
    ]
    if not any(problems):  # without all keys, the sizes of the network are uncertain
        wrong = [
            f'{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}'
            for key, value in expected.items()
            if state[key].shape != value.shape
        ]
        problems = [_problem('wrongly shaped', wrong)]
    if any(problems):
        found = '; '.join(filter(None, problems))
        raise ValueError(f'expected the complete state dict of {source}, found {found}. {advice}')


def _problem(kind: str, keys: list[str]) -> str:
    if not keys:
        return ''
    return f'{len(keys)} {kind} key{"s" * (len(keys) > 1)}: {join_first(keys, separator=", ")}'
