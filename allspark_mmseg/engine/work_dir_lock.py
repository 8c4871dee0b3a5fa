"""Lock of a work dir: two runs would overwrite each other's checkpoints."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# rank of this process before the process group exists: torchrun, Slurm, Open MPI
_RANKS = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}


@contextmanager
def lock_work_dir(work_dir: str | Path, launcher: str = 'none') -> Iterator[None]:
    """Hold the lock of a work dir in the first process of a run.

    The operating system releases it when the process ends, also by SIGKILL. It works between machines if
    their network file system supports locks, as NFS does.

    Args:
        work_dir (str or Path): The work dir. It is made.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        ValueError: Another run uses the work dir, or it cannot be written.
    """
    if fcntl is None or int(os.environ.get(_RANKS.get(launcher, ''), 0)):
        yield
        return
    path = Path(work_dir, '.lock')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open('a+')
    except OSError as error:
        raise ValueError(
            f'the work dir {work_dir} cannot be written ({error.strerror}). Set another --work-dir.'
        ) from error
    with file:
        try:
            # lockf, not flock: the workers of the data loader would inherit it, and outlive a killed process
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(
                f'the work dir {work_dir} is used by another run ({path.read_text().strip()}). Wait for its '
                'end, or set another --work-dir.'
            ) from error
        except OSError:
            pass  # the file system has no locks
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        yield
