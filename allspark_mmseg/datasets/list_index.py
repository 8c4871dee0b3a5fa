"""Lines of a list, in memory or in an index that all processes of a machine share.

Ten million paths as Python objects take gigabytes in each process and half a minute to make. Here a line is
a part of one block of bytes, and it becomes a string when it is read. The block of a long list is a file,
mapped into memory: the processes share its pages, and the next start finds the file by the content of the
list.
"""

import hashlib
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from mmengine.logging import print_log

from ..utils import on_one_process
from .list_lines import parse_list_line

STORED_BYTES = 1 << 24  # size of a list from which its index is a file
_BLOCK = 1 << 20  # bytes of a list that are treated at a time
_PART = 1 << 20  # names that are compared at a time
_PLAIN = bytes(range(0x21, 0x7F))  # a line of these is one column
_VERSION = b'1'  # of the files of an index; another number makes old ones void


def hash_name(name: bytes) -> int:
    """Return 32 bits of the last part of a path. Different names can have the same number."""
    return crc32(name[name.rfind(b'/') + 1 :])


class Lines(Sequence[str]):
    """Texts in one block of bytes.

    Args:
        text (bytes or mmap): The texts, each with one byte after it.
        starts (bytes or mmap): N + 1 numbers of type int64: where each text begins, and the end.
        names (bytes or mmap): N numbers of type uint32: :func:`hash_name` of the first column of each line.
    """

    def __init__(self, text: bytes | mmap.mmap, starts: bytes | mmap.mmap, names: bytes | mmap.mmap) -> None:
        self.text, self.starts, self.names = text, starts, names

    def __len__(self) -> int:
        return len(self.names) // 4

    def __getitem__(self, index: Any) -> str:
        """Return a text. ``index`` is an integer from 0."""
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} of {len(self)} lines')
        first, end = struct.unpack_from('=2q', self.starts, 8 * index)
        return self.text[first : end - 1].decode(errors='surrogateescape')

    def free_pages(self) -> None:
        """Release the memory of the texts that were read, if they are in files."""

    def find_names(self, wanted: np.ndarray) -> np.ndarray:
        """Find the lines whose image has one of some names.

        Args:
            wanted (np.ndarray): (M,) uint32, sorted, at least one: :func:`hash_name` of the names.

        Returns:
            np.ndarray: (L,) int64, the indices. Some lines have another name with the same number.
        """
        names = np.frombuffer(self.names, np.uint32)
        found = []
        for first in range(0, len(names), _PART):
            part = names[first : first + _PART]
            nearest = np.searchsorted(wanted, part).clip(max=len(wanted) - 1)
            found.append(np.flatnonzero(wanted[nearest] == part) + first)
        self.free_pages()
        return np.concatenate(found)


class StoredLines(Lines):
    """Texts in the files of an index.

    Args:
        folder (Path): The folder of the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(_map(folder / 'text'), _map(folder / 'starts'), _map(folder / 'names'))
        for part in (self.text, self.starts):
            if isinstance(part, mmap.mmap) and hasattr(part, 'madvise'):
                part.madvise(mmap.MADV_RANDOM)  # a line needs one page, not the pages around it

    def free_pages(self) -> None:
        """Release the memory of the texts that were read. The system keeps them in its cache."""
        for part in (self.text, self.starts, self.names):
            if isinstance(part, mmap.mmap) and hasattr(part, 'madvise'):
                part.madvise(mmap.MADV_DONTNEED)

    def __reduce__(self) -> tuple:
        return StoredLines, (self.folder,)


def _map(path: Path) -> mmap.mmap:
    with path.open('rb') as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def lines_of_paths(paths: Sequence[str]) -> Lines:
    """Keep paths in memory.

    Args:
        paths (Sequence[str]): The paths.

    Returns:
        Lines: The same texts.
    """
    return _in_memory([_make_block([os.fsencode(path) for path in paths])])


def read_lines(path: Path, source: str) -> Lines:
    """Read a list. The index of a long list is made once on each machine, by one process.

    Args:
        path (Path): The list, a local file.
        source (str): Its name for messages.

    Returns:
        Lines: The lines without the blank ones. They are in memory if the list has less than 16 MiB.

    Raises:
        ValueError: A line has more than two columns, or is not UTF-8.
        OSError: The index cannot be written.
    """
    if path.stat().st_size < STORED_BYTES:
        return _in_memory(_read_blocks(path, source))
    # LOCAL_RANK 0 of each machine, because machines need not share the folder
    name = on_one_process(lambda: _store(path, source), of_each_machine=True)
    return StoredLines(_index_folder() / name)


class _Block(NamedTuple):
    text: bytes
    lengths: np.ndarray  # int64, of the lines with their line break
    names: np.ndarray  # uint32


def _make_block(lines: list[bytes], columns: list[bytes] | None = None) -> _Block:
    lengths = np.fromiter(map(len, lines), np.int64, len(lines)) + 1
    names = np.fromiter(map(hash_name, columns or lines), np.uint32, len(lines))
    return _Block(b''.join([b'\n'.join(lines), b'\n' if lines else b'']), lengths, names)


def _in_memory(blocks: Iterable[_Block]) -> Lines:
    texts, lengths, names = zip(*blocks, strict=True)
    return Lines(b''.join(texts), _starts(lengths).tobytes(), np.concatenate(names).tobytes())


def _starts(lengths: Sequence[np.ndarray]) -> np.ndarray:
    starts = np.concatenate([np.zeros(1, np.int64), *lengths])
    return np.cumsum(starts, out=starts)


def _read_blocks(path: Path, source: str) -> Iterator[_Block]:
    """Yield the lines of a list that are not blank, at least one block."""
    rest, number = b'', 1
    with path.open('rb') as file:
        # Windows editors write a byte-order mark
        part = file.read(_BLOCK).removeprefix(b'\xef\xbb\xbf')
        while part:
            whole, end, rest = (rest + part).rpartition(b'\n')
            if end:
                lines = _split(whole + end)[:-1]
                yield _parse_block(lines, number, source)
                number += len(lines)
            part = file.read(_BLOCK)
    yield _parse_block(_split(rest), number, source)


def _split(block: bytes) -> list[bytes]:
    # bytes.splitlines would also split at characters that a path can contain, such as a form feed
    return block.replace(b'\r\n', b'\n').replace(b'\r', b'\n').split(b'\n')


def _parse_block(lines: list[bytes], number: int, source: str) -> _Block:
    if b'' not in lines and not b''.join(lines).translate(None, _PLAIN):
        return _make_block(lines)
    pairs = [
        (line, column)
        for index, line in enumerate(lines)
        if (column := _first_column(line, f'{source}:{number + index}')) is not None
    ]
    return _make_block([line for line, _ in pairs], [column for _, column in pairs])


def _first_column(line: bytes, place: str) -> bytes | None:
    """Return the path of the image, or None for a blank line."""
    if not line.translate(None, _PLAIN):
        return line or None
    try:
        text = line.decode()
        return parse_list_line(text)[0].encode() if text.strip() else None
    except ValueError as error:
        raise ValueError(f'{place}: {error}') from error


def _index_folder() -> Path:
    caches = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(caches) / 'allspark_mmseg' / 'lists'


def _store(path: Path, source: str) -> str:
    """Write the index of a list, unless it exists, and return the name of its folder."""
    digest = hashlib.sha256(_VERSION)
    with path.open('rb') as file:
        while part := file.read(_BLOCK):
            digest.update(part)
    folder = _index_folder() / digest.hexdigest()[:32]
    if not folder.is_dir():
        print_log(f'{source}: making an index in {folder}. Later starts read it.', logger='current')
        _write_index(path, source, folder)
    return folder.name


def _write_index(path: Path, source: str, folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix='.', dir=folder.parent))
        try:
            _write_files(path, source, temporary)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if folder.is_dir():
            return  # another run was faster
        raise OSError(
            f'{source}: the index of this list cannot be written to {folder} ({error}). Set the environment '
            'variable XDG_CACHE_HOME to a folder with twice as much space as the list has.'
        ) from error


def _write_files(path: Path, source: str, folder: Path) -> None:
    lengths = []
    with (folder / 'text').open('wb') as text, (folder / 'names').open('wb') as names:
        for block in _read_blocks(path, source):
            text.write(block.text)
            names.write(block.names.tobytes())
            lengths.append(block.lengths)
    (folder / 'starts').write_bytes(_starts(lengths).data)
