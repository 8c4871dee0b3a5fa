"""What a run of ``new`` remembers for the next one, in ``DATA/.allspark/state.json``."""

import hashlib
import json
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
