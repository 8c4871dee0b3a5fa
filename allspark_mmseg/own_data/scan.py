"""What the image files contain: format, size, channels, bit depth, damage, and a perceptual hash."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from .files import Cache, Problem

_ORIENTATION_TAG = 0x0112
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_EXTRA_SAMPLES_TAG = 338
_USABLE_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'RGBX')
# what Pillow raises for damaged files
READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_DRAFT = (256, 256)  # a JPEG file is decoded at 1/2, 1/4 or 1/8 of its size, not smaller than this


def describe_damage(path: Path, error: Exception) -> str:
    """Say why a file is no image.

    Args:
        path (Path): The file.
        error (Exception): The error of Pillow.

    Returns:
        str: A phrase that follows the path.
    """
    start = path.read_bytes()[:512].lstrip().lower()
    if not start:
        return 'is an empty file'
    if start.startswith((b'<!doctype', b'<html', b'<head')):
        return 'is a web page, not an image'
    if start.startswith(b'version https://git-lfs'):
        return 'is a pointer of Git LFS, not an image; run git lfs pull'
    if isinstance(error, UnidentifiedImageError):
        return 'is not an image'
    if isinstance(error, Image.DecompressionBombError):
        return 'has more than 179 million pixels, which Pillow refuses; cut it into parts'
    return f'is damaged ({error})'


def read_facts(path: Path, with_hash: bool) -> dict[str, Any]:
    """Read an image.

    Args:
        path (Path): The file.
        with_hash (bool): Whether to compute the perceptual hash; needs the package ImageHash.

    Returns:
        dict: ``error`` alone, or ``format``, ``mode`` of Pillow, ``bits`` per channel, ``bands``, ``size``
        ``[width, height]`` after the rotation by EXIF, ``rotated``, and ``hash`` (16 hexadecimal digits).
    """
    try:
        with Image.open(path) as image:
            rotated = image.getexif().get(_ORIENTATION_TAG) in _ROTATED
            size = image.size[::-1] if rotated else image.size
            facts: dict[str, Any] = {
                'format': image.format,
                'mode': image.mode,
                'bits': _bits(path, image),
                'bands': _bands(image),
                'size': list(size),
                'rotated': rotated,
            }
            image.draft('RGB' if image.mode == 'RGB' else 'L', _DRAFT)
            image.load()  # reads the whole file, and so finds truncated ones
            if with_hash:
                facts['hash'] = _hash(image)
            return facts
    except READ_ERRORS as error:
        return {'error': describe_damage(path, error)}


def _bits(path: Path, image: Image.Image) -> int:
    if image.format == 'PNG':
        with path.open('rb') as file:
            return file.read(25)[24]  # Pillow reads 16-bit RGB as 8-bit RGB
    if image.format == 'TIFF':
        return max(image.tag_v2.get(258, (8,)))  # type: ignore[attr-defined]
    return {'1': 1, 'I;16': 16, 'I': 32, 'F': 32}.get(image.mode, 8)


def _bands(image: Image.Image) -> int:
    """Count the bands without an alpha channel. A fourth band of a TIFF file is alpha only if it says so."""
    bands = len(image.getbands())
    if image.format == 'TIFF' and image.mode == 'RGBA':
        extra = image.tag_v2.get(_EXTRA_SAMPLES_TAG, (0,))  # type: ignore[attr-defined]
        return 3 if extra[0] in (1, 2) else 4
    return bands - (image.mode in ('LA', 'PA', 'RGBA'))


def _hash(image: Image.Image) -> str:
    from imagehash import phash

    return str(phash(image))


def unusable(facts: dict) -> str | None:
    """Say why an image cannot be trained on.

    Args:
        facts (dict): From :func:`read_facts`.

    Returns:
        str or None: A phrase that follows the path.
    """
    if 'error' in facts:
        return facts['error']
    if facts['bits'] > 8 or facts['mode'] not in _USABLE_MODES:
        return (
            f'has {facts["bits"]} bits per channel, expected 8; convert all images with one scale, for '
            'example the lowest and highest value of all of them to 0 and 255'
        )
    if facts['bands'] == 4 and facts['mode'] != 'CMYK':
        return 'has 4 bands, expected 1 or 3; write 3 of them to new files'
    return None


def scan_images(
    root: Path, paths: Sequence[str], hashed: Collection[str], cache: Cache
) -> tuple[dict[str, dict], list[Problem]]:
    """Read all images in parallel.

    Args:
        root (Path): The data.
        paths (Sequence[str]): The images, relative to ``root``.
        hashed (Collection[str]): Those that need a perceptual hash.
        cache (Cache): Results of earlier runs.

    Returns:
        tuple[dict[str, dict], list[Problem]]: The facts of each usable image, and the others.
    """
    needed = set(hashed)
    plain = [path for path in paths if path not in needed]
    facts = cache.map(lambda path: read_facts(root / path, False), root, plain, 'image', 'reading images')
    facts |= cache.map(
        lambda path: read_facts(root / path, True), root, sorted(needed), 'hashed', 'reading images'
    )
    problems = [Problem(path, reason) for path in paths if (reason := unusable(facts[path])) is not None]
    bad = {problem.path for problem in problems}
    return {path: facts[path] for path in paths if path not in bad}, problems


def find_copies(root: Path, paths: Sequence[str]) -> list[Problem]:
    """Find files with the same bytes.

    Args:
        root (Path): The data.
        paths (Sequence[str]): The files; the first of equal ones is kept.

    Returns:
        list[Problem]: The other ones.
    """
    by_size = defaultdict(list)
    for path in paths:
        by_size[(root / path).stat().st_size].append(path)
    first: dict[str, str] = {}
    problems = []
    for group in by_size.values():
        for path in group if len(group) > 1 else ():
            digest = hashlib.sha1((root / path).read_bytes()).hexdigest()
            if first.setdefault(digest, path) != path:
                problems.append(Problem(path, f'is a copy of {first[digest]}'))
    return problems
