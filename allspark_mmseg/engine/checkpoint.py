"""Checkpoints that are written whole and read without executing what they contain."""

import os
import re
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import CheckpointLoader

ATOMIC_BACKEND = 'allspark_mmseg.atomic'


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, but a file appears under its name only once it is complete.

    Interrupted writing then leaves the previous checkpoint as the last one. Configs use it by
    ``CheckpointHook(backend_args=dict(backend='allspark_mmseg.atomic'))``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to ``filepath`` by way of a temporary file beside it."""
        temporary = f'{filepath}.{os.getpid()}.tmp'
        try:
            super().put(obj, temporary)
            os.replace(temporary, filepath)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _history_method(owner: type, name: str):
    """Stand in for the ``getattr`` of a checkpoint, which would reach ``__globals__`` and run anything."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise UnpicklingError(f'getattr({owner!r}, {name!r}) is no method of the log history')
    return getattr(owner, name)


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)``, the default since PyTorch 2.6, read MMEngine's checkpoints.

    Beside tensors they hold the log's history: numpy arrays and scalars in a ``HistoryBuffer``, whose
    methods are stored as ``getattr(HistoryBuffer, name)``; of ``getattr`` no other use is allowed.
    """
    multiarray = (getattr(np, '_core', None) or np.core).multiarray
    dtypes = {type(np.dtype(name)) for name in ('bool', 'int32', 'int64', 'uint8', 'float32', 'float64')}
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_history_method, 'builtins.getattr'),
            slice,
            np.ndarray,
            np.dtype,
        ]
        # NumPy 2 moved these, and files name them by the place they had when written
        + [
            (function, f'numpy.{place}.multiarray.{function.__name__}')
            for function in (multiarray._reconstruct, multiarray.scalar)
            for place in ('core', '_core')
        ]
        + sorted(dtypes, key=str)
    )


def _other_checkpoints(path: Path) -> str:
    """A sentence about checkpoints of the same run, when ``path`` is named as one of a run."""
    numbered = re.compile(r'.*(?:epoch|iter)_(\d+)\.pth')
    if not numbered.fullmatch(path.name):
        return ''
    found = [other for other in path.parent.glob('*.pth') if other != path and numbered.fullmatch(other.name)]
    others = sorted(found, key=lambda other: int(numbered.fullmatch(other.name)[1]))
    if not others:
        return ' There is no other checkpoint beside it.'
    return (
        f' Beside it lie {", ".join(other.name for other in others[-3:])}: resume with --resume {others[-1]}.'
    )


def _reason(error: Exception) -> str:
    """What was found, without PyTorch's advice to switch the safety off."""
    if not isinstance(error, RuntimeError | UnpicklingError):
        return type(error).__name__
    advice = ('Weights only load failed', '(1)', '(2)', 'Check the documentation', 'Please file an issue')
    lines = [line.strip().removeprefix('WeightsUnpickler error: ') for line in str(error).splitlines()]
    found = next((line for line in lines if line and not line.startswith(advice)), type(error).__name__)
    return re.split(r'\. (?=[A-Z])', found)[0].partition(' Please use `torch')[0][:300]


def load_checkpoint_file(filename: str, map_location=None) -> dict:
    """Load a local checkpoint with PyTorch's restricted unpickler.

    Args:
        filename: path of the file.
        map_location: as in ``torch.load``.

    Returns:
        dict: the checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, is no checkpoint, or holds objects beyond tensors and
            MMEngine's log history.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} not found.{_other_checkpoints(path)}')
    allow_mmengine_checkpoints()  # the OneDL fork takes the names back after each loading of its own
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # a damaged pickle raises anything: KeyError, struct.error, UnicodeDecodeError
        reason = _reason(error)
        raise ValueError(
            f'checkpoint {path} ({path.stat().st_size} bytes) cannot be read: it is truncated, not a PyTorch '
            f'checkpoint, or holds more than weights ({reason}).{_other_checkpoints(path)}'
        ) from error


def use_safe_loading() -> None:
    """Make MMEngine read local checkpoints by ``load_checkpoint_file`` in this process.

    The OneDL fork of MMEngine turns ``weights_only`` off when a file does not load with it.
    """

    def load_from_local(filename: str, map_location=None) -> dict:
        return load_checkpoint_file(filename, map_location)

    CheckpointLoader.register_scheme('', load_from_local, force=True)


register_backend(ATOMIC_BACKEND, AtomicLocalBackend, force=True)
allow_mmengine_checkpoints()
