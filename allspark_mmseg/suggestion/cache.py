"""Scores and features of images on disk, so that an interrupted ranking goes on."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

VERSION = 2  # of the scores; another number makes old caches void


def make_key(files: Iterable[Path], settings: object) -> str:
    """Return a key of the content of checkpoints and of settings.

    Args:
        files (Iterable[Path]): The checkpoints.
        settings (object): Settings that change scores; their ``repr`` counts.

    Returns:
        str: 16 hexadecimal digits.
    """
    digest = hashlib.blake2b(repr((VERSION, settings)).encode(), digest_size=8)
    for file in files:
        with open(file, 'rb') as opened:
            while part := opened.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


def fingerprint(path: str) -> str:
    """Return a text that changes with the file: its path, size and time of change."""
    status = os.stat(path)
    return f'{os.path.realpath(path)}|{status.st_size}|{status.st_mtime_ns}'


class ScoreCache:
    """Records of images in a JSON-lines file, and their features in a file of float16 rows.

    Both files are only appended to. A crash can leave an incomplete last line or a row without a line; they
    are dropped when the cache is opened.

    Args:
        folder (str | Path): Folder of the two files.
        key (str): Their name; see :func:`make_key`.
    """

    def __init__(self, folder: str | Path, key: str) -> None:
        self.lines = Path(folder) / f'{key}.jsonl'
        self.rows = Path(folder) / f'{key}.f16'
        self.width = 0
        self.records: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> 'ScoreCache':
        """Read the records, drop what is incomplete, and open the files."""
        self.lines.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.lines, self.rows):
            path.touch()
        good = self._read()
        os.truncate(self.lines, good)
        os.truncate(self.rows, len(self.records) * self.width * 2)
        self._line_file, self._row_file = self.lines.open('ab'), self.rows.open('ab')
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._line_file.close()
        self._row_file.close()

    def _read(self) -> int:
        """Read the complete records, and return the number of bytes of their lines."""
        good, size = 0, self.rows.stat().st_size
        with self.lines.open('rb') as lines:
            for line in lines:
                try:
                    entry = json.loads(line) if line.endswith(b'\n') else None
                except ValueError:
                    entry = None
                if entry is None or (entry['row'] + 1) * entry['width'] * 2 > size:
                    break
                self.width = entry['width']
                self.records[entry.pop('image')] = entry
                good += len(line)
        return good

    def get(self, image: str) -> dict[str, Any] | None:
        """Return the record of an image, by its :func:`fingerprint`, or None."""
        return self.records.get(image)

    def add(self, image: str, record: dict[str, Any], feature: np.ndarray) -> None:
        """Append an image.

        Args:
            image (str): Its :func:`fingerprint`.
            record (dict): Its scores, for JSON.
            feature (np.ndarray): (C,).
        """
        self.width = len(feature)
        entry = {**record, 'row': len(self.records), 'width': self.width}
        # the row first: a line without a row would be wrong, a row without a line is dropped
        limit = np.finfo(np.float16).max
        self._row_file.write(np.clip(feature, -limit, limit).astype('<f2').tobytes())
        self._row_file.flush()
        self._line_file.write(json.dumps({'image': image, **entry}).encode() + b'\n')
        self._line_file.flush()
        self.records[image] = entry

    def features(self, images: Sequence[str] | None = None) -> np.ndarray:
        """Return features.

        Args:
            images (Sequence[str], optional): Fingerprints of N images. Default: all, as a memory map.

        Returns:
            np.ndarray: (N, C) float16.
        """
        if not self.records:
            return np.zeros((0, 1), np.float16)
        shape = (len(self.records), self.width)
        mapped = np.memmap(self.rows, dtype='<f2', mode='r', shape=shape)
        return mapped if images is None else mapped[[self.records[image]['row'] for image in images]]
