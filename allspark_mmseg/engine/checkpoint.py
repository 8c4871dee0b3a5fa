"""Checkpoints with atomic writes and safe loading."""

import errno
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import CheckpointLoader, Runner

ATOMIC_BACKEND = 'allspark_mmseg.atomic'


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local file backend with atomic writes.

    A file gets its name only when it is complete. An interrupted write leaves the previous checkpoint
    unchanged. Use it in a config as ``CheckpointHook(backend_args=dict(backend='allspark_mmseg.atomic'))``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a temporary file in the same folder and rename it.

        Args:
            obj (bytes): Content of the file.
            filepath (str or Path): Path of the file.

        Raises:
            OSError: The file cannot be written. If the disk is full, the message has the missing bytes.
        """
        temporary = f'{filepath}.{os.getpid()}.tmp'
        try:
            super().put(obj, temporary)
            os.replace(temporary, filepath)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            Path(temporary).unlink(missing_ok=True)
            raise OSError(_describe_full_disk(Path(filepath), len(obj))) from error
        finally:
            Path(temporary).unlink(missing_ok=True)


def _describe_full_disk(path: Path, needed: int) -> str:
    free = shutil.disk_usage(path.parent).free
    lack = (
        f'{_megabytes(needed - free)} are missing'
        if needed > free
        else 'a quota or another program takes the space'
    )
    return f'{path} needs {_megabytes(needed)}, but its disk has {_megabytes(free)} free: {lack}'


def _megabytes(count: int) -> str:
    return f'{count / 1e6:.1f} MB'


def save_for_resume(runner: Runner, folder: str | Path, name: str, meta: dict | None = None) -> Path:
    """Save a checkpoint inside an epoch, and make it the one from which ``--resume`` continues.

    Args:
        runner (Runner): The runner.
        folder (str or Path): Folder of the checkpoint.
        name (str): Name of the file.
        meta (dict, optional): ``epoch`` and ``iter``. Default: those after the current iteration.

    Returns:
        Path: The file, which the main process has written.
    """
    options = dict(backend=ATOMIC_BACKEND)
    runner.save_checkpoint(str(folder), name, meta=meta, by_epoch=False, backend_args=options)
    path = Path(folder, name)
    if is_main_process():
        # not write_text: a full disk would leave an empty file
        AtomicLocalBackend().put(str(path).encode(), Path(runner.work_dir, 'last_checkpoint'))
    return path


def find_last_checkpoint(work_dir: str | Path) -> Path | None:
    """Return the checkpoint from which ``--resume`` continues.

    The file ``last_checkpoint`` names it. If that is not there, the last complete checkpoint before it is
    used: a kill or a full disk can leave ``last_checkpoint`` empty, someone can delete or move files, and a
    network file system can show an old folder. A run that resumes from an earlier checkpoint repeats its
    steps, and ends with the same weights.

    Args:
        work_dir (str or Path): The work dir.

    Returns:
        Path or None: The checkpoint. None if the run has saved none.

    Raises:
        FileNotFoundError: ``last_checkpoint`` names a file that is not there, and there is no earlier one.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    if not pointer.is_file():
        return None
    named = pointer.read_text().strip()
    places = [Path(named), Path(work_dir, Path(named).name)] if named else []
    found = next((path for path in places if path.is_file()), None)
    if found is not None:
        return found
    last = _checkpoint_number(Path(named)) if named else None
    folders = {Path(work_dir), *(path.parent for path in places)}
    numbers = {path: _checkpoint_number(path) for folder in folders for path in folder.glob('*.pth')}
    earlier = {
        path: number
        for path, number in numbers.items()
        if number is not None and not path.name.startswith('best_') and (last is None or number < last)
    }
    what = f'names {named}, which is not there' if named else 'is empty'
    if not earlier:
        raise FileNotFoundError(
            f'{pointer} {what}, and {work_dir} has no earlier checkpoint. Put the file back, name another '
            'with --resume FILE, or omit --resume to start again.'
        )
    found = max(earlier, key=lambda path: earlier[path])
    print_log(f'{pointer} {what}. The run continues from {found}.', 'current', logging.WARNING)
    return found


def _get_history_method(owner: type, name: str) -> Callable:
    """Replace ``getattr`` in a checkpoint, which could reach ``__globals__`` and execute code."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise UnpicklingError(f'getattr({owner!r}, {name!r}) is not a method of the log history')
    return getattr(owner, name)


def allow_mmengine_checkpoints() -> None:
    """Allow ``torch.load(weights_only=True)``, the default since PyTorch 2.6, to read MMEngine's checkpoints.

    These contain tensors and the log history: NumPy arrays and scalars in a ``HistoryBuffer``. Methods of the
    ``HistoryBuffer`` are stored as ``getattr(HistoryBuffer, name)``. Other uses of ``getattr`` stay
    forbidden.
    """
    multiarray = (getattr(np, '_core', None) or np.core).multiarray
    dtypes = {type(np.dtype(name)) for name in ('bool', 'int32', 'int64', 'uint8', 'float32', 'float64')}
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_get_history_method, 'builtins.getattr'),
            slice,
            np.ndarray,
            np.dtype,
        ]
        # NumPy 2 moved these functions; files contain the module of the NumPy version that wrote them
        + [
            (function, f'numpy.{module}.multiarray.{function.__name__}')
            for function in (multiarray._reconstruct, multiarray.scalar)
            for module in ('core', '_core')
        ]
        + sorted(dtypes, key=str)
    )


def _suggest_other_checkpoints(path: Path) -> str:
    """Return a hint for the error message about other checkpoints of the same run."""
    if _checkpoint_number(path) is None:
        return ''
    numbers = {other: _checkpoint_number(other) for other in path.parent.glob('*.pth') if other != path}
    others = sorted((number, other) for other, number in numbers.items() if number is not None)
    if not others:
        return ' There is no other checkpoint in its folder.'
    names = ', '.join(other.name for _, other in others[-3:])
    return f' Its folder also has {names}: resume with --resume {others[-1][1]}.'


def _checkpoint_number(path: Path) -> int | None:
    match = re.fullmatch(r'.*(?:epoch|iter)_(\d+)\.pth', path.name)
    return int(match[1]) if match else None


def _extract_reason(error: Exception) -> str:
    """Return the reason in PyTorch's error message, without its advice to disable safe loading."""
    if not isinstance(error, RuntimeError | UnpicklingError):
        return type(error).__name__
    advice = ('Weights only load failed', '(1)', '(2)', 'Check the documentation', 'Please file an issue')
    lines = [line.strip().removeprefix('WeightsUnpickler error: ') for line in str(error).splitlines()]
    reason = next((line for line in lines if line and not line.startswith(advice)), type(error).__name__)
    return re.split(r'\. (?=[A-Z])', reason)[0].partition(' Please use `torch')[0][:300]


def load_checkpoint_file(filename: str | Path, map_location: str | torch.device | None = None) -> dict:
    """Load a local checkpoint without executing code that it contains.

    Args:
        filename (str or Path): Path of the file.
        map_location (str or torch.device, optional): The argument of ``torch.load``.

    Returns:
        dict: The checkpoint.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is truncated, is not a checkpoint, or contains objects other than tensors and
            MMEngine's log history.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} not found.{_suggest_other_checkpoints(path)}')
    allow_mmengine_checkpoints()  # again, because the OneDL fork removes its safe globals after each load
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # a damaged pickle can raise KeyError, struct.error, UnicodeDecodeError, ...
        reason = _extract_reason(error)
        raise ValueError(
            f'checkpoint {path} ({path.stat().st_size} bytes) cannot be read: it is truncated, not a PyTorch '
            f'checkpoint, or contains more than weights ({reason}).{_suggest_other_checkpoints(path)}'
        ) from error


def use_safe_loading() -> None:
    """Make MMEngine load local checkpoints with :func:`load_checkpoint_file` in this process.

    The OneDL fork of MMEngine disables ``weights_only`` when a file does not load with it.
    """

    def load_from_local(filename: str, map_location: str | torch.device | None = None) -> dict:
        return load_checkpoint_file(filename, map_location)

    CheckpointLoader.register_scheme('', load_from_local, force=True)


register_backend(ATOMIC_BACKEND, AtomicLocalBackend, force=True)
allow_mmengine_checkpoints()
