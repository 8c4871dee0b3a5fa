"""What the converters' command lines share: reading weights without executing a file, writing at once."""

import argparse
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path

from mmengine.runner.checkpoint import save_checkpoint
from torch import Tensor

from ..engine.checkpoint import ATOMIC_BACKEND, load_checkpoint_file

Converter = Callable[[dict[str, Tensor], dict, argparse.Namespace], tuple[dict, str]]
_WRAPPERS = ('model', 'state_dict')


def read_state_dict(path: str | Path, *prefixes: str) -> tuple[dict[str, Tensor], dict]:
    """Read the weights of a checkpoint, however it wraps them.

    Args:
        path: a file with a state dict, or with one under ``model`` or ``state_dict``.
        prefixes: taken off the keys as long as all keys begin with it; ``module.`` always is.

    Returns:
        tuple: key -> tensor, and the other entries of the checkpoint (epoch, optimizer, ...).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, holds more than data, or no state dict.
    """
    state, others = load_checkpoint_file(path, map_location='cpu'), {}
    while isinstance(state, Mapping) and (wrapper := next((key for key in _WRAPPERS if key in state), None)):
        others |= {key: value for key, value in state.items() if key != wrapper}
        state = state[wrapper]
    _check_state(state, path)
    for prefix in ('module.', *prefixes, 'module.'):  # module.backbone. as well as backbone.module.
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value.detach() for key, value in state.items()}, others


def _check_state(state, path: str | Path) -> None:
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
    """Write tensors and plain types at once: a broken run leaves no half-written file behind."""
    save_checkpoint(checkpoint, str(path), backend_args=dict(backend=ATOMIC_BACKEND))


def as_checkpoint(state: dict[str, Tensor]) -> dict:
    """Wrap a state dict as MMEngine does; ``mmseg.apis.init_model`` asks for ``meta``."""
    return {'meta': {}, 'state_dict': state}


def summary(path: str | Path, state: dict[str, Tensor]) -> str:
    """One line: how many tensors and how many values a file holds."""
    count = sum(tensor.numel() for tensor in state.values())
    return f'{path}: {len(state)} tensors, {count / 1e6:.2f} M values'


def run_converter(parser: argparse.ArgumentParser, convert: Converter, *prefixes: str) -> None:
    """Read SRC, convert, write DST, and end with one sentence where that is impossible.

    Args:
        parser: with the converter's own options; gets the arguments SRC and DST.
        convert: (state dict, other entries of the checkpoint, arguments) -> (what to write, what to print).
        prefixes: as in ``read_state_dict``.
    """
    parser.add_argument('src', type=Path, metavar='SRC', help='the checkpoint to read')
    parser.add_argument('dst', type=Path, metavar='DST', help='the checkpoint to write, *.pth')
    arguments = parser.parse_args()
    source, target = arguments.src, arguments.dst
    if target.is_dir():
        parser.error(f'{target} is a folder: name the file to write')
    if target.exists() and source.exists() and target.samefile(source):
        parser.error(f'{target} is the file to read: name another one to write')
    try:
        state, others = read_state_dict(source, *prefixes)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    try:
        checkpoint, told = convert(state, others, arguments)
    except ValueError as error:
        parser.error(f'{source}: {error}')
    write_checkpoint(checkpoint, target)
    print(f'{source}: {told}')
    print(summary(target, read_state_dict(target)[0]))  # read back: what it tells is in the file


def progress(others: Mapping, *keys: str) -> str:
    """Tell what a training script wrote beside the weights: ``', epoch 79, previous_best 81.2'``.

    Args:
        others: the checkpoint's other entries.
        keys: those to tell; what is missing or no number is passed over.
    """
    found = {key: others.get(key) for key in keys}
    return ''.join(f', {key} {value:g}' for key, value in found.items() if isinstance(value, Real))
