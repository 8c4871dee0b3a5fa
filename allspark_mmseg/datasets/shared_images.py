"""Images that two data sets share, also if one of them has millions."""

import os
import os.path as osp
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from mmengine.dataset import BaseDataset, ConcatDataset

from .image_list import ImageListDataset, Items
from .list_index import hash_name


def image_files(parts: Sequence[BaseDataset | ConcatDataset]) -> set[str]:
    """Return the resolved paths of the images of data sets.

    Args:
        parts (Sequence[BaseDataset or ConcatDataset]): Data sets whose items have ``img_path``.

    Returns:
        set[str]: Absolute paths without links.
    """
    return {file for part in parts for file in _resolve(part, range(len(part)))}


def shared_images(files: set[str], leaves: Sequence[BaseDataset]) -> list[str]:
    """Find the images of data sets that are among some files.

    A data set of more than ``max_checked`` images is searched by hashes of the names. An image is then found
    if its path has the name of the file; folders can be links.

    Args:
        files (set[str]): Resolved paths, see :func:`image_files`.
        leaves (Sequence[BaseDataset]): Data sets whose items have ``img_path``.

    Returns:
        list[str]: The files that are also in the data sets, sorted.
    """
    if not files:
        return []
    wanted = np.array(sorted({hash_name(os.fsencode(file)) for file in files}), np.uint32)
    shared: set[str] = set()
    for leaf in leaves:
        items = getattr(leaf, 'data_list', None)
        is_large = isinstance(leaf, ImageListDataset) and len(leaf) > leaf.max_checked
        found = items.find_names(wanted) if is_large and isinstance(items, Items) else range(len(leaf))
        shared.update(file for file in _resolve(leaf, found) if file in files)
    return sorted(shared)


def _resolve(dataset: BaseDataset | ConcatDataset, indices: Iterable[int]) -> Iterable[str]:
    # realpath is cached per folder, because it needs a system call for each parent folder of each image
    resolve = lru_cache(maxsize=None)(osp.realpath)
    for index in indices:
        folder, name = osp.split(dataset.get_data_info(index)['img_path'])
        path = osp.join(resolve(folder), name)
        yield osp.realpath(path) if osp.islink(path) else path
