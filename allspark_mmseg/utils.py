"""Small helpers that several subpackages use."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

T = TypeVar('T')


def on_one_process(function: Callable[[], T], *, of_each_machine: bool = False) -> T:
    """Call a function on one process, and give its result or its error to all.

    All processes must make this call.

    Args:
        function (Callable): The function. Its result and its errors must be picklable.
        of_each_machine (bool): Call it on one process of each machine (``LOCAL_RANK`` 0). The result is that
            of the first one.

    Returns:
        object: The result.

    Raises:
        Exception: The function raised it.
    """
    rank, processes = get_dist_info()
    if processes == 1:
        return function()
    outcome: tuple[T | None, Exception | None] = (None, None)
    if (int(os.environ.get('LOCAL_RANK', 0)) if of_each_machine else rank) == 0:
        try:
            outcome = (function(), None)
        except Exception as raised:
            outcome = (None, raised)
    outcomes = all_gather_object(outcome)
    for _, error in outcomes:
        if error is not None:
            raise error
    return cast(T, outcomes[0][0])


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers: of distributed training, or of test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = cast(nn.Module, model.module)
    return model


def full_precision(logits: Tensor) -> Tensor:
    """Convert logits (N, K, h, w) to float32; float64 stays."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def message_of(error: BaseException) -> str:
    """Return the message of an error, without the quotes that ``KeyError`` adds."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def join_first(items: Iterable[object], limit: int = 5, separator: str = '; ') -> str:
    """Join the first ``limit`` items for an error message and say how many more there are."""
    texts = [str(item) for item in items]
    shown = separator.join(texts[:limit])
    return shown if len(texts) <= limit else f'{shown}{separator}... and {len(texts) - limit} more'


def format_paths(paths: Iterable[object]) -> str:
    """Format the first five paths for an error message, one indented line each."""
    return '  ' + join_first(paths, separator='\n  ')


def dicts_in(node: object) -> Iterator[dict]:
    """Iterate over all dicts of a config, from the outside in. They may be changed on the way.

    Args:
        node (object): A config, or a part of it.

    Yields:
        dict: The node itself if it is a dict, and all dicts in it.
    """
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from dicts_in(child)


def nearest_multiple(side: int, multiple: int) -> int:
    """Round a side to the nearest multiple, ``max(int(side / multiple + 1/2), 1) * multiple``, in pixels.

    Args:
        side (int): Side in pixels.
        multiple (int): Multiple in pixels, at least 1.

    Returns:
        int: The rounded side in pixels, at least ``multiple``.
    """
    return max((2 * side + multiple) // (2 * multiple), 1) * multiple


def require(owner: str, name: str, value: object, valid: bool, expected: str) -> None:
    """Check one argument of a class.

    Args:
        owner (str): Name of the class, for the message.
        name (str): Name of the argument.
        value (object): Value of the argument.
        valid (bool): Whether the value is valid.
        expected (str): Description of the valid values, for example ``'a probability in [0, 1]'``.

    Raises:
        ValueError: ``valid`` is False.
    """
    if not valid:
        raise ValueError(f'{owner}: {name} is {value!r}, expected {expected}.')


class HostValue:
    """The value of a scalar buffer on the host.

    Reading a tensor waits for the device. Here, this happens only after something else has changed the
    buffer, for example a checkpoint. The version counter of the tensor tells.
    """

    def __init__(self) -> None:
        self._known: tuple[Tensor, int, bool | int | float] | None = None

    def read(self, buffer: Tensor) -> bool | int | float:
        """Return the value of a scalar buffer of any dtype."""
        if self._known is None or self._known[0] is not buffer or self._known[1] != buffer._version:
            self._known = (buffer, buffer._version, buffer.item())
        return self._known[2]

    def write(self, buffer: Tensor, value: bool | int | float) -> None:
        """Fill a scalar buffer with a value."""
        buffer.fill_(value)
        self._known = (buffer, buffer._version, value)
