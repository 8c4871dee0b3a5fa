"""Reads the published lists from a copy of the AllSpark or the UniMatch repository."""

from __future__ import annotations

import http.client
import re
import shutil
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from allspark_mmseg.datasets.published_splits import DATASETS, LISTS, REFERENCES

# the repositories name the folder of the Pascal VOC lists "pascal"
REFERENCE_FOLDERS = {'pascal': 'voc', **{dataset: dataset for dataset in DATASETS}}
ADVICE = f'Name a copy of {" or ".join(REFERENCES)}.'


def archive_address(address: str) -> str:
    """Return the address of the archive of a GitHub repository, or any other address unchanged."""
    repository = re.fullmatch(r'(https?://github\.com/[^/]+/[^/]+?)(\.git)?/?', address)
    return f'{repository[1]}/archive/refs/heads/main.zip' if repository else address


def download(address: str, path: Path) -> None:
    """Download ``address`` to the file ``path``.

    Raises:
        OSError: There is no connection or no such file.
    """
    request = urllib.request.Request(address, headers={'User-Agent': 'allspark_mmseg'})
    try:
        with urllib.request.urlopen(request, timeout=60) as response, path.open('wb') as file:
            shutil.copyfileobj(response, file)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f'--reference: could not download {address}: {error}. Give the address of an archive, or '
            'download the archive elsewhere and give the path of the file.'
        ) from error


def read_reference(reference: str) -> dict[str, bytes]:
    """Read the published lists from a copy of a reference repository. They are not verified.

    Args:
        reference (str): A folder, a zip or tar archive of it, the address of an archive, or the address of a
            repository on GitHub. The folder is splits/ itself, or contains splits/ directly or one level
            below.

    Returns:
        dict[str, bytes]: Maps keys of ``LISTS`` to file contents with Unix line ends.

    Raises:
        OSError: ``reference`` does not exist, is not an archive, or cannot be downloaded.
        ValueError: It contains none of the lists.
    """
    if re.match('https?://', reference):
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch, 'archive')
            download(archive_address(reference), archive)
            lists = dict(_archive_lists(archive, reference))
    elif Path(reference).is_dir():
        lists = dict(_folder_lists(Path(reference)))
    elif Path(reference).is_file():
        lists = dict(_archive_lists(Path(reference), reference))
    else:
        raise FileNotFoundError(
            f"--reference: expected a folder, an archive or an address, found nothing at '{reference}'. "
            + ADVICE
        )
    if not lists:
        raise ValueError(
            f'--reference: expected lists such as splits/pascal/val.txt, found none in {reference}. {ADVICE}'
        )
    # git may have changed the line ends of a copy on Windows
    return {path: content.replace(b'\r\n', b'\n') for path, content in lists.items()}


def _folder_lists(folder: Path) -> Iterator[tuple[str, bytes]]:
    roots = [folder / 'splits', folder, *sorted(folder.glob('*/splits'))]
    for path in LISTS:
        dataset, name = path.split('/', 1)
        folders = [own for own, key in REFERENCE_FOLDERS.items() if key == dataset]
        files = (root / own / name for root in roots for own in folders)
        if file := next((file for file in files if file.is_file()), None):
            yield path, file.read_bytes()


def _archive_lists(archive: Path, name: str) -> Iterator[tuple[str, bytes]]:
    try:
        if zipfile.is_zipfile(archive):
            yield from _zip_lists(archive)
        elif tarfile.is_tarfile(archive):
            yield from _tar_lists(archive)
        else:
            raise ValueError('expected a zip or tar archive, found another file')
    except (OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise OSError(f'--reference: could not read {name}: {error}. Download it again.') from error


def _zip_lists(archive: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as file:
        for member in file.namelist():
            if path := list_key(member):
                yield path, file.read(member)


def _tar_lists(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as file:
        for member in file:
            if path := list_key(member.name):
                content = file.extractfile(member)
                if content is not None:  # a folder has no content
                    yield path, content.read()


def list_key(member: str) -> str | None:
    """Return the key of ``LISTS`` for a path in an archive, or None if the path is not that of a list.

    Examples:
        >>> list_key('AllSpark-main/splits/pascal/val.txt')
        'voc/val.txt'
        >>> list_key('coco/val.txt')
        'coco/val.txt'
    """
    folders = '|'.join(REFERENCE_FOLDERS)
    match = re.fullmatch(rf'(?:\./)?(?:[^/]+/)??(?:splits/)?({folders})/(.+)', member)
    path = f'{REFERENCE_FOLDERS[match[1]]}/{match[2]}' if match else None
    return path if path in LISTS else None
