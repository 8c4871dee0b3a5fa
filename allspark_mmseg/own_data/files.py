"""Files below a folder, work in parallel, and files of results of earlier runs."""

import fnmatch
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from ..datasets.list_lines import IMAGE_SUFFIXES
from ..output import complete_file, progress

WORK = '.allspark'  # folder below the data for lists, converted masks and results of earlier runs
_VERSION = 1  # of what is cached

# files in the folders of predict and of suggest
_RESULTS = {'predict.json', 'drafts.json'}
T = TypeVar('T')
R = TypeVar('R')


class Problem(NamedTuple):
    """A file that is not used, or that is used with a restriction.

    Attributes:
        path (str): The file, relative to the data.
        reason (str): A phrase that follows the path, for example ``'is an empty file'``.
    """

    path: str
    reason: str


def list_files(root: Path) -> list[str]:
    """List the files below a folder, without hidden ones. Links to folders are followed once.

    Args:
        root (Path): The folder.

    Returns:
        list[str]: Paths relative to ``root``, with slashes, sorted.
    """
    found, seen = [], set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if not _RESULTS.isdisjoint(names) and folder != str(root):
            folders.clear()  # results of predict and suggest are not data
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(('.', '__MACOSX')))
        relative = PurePosixPath(Path(folder).relative_to(root).as_posix())
        found += [str(relative / name) for name in names if not name.startswith('.')]
    return sorted(found)


def is_image(path: str) -> bool:
    """Whether the suffix of a path is that of an image, in any case."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def select(root: Path, files: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Select the files of folders, of patterns (``*``, ``?``), and single files.

    Args:
        root (Path): The data.
        files (Sequence[str]): Paths relative to ``root``.
        patterns (Sequence[str]): Folders, patterns or files. A relative one is looked up below ``root``.

    Returns:
        list[str]: The selected paths, relative to ``root`` if they are below it, sorted.

    Raises:
        FileNotFoundError: A pattern selects nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        path = root / pattern
        relative = os.path.relpath(path, root).replace(os.sep, '/')
        if path.is_dir():
            outside = relative == '..' or relative.startswith('../')
            inside = [name for name in files if relative == '.' or name.startswith(f'{relative}/')]
            new = [str((path / name).resolve()) for name in list_files(path)] if outside else inside
        elif path.is_file():
            new = [relative]
        else:
            new = [name for name in files if fnmatch.fnmatchcase(name, pattern)]
        if not new:
            raise FileNotFoundError(
                f"'{pattern}' selects no file of {root}; expected a folder, a file or a pattern such as "
                "'images/*.jpg', relative to it."
            )
        found.update(new)
    return sorted(found)


def parallel_map(function: Callable[[T], R], items: Sequence[T], description: str) -> list[R]:
    """Apply a function to all items in threads, with a progress bar. An interrupt stops at once.

    Args:
        function (Callable): Takes an item. Pillow, OpenCV and NumPy release the interpreter lock in it.
        items (Sequence): The items.
        description (str): What is done, for the progress bar.

    Returns:
        list: The results, in the order of the items.
    """
    if not items:
        return []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        results: Iterable[R] = pool.map(function, items)
        return list(progress(results, description, total=len(items)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def stamp(path: Path) -> list[int]:
    """Return time of change (ns) and size (bytes) of a file, which tell whether it has changed."""
    status = path.stat()
    return [status.st_mtime_ns, status.st_size]


class Cache:
    """Results of reading files, kept between runs in a JSON file.

    Args:
        path (Path): The file. A missing or damaged file is an empty cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, list] = {}
        try:
            content = json.loads(path.read_text())
            self.entries = content['entries'] if content['version'] == _VERSION else {}
        except (OSError, ValueError, KeyError):
            pass  # everything is read again

    def map(
        self, function: Callable[[str], dict], root: Path, paths: Sequence[str], kind: str, description: str
    ) -> dict[str, dict]:
        """Apply a function to files that are new or have changed since the last run.

        Args:
            function (Callable): Takes a path relative to ``root`` and returns a dict for JSON.
            root (Path): The data.
            paths (Sequence[str]): The files, relative to ``root``.
            kind (str): Name of the function and of its arguments in the cache.
            description (str): What is done, for the progress bar.

        Returns:
            dict[str, dict]: The result of each path.
        """
        stamps: dict[str, list[int]] = {path: stamp(root / path) for path in paths}
        known: dict[str, Any] = {}
        for path in paths:
            entry = self.entries.get(f'{kind} {path}')
            if entry is not None and entry[0] == stamps[path]:
                known[path] = entry[1]
        waiting = [path for path in paths if path not in known]
        done: dict[str, dict] = {}

        def keep(path: str) -> None:
            done[path] = function(path)

        try:
            parallel_map(keep, waiting, description)
        finally:
            # after an interrupt, the next run reads the rest
            self.entries.update({f'{kind} {path}': [stamps[path], done[path]] for path in done})
        return known | done

    def save(self) -> None:
        """Write the file."""
        with complete_file(self.path) as path:
            path.write_text(json.dumps({'version': _VERSION, 'entries': self.entries}))
