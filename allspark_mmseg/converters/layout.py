"""Which keys and shapes a state dict must have, so that a converter accounts for all of them."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_EXAMPLES = 5


def depth_in(state: Iterable[str], pattern: str) -> int:
    """Count numbered blocks by the highest number, so that a gap counts as missing keys.

    Args:
        state: the keys.
        pattern: what a block's keys begin with; its one group is the number.

    Returns:
        int: at least 1, for the same reason.
    """
    numbers = (int(match[1]) for key in state if (match := re.match(pattern, key)))
    return 1 + max(numbers, default=0)


def size_in(state: Mapping[str, Tensor], key: str, dim: int = 0) -> int:
    """Size of a tensor along ``dim``; 0 when there is no such tensor, which ``check_layout`` then tells."""
    shape = state[key].shape if key in state else ()
    return shape[dim] if dim < len(shape) else 0


def layer_layout(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a layer with a weight of the given shape and a bias as long as its first side."""
    return {f'{name}.weight': weight, f'{name}.bias': weight[:1]}


def check_keys(found: Iterable[str], expected: Iterable[str], what: str, advice: str) -> None:
    """Compare keys.

    Args:
        found: keys of a state dict.
        expected: the keys it must have, in any order.
        what: whose keys these are, for the message.
        advice: what to do, for the message.

    Raises:
        ValueError: keys are missing, or are none of the expected.
    """
    found, expected = dict.fromkeys(found), dict.fromkeys(expected)
    _refuse(
        what,
        advice,
        {
            'unknown': [key for key in found if key not in expected],
            'missing': [key for key in expected if key not in found],
        },
    )


def check_layout(
    state: Mapping[str, Tensor], layout: Mapping[str, tuple[int, ...]], what: str, advice: str
) -> None:
    """Compare keys and shapes; arguments and errors are those of ``check_keys``."""
    check_keys(state, layout, what, advice)
    wrong = [
        f'{key} {tuple(state[key].shape)} instead of {shape}'
        for key, shape in layout.items()
        if tuple(state[key].shape) != shape
    ]
    _refuse(what, advice, {'of another shape': wrong})


def _refuse(what: str, advice: str, problems: dict[str, list[str]]) -> None:
    told = [
        f'{len(keys)} key(s) {problem}: {", ".join(keys[:_EXAMPLES])}{", ..." * (len(keys) > _EXAMPLES)}'
        for problem, keys in problems.items()
        if keys
    ]
    if told:
        raise ValueError(f'this is no complete state dict of {what}. {"; ".join(told)}. {advice}')
