"""Shared parts of the converters' command lines: safe reading and atomic writing of checkpoints."""

import argparse
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.runner.checkpoint import save_checkpoint
from torch import Tensor

from ..engine.checkpoint import ATOMIC_BACKEND, load_checkpoint_file

Converter = Callable[[dict[str, Tensor], dict, argparse.Namespace], tuple[dict, str]]
_WRAPPERS = ('model', 'state_dict')


def read_state_dict(path: str | Path, *prefixes: str) -> tuple[dict[str, Tensor], dict]:
    """Read the state dict of a checkpoint.

    Args:
        path (str | Path): A file with a state dict, alone or under ``model`` or ``state_dict``.
        *prefixes (str): A prefix is removed if all keys start with it. ``module.`` always is.

    Returns:
        tuple[dict[str, Tensor], dict]: The state dict, and the other entries of the checkpoint (epoch,
        optimizer, ...).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, contains more than data, or contains no state dict.
    """
    others: dict = {}
    state: Any = load_checkpoint_file(str(path), map_location='cpu')
    while isinstance(state, Mapping) and (wrapper := next((key for key in _WRAPPERS if key in state), None)):
        others |= {key: value for key, value in state.items() if key != wrapper}
        state = state[wrapper]
    _check_is_state_dict(state, path)
    for prefix in ('module.', *prefixes, 'module.'):  # module.backbone. as well as backbone.module.
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value.detach() for key, value in state.items()}, others


def _check_is_state_dict(state: object, path: str | Path) -> None:
    if not isinstance(state, Mapping) or not state:
        found = 'nothing' if isinstance(state, Mapping) else f'a {type(state).__name__}'
        raise ValueError(f'{path}: expected a state dict (name -> tensor), found {found}.')
    foreign = [
        key for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if foreign:
        raise ValueError(
            f'{path}: expected a state dict (name -> tensor), alone or under {" or ".join(_WRAPPERS)}; '
            f'{foreign[0]!r} is a {type(state[foreign[0]]).__name__}.'
        )


def write_checkpoint(checkpoint: dict, path: str | Path) -> None:
    """Write a checkpoint atomically: an interrupted run leaves no partial file.

    Args:
        checkpoint (dict): Tensors and plain types.
        path (str | Path): File to write.
    """
    save_checkpoint(checkpoint, str(path), backend_args=dict(backend=ATOMIC_BACKEND))


def as_checkpoint(state: dict[str, Tensor]) -> dict:
    """Wrap a state dict as MMEngine does; ``mmseg.apis.init_model`` requires ``meta``."""
    return {'meta': {}, 'state_dict': state}


def summary(path: str | Path, state: dict[str, Tensor]) -> str:
    """Return one line with the number of tensors and values of the state dict in a file."""
    count = sum(tensor.numel() for tensor in state.values())
    return f'{path}: {len(state)} tensors, {count / 1e6:.2f} M values'


def run_converter(parser: argparse.ArgumentParser, convert: Converter, *prefixes: str) -> None:
    """Read SRC, convert it and write DST. Errors end the program with a message.

    Args:
        parser (ArgumentParser): Parser with the converter's own options. SRC and DST are added.
        convert (Callable): Maps the state dict, the other entries of the checkpoint and the arguments to the
            checkpoint to write and a description to print.
        *prefixes (str): See `read_state_dict`.
    """
    parser.add_argument('src', type=Path, metavar='SRC', help='checkpoint to read')
    parser.add_argument('dst', type=Path, metavar='DST', help='checkpoint to write, *.pth')
    arguments = parser.parse_args()
    source, target = arguments.src, arguments.dst
    if target.is_dir():
        parser.error(f'{target} is a folder; give the name of a file to write')
    if target.exists() and source.exists() and target.samefile(source):
        parser.error(f'{target} is the file to read; give another file to write')
    try:
        state, others = read_state_dict(source, *prefixes)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    try:
        checkpoint, description = convert(state, others, arguments)
    except ValueError as error:
        parser.error(f'{source}: {error}')
    write_checkpoint(checkpoint, target)
    print(f'{source}: {description}')
    print(summary(target, read_state_dict(target)[0]))  # read back from the file


def progress(others: Mapping, *keys: str) -> str:
    """Format numbers that a training script stored: ``', epoch 79, previous_best 81.2'``.

    Args:
        others (Mapping): Entries of the checkpoint other than the weights.
        *keys (str): Entries to format. Entries that are missing or not numbers are skipped.

    Returns:
        str: The text, empty if there are no such entries.
    """
    values = {key: others.get(key) for key in keys}
    return ''.join(f', {key} {value:g}' for key, value in values.items() if isinstance(value, Real))
