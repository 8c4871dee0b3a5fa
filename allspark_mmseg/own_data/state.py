"""What a run of ``new`` remembers for the next one, in ``DATA/.allspark/state.json``."""

import hashlib
import json
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..output import complete_file
from .files import WORK

_NAME = f'{WORK}/state.json'


@dataclass
class State:
    """Memory of a data set.

    Attributes:
        options (dict): Options of the command line that describe the data. A run that omits one uses it.
        held_out (list[str]): Images that were chosen for validation. They stay there.
        added (dict[str, str]): Image -> mask, from ``--add``.
        configs (dict[str, str]): Path of a config -> digest of the text that was written there.
        classes (list[str]): The classes, in the order of their numbers.
    """

    options: dict = field(default_factory=dict)
    held_out: list[str] = field(default_factory=list)
    added: dict[str, str] = field(default_factory=dict)
    configs: dict[str, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, root: Path) -> 'State':
        """Read the state of a data set, or return an empty one.

        Args:
            root (Path): The data.
        """
        try:
            return cls(**json.loads((root / _NAME).read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def save(self, root: Path) -> None:
        """Write the state.

        Args:
            root (Path): The data.
        """
        write_if_changed(root / _NAME, json.dumps(asdict(self), indent=1))


def digest(text: str) -> str:
    """Return the sha1 of a text."""
    return hashlib.sha1(text.encode()).hexdigest()


def write_if_changed(path: Path, text: str) -> bool:
    """Write a text file, complete or not at all. A file with the same text is left alone.

    Args:
        path (Path): The file.
        text (str): Its content.

    Returns:
        bool: Whether the file was written.
    """
    if path.is_file() and path.read_text() == text:
        return False
    with complete_file(path) as temporary:
        temporary.write_text(text)
    return True


def check_numbers(state: State, now: list[str]) -> None:
    """Refuse other class numbers than those in the masks of ``--add``.

    Args:
        state (State): Memory of the data set.
        now (list[str]): The classes.

    Raises:
        ValueError: A class has another number.
    """
    before = state.classes
    if state.added and now[: len(before)] != before and not _renamed(before, now):
        names = [*before, *(name for name in now if name not in before)]
        raise ValueError(
            f'{len(state.added)} masks of --add hold the class numbers of the last run, and these have '
            f'changed. Keep them with --classes {shlex.join(names)}. To begin anew instead, delete '
            f'{_NAME} in the data, and add the masks again.'
        )


def _renamed(before: list[str], now: list[str]) -> bool:
    """Whether classes that had numbers for names have got names, and kept their numbers."""
    unnamed = [f'class_{number}' for number in range(len(before))]
    return len(before) == len(now) and before in (unnamed, ['background', 'foreground'])


def changed_classes(before: list[str], now: list[str]) -> str | None:
    """Say which classes have other numbers than in the last run, or None if none has.

    Args:
        before (list[str]): The classes of the last run; empty if there was none.
        now (list[str]): The classes.

    Returns:
        str, optional: The sentence.
    """
    if not before or before == now or _renamed(before, now):
        return None
    moved = [
        f'{name} {before.index(name) if name in before else "-"} -> {now.index(name) if name in now else "-"}'
        for name in dict.fromkeys([*before, *now])
        if name not in before or name not in now or before.index(name) != now.index(name)
    ]
    return (
        f'The numbers of the classes have changed since the last run: {", ".join(moved)}. Networks that were '
        'trained before have the old ones; train again. --classes sets the order.'
    )
