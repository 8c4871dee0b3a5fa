"""Progress bars, and files that are complete or absent."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar('T')


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar on the standard error stream: count, items per second, remaining time.

    Args:
        items (Iterable): The items.
        description (str): What is done, for example ``'reading masks'``.
        total (int, optional): Number of items. Default: ``len(items)``, or unknown.

    Yields:
        The items.
    """
    columns = [
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('{task.fields[rate]}'),
        TimeRemainingColumn(),
    ]
    count = total if total is not None else getattr(items, '__len__', lambda: None)()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=count, rate='')
        for item in items:
            yield item
            speed = bar.tasks[task].speed
            bar.update(task, advance=1, rate=f'{speed:.1f}/s' if speed else '')


@contextmanager
def complete_file(path: str | Path) -> Iterator[Path]:
    """Write a file that appears under its name only when it is complete.

    Args:
        path (str | Path): The file. Its folder is made.

    Yields:
        Path: A temporary file with the same suffix in the same folder. It is deleted if the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix='.', suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; give this one the mode of any other new file
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
