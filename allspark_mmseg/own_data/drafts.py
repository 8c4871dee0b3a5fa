"""Masks that ``suggest`` drew, so that ``new --add`` can tell which of them nobody has corrected."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..output import complete_file

INDEX = 'drafts.json'  # in the folder of suggest: relative path -> digest


def record_drafts(folder: Path, drafts: Iterable[Path]) -> None:
    """Add new files to the index of a folder.

    Args:
        folder (Path): The folder of ``suggest``.
        drafts (Iterable[Path]): Files below it.
    """
    digests = _read(folder) | {path.relative_to(folder).as_posix(): _digest(path) for path in drafts}
    with complete_file(folder / INDEX) as path:
        path.write_text(json.dumps(digests))


def find_drafts(folder: Path, names: Sequence[str]) -> list[str]:
    """Find the files that are still as ``suggest`` wrote them.

    Args:
        folder (Path): The folder of ``suggest``, or a folder in it.
        names (Sequence[str]): Files, relative to ``folder``.

    Returns:
        list[str]: Those that have not changed.
    """
    root = folder if (folder / INDEX).is_file() else folder.parent
    digests = _read(root)
    known = {name: digests.get((folder / name).relative_to(root).as_posix()) for name in names}
    return [name for name, digest in known.items() if digest and digest == _digest(folder / name)]


def _read(folder: Path) -> dict[str, str]:
    try:
        return json.loads((folder / INDEX).read_text())
    except (OSError, ValueError):
        return {}  # no folder of suggest


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
