"""Headers of image files: format, size, bands and bits, without decoding the pixels."""

import contextlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mmengine import fileio
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from ..output import complete_file
from .file_checks import map_files

_CACHE_FORMAT = 1  # changes when the fields of ImageHeader change
_BITS = {'1': 1, 'I;16': 16, 'I;16B': 16, 'I;16L': 16, 'I;16N': 16, 'I': 32, 'F': 32}
_ORIENTATION_TAG = 0x0112
_ROTATED_ORIENTATIONS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
# tags of TIFF
_WIDTH, _HEIGHT, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES = 256, 257, 258, 262, 277, 338
_OFFSETS_AND_SIZES = ((273, 279), (324, 325))  # strips, tiles
_PALETTE = 3
_TEXT_STARTS = {
    b'<!doctype': 'is a web page (HTML), not an image',
    b'<html': 'is a web page (HTML), not an image',
    b'<?xml': 'is an XML or SVG file, not an image',
    b'<svg': 'is an XML or SVG file, not an image',
    b'version https://git-lfs': 'is a pointer of Git LFS, not an image; run git lfs pull',
    b'%pdf': 'is a PDF file, not an image',
    b'{': 'is a JSON or text file, not an image',
}
# what Pillow raises for damaged files
READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class ImageHeader(NamedTuple):
    """What the header of an image file says.

    Attributes:
        path (str): The file.
        problem (str): What is wrong with the file, as the end of a sentence; empty if nothing is.
        format (str): Pillow's name of the format, such as ``'JPEG'``.
        mode (str): Pillow's mode, such as ``'RGB'``, ``'P'`` (palette) or ``'I;16'``; empty for a TIFF that
            Pillow does not support.
        bands (int): Bands in the file; a palette is one band.
        bits (int): Bits of one band.
        width (int), height (int): Size in pixels, before the rotation by EXIF.
        rotated (bool): The EXIF orientation swaps width and height.
        alpha (bool): The last band is opacity, as the format says.
        suspicious (bool): The end of the file is not that of a complete file; only decoding can tell.
    """

    path: str
    problem: str = ''
    format: str = ''
    mode: str = ''
    bands: int = 0
    bits: int = 0
    width: int = 0
    height: int = 0
    rotated: bool = False
    alpha: bool = False
    suspicious: bool = False

    def size(self, use_exif: bool) -> tuple[int, int]:
        """Return (width, height), after the rotation by the EXIF orientation if ``use_exif``."""
        return (self.height, self.width) if use_exif and self.rotated else (self.width, self.height)


def read_header(path: str) -> ImageHeader:
    """Read the header of an image file.

    Args:
        path (str): The file, of any of MMEngine's file backends.

    Returns:
        ImageHeader: The header, with ``problem`` if the file is not an image or is truncated.
    """
    try:
        with fileio.get_local_path(path) as local, open(local, 'rb') as file:
            start = file.read(32)
            try:
                return _read(path, file, start)
            except READ_ERRORS as error:
                return ImageHeader(path, describe_damage(start, error))
    except (OSError, ValueError) as error:  # of the file system, or of MMEngine's file backend
        return ImageHeader(path, f'cannot be read ({error})')


def describe_damage(start: bytes, error: Exception) -> str:
    """Say why a file is not an image that can be used.

    Args:
        start (bytes): The first bytes of the file, 32 or more.
        error (Exception): The error of Pillow, one of `READ_ERRORS`.

    Returns:
        str: A phrase that follows the path.
    """
    if isinstance(error, Image.DecompressionBombError):
        return 'has more than 179 million pixels, which Pillow refuses; cut it into parts'
    if not isinstance(error, UnidentifiedImageError):
        return f'is damaged ({error})'
    text = start.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if not text:
        return 'is an empty file'
    for beginning, meaning in _TEXT_STARTS.items():
        if text.startswith(beginning):
            return meaning
    return f'is not an image that Pillow knows (it starts with {start[:8]!r})'


def _read(path: str, file: BinaryIO, start: bytes) -> ImageHeader:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if start[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        return _read_tiff(path, file, start, size)
    with Image.open(file) as image:
        # Pillow reads PNG files with 16 bits as RGB with 8 bits
        bits = start[24] if image.format == 'PNG' and image.mode != 'P' else _BITS.get(image.mode, 8)
        header = ImageHeader(
            path,
            format=image.format or '',
            mode=image.mode,
            bands=len(image.getbands()),
            bits=bits,
            width=image.width,
            height=image.height,
            # getexif would decode a PNG without EXIF
            rotated='exif' in image.info and image.getexif().get(_ORIENTATION_TAG) in _ROTATED_ORIENTATIONS,
            alpha=image.mode in ('LA', 'PA', 'RGBA', 'La', 'RGBa'),
        )
    return header._replace(suspicious=not _has_end(header.format, start, size, file))


def _has_end(kind: str, start: bytes, size: int, file: BinaryIO) -> bool:
    """Return whether the end of a JPEG, PNG or WebP file is that of a complete file. Others are not known."""
    if kind == 'WEBP':
        return size >= int.from_bytes(start[4:8], 'little') + 8
    marker = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}.get(kind)
    if marker is None:
        return True
    file.seek(max(size - 64, 0))
    return marker in file.read()


def _read_tiff(path: str, file: BinaryIO, start: bytes, size: int) -> ImageHeader:
    # Pillow opens few TIFF files with more than four bands or with several bands of 16 bits
    header = file.read(16 if start[2] == 43 or start[3] == 43 else 8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    ends = [
        offset + count
        for offsets, counts in _OFFSETS_AND_SIZES
        for offset, count in zip(_values(tags, offsets), _values(tags, counts), strict=False)
    ]
    if not ends or _WIDTH not in tags or _HEIGHT not in tags:
        return ImageHeader(path, 'is a TIFF file without size or pixels; it may be truncated')
    if max(ends) > size:
        return ImageHeader(path, f'is truncated (it has {size} bytes, and its pixels end at {max(ends)})')
    return ImageHeader(
        path,
        format='TIFF',
        mode='P' if _values(tags, _PHOTOMETRIC) == (_PALETTE,) else '',
        bands=sum(_values(tags, _SAMPLES)) or 1,
        bits=max(_values(tags, _BITS_PER_SAMPLE), default=1),
        width=_values(tags, _WIDTH)[0],
        height=_values(tags, _HEIGHT)[0],
        rotated=_values(tags, _ORIENTATION_TAG)[:1] in [(value,) for value in _ROTATED_ORIENTATIONS],
        alpha=_values(tags, _EXTRA_SAMPLES)[-1:] in ((1,), (2,)),
    )


def _values(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    value = tags.get(tag, ())
    return tuple(map(int, value if isinstance(value, tuple) else (value,)))


def read_headers(paths: Sequence[str], cache: Path | None = None) -> tuple[list[ImageHeader], int]:
    """Read the headers of image files, or take them from a cache.

    Args:
        paths (Sequence[str]): The files.
        cache (Path, optional): JSON file with the headers of an earlier start. An entry is used if path,
            size and time of change of the file are the same. It is not written; see :func:`write_cache`.

    Returns:
        tuple[list[ImageHeader], int]: The headers in the order of ``paths``, and how many were read from
        files.
    """
    known = _read_cache(cache)
    # a key of the cache has the absolute path
    headers = {
        path: known[key]._replace(path=path) for path in set(paths) if (key := cache_key(path)) in known
    }
    unread = sorted(set(paths) - set(headers))
    with any_size():
        headers.update({header.path: header for header in map_files(read_header, unread)})
    return [headers[path] for path in paths], len(unread)


@contextlib.contextmanager
def any_size() -> Iterator[None]:
    """In a block or a function, let Pillow open images of more than 179 million pixels.

    Pillow refuses them, to protect servers from hostile files. Here, the files are the user's own.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def cache_key(path: str) -> str | None:
    """Return path, size and time of change of a local file, or None for files of other backends."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return f'{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}'


def _read_cache(cache: Path | None) -> dict[str | None, ImageHeader]:
    try:
        stored = {} if cache is None else json.loads(cache.read_text())
        if stored.get('format') != _CACHE_FORMAT:
            return {}
        return {key: ImageHeader(key.rsplit('|', 2)[0], *fields) for key, fields in stored['headers'].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # no cache, or one that is damaged


def write_cache(cache: Path, headers: Iterable[ImageHeader]) -> None:
    """Add headers to the cache, for the next start. Files with a problem are read again.

    Args:
        cache (Path): The JSON file. A folder without write access is no error.
        headers (Iterable[ImageHeader]): The headers.
    """
    new = {header.path: header for header in headers}
    # of other data sets, such as those of a test
    replaced = {os.path.abspath(path) for path in new}
    stored = {key: header[1:] for key, header in _read_cache(cache).items() if header.path not in replaced}
    keys = ((cache_key(header.path), header) for header in new.values() if not header.problem)
    stored.update((key, header[1:]) for key, header in keys if key)
    with contextlib.suppress(OSError), complete_file(cache) as temporary:
        temporary.write_text(json.dumps({'format': _CACHE_FORMAT, 'headers': stored}))
