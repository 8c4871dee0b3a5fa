"""Images inside tar files (shards, in the layout of WebDataset), on a disk or in an object storage.

An image has a path like ``tar+https://host/pool/000.tar#1536+20480#cat.jpg``: the shard, the first byte and
the number of bytes of the image, and its name. So any image can be read on its own, with one request for a
range of bytes, and the order of images, their augmentation and a resume are those of files. fsspec, which
PyTorch installs, reads local files and HTTP; with s3fs or gcsfs it reads S3 or Google Cloud Storage.
"""

import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from mmengine.fileio import BaseStorageBackend, register_backend

from .list_lines import IMAGE_SUFFIXES, format_list_line

PROTOCOLS = ('http', 'https', 's3', 'gs', 'gcs', 'az', 'abfs', 'hf')
_MEMBER = re.compile(r'(.+)#(\d+)\+(\d+)#.+')
_RANGE = re.compile(r'\{(\d+)\.\.(\d+)\}')
_HEADER_BLOCK = 4096  # bytes that are requested for the header of a member


@register_backend('tar', prefixes=['tar', *(f'tar+{protocol}' for protocol in PROTOCOLS)], force=True)
class TarBackend(BaseStorageBackend):
    """MMEngine's file backend for members of tar files.

    ``tar://FOLDER`` is a local folder with shards, and ``tar+https://HOST/FOLDER`` a folder in a storage.
    Paths without the place of a member are those of whole files.

    Args:
        **options: Options of the fsspec file system, such as ``anon=True`` for S3.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self._sizes: dict[str, int] = {}

    def get(self, filepath: str) -> bytes:
        """Read an image, or a whole file.

        Args:
            filepath (str): The path.

        Returns:
            bytes: The content.

        Raises:
            OSError: The shard cannot be read, or is shorter than when it was listed.
        """
        address, first, count = _split(str(filepath))
        files, url = open_storage(address, self.options)
        if count is None:
            return files.cat_file(url)
        content = files.cat_file(url, start=first, end=first + count)
        if len(content) != count:
            raise OSError(
                f'{filepath}: expected {count} bytes, found {len(content)}. The shard is not the one that '
                'was listed, or the server sends no ranges of bytes.'
            )
        return content

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Read a text file, as :meth:`get`."""
        return self.get(filepath).decode(encoding)

    @contextmanager
    def get_local_path(self, filepath: str) -> Iterator[str]:
        """Copy an image to a temporary file.

        Args:
            filepath (str): The path.

        Yields:
            str: The file, which is deleted after the block.
        """
        handle, name = tempfile.mkstemp(suffix=os.path.splitext(str(filepath))[1])
        try:
            with os.fdopen(handle, 'wb') as file:
                file.write(self.get(filepath))
            yield name
        finally:
            os.unlink(name)

    def join_path(self, filepath: str, *filepaths: str) -> str:
        """Join parts of a path with slashes."""
        return os.path.join(filepath, *filepaths)

    def isdir(self, filepath: str) -> bool:
        """Return True: an object storage has no folders that could be missing."""
        return True

    def isfile(self, filepath: str) -> bool:
        """Return whether the shard exists and is long enough for the image. Each shard is looked up once."""
        address, first, count = _split(str(filepath))
        if address not in self._sizes:
            files, url = open_storage(address, self.options)
            try:
                self._sizes[address] = files.size(url) or 0
            except OSError:
                self._sizes[address] = -1
        return self._sizes[address] >= first + (count or 0)


def _split(path: str) -> tuple[str, int, int | None]:
    """Return the address of a shard for fsspec, the first byte of a member and its number of bytes."""
    path = path.removeprefix('tar://') if path.startswith('tar://') else path.removeprefix('tar+')
    match = _MEMBER.fullmatch(path)
    return (match[1], int(match[2]), int(match[3])) if match else (path, 0, None)


def open_storage(address: str, options: dict[str, Any] | None = None) -> tuple[Any, str]:
    """Return the file system of an address, and the address inside it.

    Args:
        address (str): A local path or a URL.
        options (dict, optional): Options of the file system.

    Returns:
        tuple[AbstractFileSystem, str]: fsspec's file system, one for each process, and the address.

    Raises:
        ImportError: The library of the protocol is not installed.
    """
    try:
        return fsspec.core.url_to_fs(address, **(options or {}))
    except ImportError as error:
        raise ImportError(
            f"{address}: {error} For HTTP: pip install 'allspark-mmseg[shards]'; for S3: pip install s3fs."
        ) from error


def expand_ranges(address: str) -> list[str]:
    """Return the addresses that a pattern like ``pool-{000..099}.tar`` means.

    Args:
        address (str): The pattern, with any number of ranges.

    Returns:
        list[str]: The addresses, in order.
    """
    match = _RANGE.search(address)
    if not match:
        return [address]
    numbers = range(int(match[1]), int(match[2]) + 1)
    parts = (f'{number:0{len(match[1])}}' for number in numbers)
    return [
        whole
        for part in parts
        for whole in expand_ranges(address[: match.start()] + part + address[match.end() :])
    ]


def list_images(address: str, suffix: str | None = None) -> list[str]:
    """List the images of a shard.

    Args:
        address (str): The tar file, a local path or a URL. Only the headers of its members are read.
        suffix (str, optional): End of the names of the images. None: one of ``IMAGE_SUFFIXES``.

    Returns:
        list[str]: The end of the path of each image, beginning with ``#``, in the order of the shard.

    Raises:
        ValueError: The file is not an uncompressed tar file, a sample has two images, or a name has a tab or
            a line break.
        OSError: It cannot be read.
    """
    files, url = open_storage(address)
    images, last = [], ''
    try:
        with (
            files.open(url, 'rb', block_size=_HEADER_BLOCK) as file,
            tarfile.open(fileobj=file, mode='r:') as tar,
        ):
            for member in tar:
                name = member.name
                if not member.isfile() or not name.lower().endswith(suffix or IMAGE_SUFFIXES):
                    continue
                # the members of a sample have one name up to the first dot, and follow each other
                folder, slash, base = name.rpartition('/')
                sample = folder + slash + base.partition('.')[0]
                if sample == last:
                    raise ValueError(
                        f'{address}: the sample {sample} has two images. Choose one with --suffix, for '
                        'example --suffix .jpg.'
                    )
                last = sample
                images.append(f'#{member.offset_data}+{member.size}#{name}')
    except tarfile.TarError as error:
        raise ValueError(
            f'{address}: expected an uncompressed tar file ({error}). Images of a compressed one cannot be '
            'read on their own.'
        ) from error
    return images


def format_shard_lines(shard: str, images: list[str]) -> str:
    """Write the images of a shard as lines of a list.

    Args:
        shard (str): The shard, relative to the data root.
        images (list[str]): See :func:`list_images`.

    Returns:
        str: The lines.

    Raises:
        ValueError: A name has a tab or a line break.
    """
    for image in images:
        if not image.isprintable():
            raise ValueError(f'{shard}: the name {image!r} cannot be in a list. Rename it.')
    return ''.join(f'{format_list_line(shard + image)}\n' for image in images)
