"""What the image files contain: format, size, channels, bit depth, damage, and a perceptual hash."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..datasets.image_headers import READ_ERRORS, describe_damage, read_header
from .files import Cache, Problem

_USABLE_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'RGBX')
_DRAFT = (256, 256)  # a JPEG file is decoded at 1/2, 1/4 or 1/8 of its size, not smaller than this


def read_facts(path: Path, with_hash: bool) -> dict[str, Any]:
    """Read an image.

    Args:
        path (Path): The file.
        with_hash (bool): Whether to compute the perceptual hash; needs the package ImageHash.

    Returns:
        dict: ``error`` alone, or ``format``, ``mode`` of Pillow, ``bits`` per band, ``bands`` without alpha,
        ``size`` ``[width, height]`` after the rotation by EXIF, ``rotated``, and ``hash`` (16 hexadecimal
        digits). TIFF files of a kind that Pillow cannot decode have the mode ``''`` and no hash.
    """
    header = read_header(str(path))
    if header.problem:
        return {'error': header.problem}
    facts: dict[str, Any] = {
        'format': header.format,
        'mode': header.mode,
        'bits': header.bits,
        'bands': header.bands - header.alpha,
        'size': list(header.size(use_exif=True)),
        'rotated': header.rotated,
    }
    try:
        with Image.open(path) as image:
            facts['mode'] = image.mode
            image.draft('RGB' if image.mode == 'RGB' else 'L', _DRAFT)
            image.load()  # reads the whole file, and so finds truncated ones
            if with_hash:
                facts['hash'] = _hash(image)
            return facts
    except UnidentifiedImageError:
        return facts
    except READ_ERRORS as error:
        return {'error': describe_damage(path.read_bytes()[:32], error)}


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
    if facts['bits'] > 8:
        return (
            f'has {facts["bits"]} bits per channel, expected 8; convert all images with one scale, for '
            'example the lowest and highest value of all of them to 0 and 255. A config by hand can scale '
            'them in the pipeline: ScaleIntensity in docs/own_data.md'
        )
    if facts['bands'] not in (1, 3) and facts['mode'] != 'CMYK':
        return f'has {facts["bands"]} bands, expected 1 or 3; write 3 of them to new files'
    if facts['mode'] not in _USABLE_MODES:
        return f'has pixels of a kind that is not supported ({facts["mode"] or "unknown to Pillow"}); use RGB'
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
