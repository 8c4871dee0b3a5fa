"""Whether files exist, for few or for millions of paths."""

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mmengine import fileio

_THREADS = 16  # a network file system answers many questions at a time
_PART = 1000  # paths that a thread looks up at a time


def evenly_spaced(count: int, limit: int) -> Sequence[int]:
    """Return the indices of a sample.

    Args:
        count (int): Number of items, at least 1.
        limit (int): Size of the sample, at least 1.

    Returns:
        Sequence[int]: All indices if there are at most ``limit``, otherwise ``limit`` different ones from the
        first to the last.
    """
    if count <= limit:
        return range(count)
    return [number * (count - 1) // max(limit - 1, 1) for number in range(limit)]


def find_bad_files(paths: Sequence[str], files: fileio.BaseStorageBackend) -> tuple[list[str], list[str]]:
    """Find the paths that are no files, and the files of no bytes.

    Args:
        paths (Sequence[str]): The paths.
        files (BaseStorageBackend): MMEngine's backend of the paths.

    Returns:
        tuple[list[str], list[str]]: The paths without a file, and the empty files, in the order of ``paths``.
        Only the local backend knows which files are empty.
    """
    is_local = isinstance(files, fileio.LocalBackend)

    def size(path: str) -> int:  # -1: no file
        if not is_local:
            return 1 if files.isfile(path) else -1
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return -1
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    parts = [paths[first : first + _PART] for first in range(0, len(paths), _PART)]
    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = [number for part in pool.map(lambda part: list(map(size, part)), parts) for number in part]
    missing = [path for path, number in zip(paths, sizes, strict=True) if number < 0]
    return missing, [path for path, number in zip(paths, sizes, strict=True) if not number]
