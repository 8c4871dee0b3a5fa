"""Collects the published lists of a data set from files, the reference, the data set and the rules."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from allspark_mmseg.datasets import parse_list_line
from allspark_mmseg.datasets.published_splits import (
    LISTS,
    REFERENCES,
    derive,
    encode,
    is_published,
    needs_reference,
    verify,
)
from allspark_mmseg.engine.checkpoint import AtomicLocalBackend

from .reference import read_reference

EXISTING, IMPORTED, BY_RULE = 'there already', 'imported', 'by rule'


class VerifiedList(NamedTuple):
    """A list that is the published one.

    Attributes:
        content (bytes): The file.
        origin (str): ``EXISTING``, ``IMPORTED`` or ``BY_RULE``.
        check (str): What ``verify`` returned.
    """

    content: bytes
    origin: str
    check: str


class Collection:
    """The published lists of one data set, before they are written.

    Args:
        dataset (str): ``voc``, ``cityscapes`` or ``coco``.

    Attributes:
        wanted (list[str]): Keys of ``LISTS``.
        lists (dict[str, VerifiedList]): The lists that are available.
        problems (dict[str, str]): Why a list is not available. A list that needs a reference is in neither
            dict if no reference was given.
    """

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset
        self.wanted = [path for path in LISTS if path.startswith(f'{dataset}/')]
        self.lists: dict[str, VerifiedList] = {}
        self.problems: dict[str, str] = {}

    def offer(self, path: str, content: bytes, origin: str) -> None:
        """Add a list if it is still wanted and is the published one."""
        if path not in self.wanted or path in self.lists or path in self.problems:
            return
        try:
            self.lists[path] = VerifiedList(content, origin, verify(path, content))
        except ValueError as error:
            self.problems[path] = f'the list {origin} is not the published one: {error}'

    def offer_existing(self, out: Path) -> None:
        """Add the lists below ``out`` that equal the published ones."""
        for path in self.wanted:
            if (out / path).is_file() and is_published(path, content := (out / path).read_bytes()):
                self.offer(path, content, EXISTING)

    def offer_derived(self) -> None:
        """Add the lists that follow by a rule from lists that equal the published ones."""
        exact = {
            path: entry.content for path, entry in self.lists.items() if is_published(path, entry.content)
        }
        lines = {path: content.decode().splitlines() for path, content in exact.items()}
        for path, derived in derive(lines).items():
            self.offer(path, encode(path, derived), BY_RULE)

    def explain_missing(self, reference: str | None, reason: str) -> None:
        """Note why lists are missing.

        Args:
            reference (str, optional): The reference that was read.
            reason (str): Why lists that need no reference are missing.
        """
        for path in self.wanted:
            if path in self.lists or path in self.problems:
                continue
            if not needs_reference(path):
                self.problems[path] = reason
            elif reference:
                self.problems[path] = f'not in {reference}: name a complete copy of {" or ".join(REFERENCES)}'

    def write(self, out: Path) -> None:
        """Write the lists below ``out``. A file that lists other images stays and becomes a problem."""
        for path, (content, origin, _) in list(self.lists.items()):
            file = out / path
            # published names contain no spaces
            if file.is_file() and sorted(file.read_bytes().split()) != sorted(content.split()):
                self.problems[path] = (
                    f'{file} exists and lists other images: remove it, or choose another --out'
                )
                del self.lists[path]
            elif origin != EXISTING:
                AtomicLocalBackend().put(content, file)

    def missing_files(self, root: Path) -> dict[str, list[str]]:
        """Return the files that the lists name and that do not exist below ``root``.

        Unlabeled images need no mask.

        Args:
            root (Path): Folder of the data set.

        Returns:
            dict[str, list[str]]: ``'images'`` and ``'masks'``, relative to ``root``.
        """
        names: dict[str, dict[str, None]] = {'images': {}, 'masks': {}}
        for path, entry in self.lists.items():
            for line in entry.content.decode().splitlines():
                image, mask = parse_list_line(line)
                names['images'][image] = None
                if mask is not None and not path.endswith('unlabeled.txt'):
                    names['masks'][mask] = None
        return {
            kind: [name for name in of_kind if not (root / name).is_file()] for kind, of_kind in names.items()
        }


def collect(
    dataset: str, out: Path, reference: str | None, from_data: Iterable[tuple[str, list[str]]]
) -> Collection:
    """Collect the published lists of a data set, without writing them.

    Args:
        dataset (str): ``voc``, ``cityscapes`` or ``coco``.
        out (Path): Folder of the lists. Existing lists are reused.
        reference (str, optional): See ``read_reference``.
        from_data (Iterable): Lists that the data set determines, as pairs of a key of ``LISTS`` and lines.

    Returns:
        Collection: The lists and the problems.

    Raises:
        OSError, ValueError: The reference cannot be read.
    """
    collection = Collection(dataset)
    collection.offer_existing(out)
    if reference:
        for path, content in read_reference(reference).items():
            collection.offer(path, content, IMPORTED)
    reason = 'a list that is needed to compute it is missing'
    try:
        for path, lines in from_data:
            collection.offer(path, encode(path, lines), BY_RULE)
    except (FileNotFoundError, ValueError) as error:
        # this matters only for the lists that were not found above
        reason = str(error)
    collection.offer_derived()
    collection.explain_missing(reference, reason)
    return collection
