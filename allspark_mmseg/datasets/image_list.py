"""Data set of the images of a list or folder, with or without masks.

A semi-supervised split is a pair of text files; the images are not moved. The published splits (UniMatch,
arXiv:2208.09910; AllSpark, arXiv:2403.01818) are lists of ``image mask`` paths. MMSegmentation's own data
sets read lists of names without suffix, need a mask for every image, and do not check at the start that all
files exist.
"""

import os.path as osp
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from ..registry import DATASETS
from ..utils import format_paths, on_one_process, require
from .file_checks import evenly_spaced, find_bad_files
from .list_index import Lines, lines_of_paths, read_lines
from .list_lines import IMAGE_SUFFIXES, parse_list_line
from .published_splits import command_for

_PART = 10_000  # lines that are checked before their pages are freed


class Items(Sequence[dict]):
    """The items of a data set, which are made when they are read.

    Args:
        dataset (ImageListDataset): The data set.
        lines (Lines): The lines of its list.
        part (range): The indices of its lines.
    """

    def __init__(self, dataset: 'ImageListDataset', lines: Lines, part: range) -> None:
        self.dataset, self.lines, self.part = dataset, lines, part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: Any) -> Any:
        """Return an item, or :class:`Items` for a slice."""
        chosen = self.part[index]
        if isinstance(chosen, range):
            return Items(self.dataset, self.lines, chosen)
        return self.dataset.make_item(self.lines[chosen])

    def find_names(self, wanted: np.ndarray) -> list[int]:
        """Return the indices of the items whose image can have one of some names, see :class:`Lines`."""
        found = self.lines.find_names(wanted).tolist()
        return [self.part.index(index) for index in found if index in self.part]


@DATASETS.register_module()
class ImageListDataset(BaseSegDataset):
    """Images of a list or of a folder, with masks if they are labeled.

    ``ann_file`` is a text file with one ``image`` or ``image mask`` per line; see :func:`parse_list_line`.
    Paths are absolute or relative to ``data_root``. Blank lines are skipped. Without ``ann_file``, the data
    set holds every image below ``data_prefix['img_path']``, sorted by path.

    A labeled data set takes the mask from the second column. If there is no second column, it follows
    MMSegmentation's convention: it looks up the path of the image below ``data_prefix['seg_map_path']``, with
    another suffix. An unlabeled data set reads no masks and ignores a second column.

    The items (``get_data_info``) hold ``img_path``, ``label_map``, ``reduce_zero_label``, ``seg_fields`` and
    ``sample_idx``; labeled items also hold ``seg_map_path``. The data set checks that the files exist when it
    is built, before the first iteration. One process of each machine does so.

    The processes of a machine share the lines of a list of 16 MiB or more. The index of the list, which takes
    up to twice the space of the list, lies below ``$XDG_CACHE_HOME`` or ``~/.cache``. A list with another
    content gets another index.

    Args:
        ann_file (str): The list. A relative path is looked up in ``data_root``, then in the working
            directory. Empty for a folder of images.
        labeled (bool): Whether the images have masks.
        img_suffix (str, optional): End of the image name that ``seg_map_suffix`` replaces, for example
            ``'_leftImg8bit.png'``. A folder then holds only the files with this suffix. None: the file
            extension; a folder then holds all files with one of ``IMAGE_SUFFIXES``.
        data_prefix (dict, optional): ``img_path`` and ``seg_map_path``: folders, absolute or relative to
            ``data_root``.
        max_checked (int): Files that are looked up at the start, at most. Of a larger data set, evenly spaced
            ones are.
        **kwargs: Other arguments of ``BaseSegDataset``: ``data_root``, ``metainfo``, ``pipeline``,
            ``seg_map_suffix`` (``'.png'``), ``indices``.

    Raises:
        FileNotFoundError: ``data_root``, the list, the folder, an image or a mask does not exist; or a file
            is empty.
        ValueError: A line has more than two columns, there is no image, or the path of a mask is unknown.
    """

    ann_file: str

    def __init__(
        self,
        ann_file: str = '',
        labeled: bool = True,
        img_suffix: str | None = None,
        data_prefix: dict | None = None,
        max_checked: int = 100_000,
        **kwargs: Any,
    ) -> None:
        require('ImageListDataset', 'max_checked', max_checked, max_checked >= 1, '1 or more')
        self.labeled = labeled
        self.max_checked = max_checked
        super().__init__(
            ann_file=ann_file,
            img_suffix=img_suffix,
            data_prefix={'img_path': ''} if data_prefix is None else data_prefix,
            **kwargs | {'serialize_data': False},
        )

    def _join_prefix(self) -> None:
        """Join paths with ``data_root``. If the list is not there, use the working directory."""
        ann_file = self.ann_file
        super()._join_prefix()
        if ann_file and not osp.isfile(self.ann_file) and osp.isfile(ann_file):
            self.ann_file = ann_file

    def load_data_list(self) -> Sequence[dict]:
        """Read the list or the folder, and check that the files exist.

        Returns:
            Sequence[dict]: One item per image, in the order of the list. An item is made when it is read.

        Raises:
            FileNotFoundError: A file or folder does not exist, or a file is empty.
            ValueError: A line has more than two columns, there is no image, or the path of a mask is unknown.
        """
        self._files = fileio.get_file_backend(self.data_root or '.', backend_args=self.backend_args)
        if self.data_root and not self._files.isdir(self.data_root):
            raise FileNotFoundError(
                f"data_root: expected a folder, found none at '{self.data_root}' "
                f"(from '{osp.abspath('.')}'). Put the data there, or set data_root to where they are."
            )
        lines = self._read_list() if self.ann_file else self._read_folder()
        if not len(lines):
            raise ValueError(
                f'{self._source}: expected at least one image, found none. Check the file or the folder'
                f'{f" and img_suffix={self.img_suffix!r}" if self.img_suffix else ""}.'
            )
        on_one_process(lambda: self._check_files(lines), of_each_machine=True)
        return Items(self, lines, range(len(lines)))

    def make_item(self, line: str) -> dict:
        """Make the item of a line of the list, or of a path in the folder.

        Args:
            line (str): The line.

        Returns:
            dict: The item, without ``sample_idx``.

        Raises:
            ValueError: The path of the mask is unknown.
        """
        image, mask = self._columns(line)
        item = {
            'img_path': image,
            'label_map': self.label_map,
            'reduce_zero_label': self.reduce_zero_label,
            'seg_fields': [],
        }
        return item | ({'seg_map_path': mask or self._mask_by_convention(image)} if self.labeled else {})

    def _columns(self, line: str) -> tuple[str, str | None]:
        if not self.ann_file:
            return osp.join(self.data_prefix.get('img_path') or '.', line), None
        image, mask = parse_list_line(line)
        root = self.data_root or ''
        return osp.join(root, image), None if mask is None else osp.join(root, mask)

    def _check_files(self, lines: Lines) -> None:
        indices = evenly_spaced(len(lines), self.max_checked)
        rows = []
        for index in indices:
            rows.append(self._columns(lines[index]))
            if len(rows) % _PART == 0:
                lines.free_pages()
        lines.free_pages()
        self._require_files('images', [image for image, _ in rows], len(lines))
        if self.labeled:
            masks = [mask or self._mask_by_convention(image) for image, mask in rows]
            self._require_files('masks', masks, len(lines))

    @property
    def _source(self) -> str:
        if self.ann_file:
            return f"ann_file '{self.ann_file}'"
        return f"data_prefix['img_path'] '{self.data_prefix.get('img_path')}'"

    def _read_list(self) -> Lines:
        files = fileio.get_file_backend(self.ann_file, backend_args=self.backend_args)
        if not files.isfile(self.ann_file):
            command = command_for(self.ann_file, self.data_root or '.')
            raise FileNotFoundError(
                f"ann_file: expected a list of images, found no file at '{self.ann_file}'. Give an absolute "
                f"path, or one relative to data_root '{self.data_root}' or to the working directory. Or "
                "remove ann_file to use all images below data_prefix['img_path']."
                + (f' Make it with: {command}' if command else '')
            )
        with files.get_local_path(self.ann_file) as local:
            return read_lines(Path(local), self.ann_file)

    def _read_folder(self) -> Lines:
        folder = self.data_prefix.get('img_path') or '.'
        if not self._files.isdir(folder):
            raise FileNotFoundError(
                f"data_prefix['img_path']: expected a folder of images, found none at '{folder}'. Set it to "
                'where the images are, or name a list with ann_file.'
            )
        names = self._files.list_dir_or_file(folder, list_dir=False, recursive=True)
        # hidden folders hold thumbnails, trash, or what this package wrote (.allspark)
        names = [name for name in names if not any(part.startswith('.') for part in name.split('/'))]
        if self.img_suffix:
            names = [name for name in names if name.endswith(self.img_suffix)]
        else:
            names = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        return lines_of_paths(sorted(names))

    def _mask_by_convention(self, image: str) -> str:
        folder, masks = self.data_prefix.get('img_path') or '.', self.data_prefix.get('seg_map_path')
        if masks is None:
            raise ValueError(
                f"{self._source}: expected masks because labeled=True, found none for '{image}'. Add a "
                "second column to the list, or set data_prefix['seg_map_path'] to the folder of the masks, "
                'or set labeled=False.'
            )
        name = osp.relpath(image, folder)
        suffix = self.img_suffix or osp.splitext(name)[1]
        if name.startswith(osp.pardir) or not name.endswith(suffix):
            raise ValueError(
                f"{self._source}: the path of the mask of '{image}' is unknown. Expected an image below "
                f"data_prefix['img_path'] '{folder}' whose name ends with '{suffix}'. Correct "
                "data_prefix['img_path'] or img_suffix, or add a second column with the masks to the list."
            )
        return osp.join(masks, name[: len(name) - len(suffix)] + self.seg_map_suffix)

    def _require_files(self, kind: str, paths: Sequence[str], total: int) -> None:
        missing, empty = find_bad_files(paths, self._files)
        # an interrupted copy leaves empty files; OpenCV's error for them does not name the file
        if missing or empty:
            which, what = (missing, 'do not exist') if missing else (empty, 'are empty files')
            sample = '' if len(paths) == total else f' (a sample of {total}; max_checked={self.max_checked})'
            raise FileNotFoundError(
                f'{self._source}: expected {len(paths)} {kind}{sample}, found that {len(which)} of them '
                f'{what}:\n{format_paths(which)}\n{"" if sample else self._guess_spaces()}Check that the '
                f"data are complete and that data_root '{self.data_root}', data_prefix and seg_map_suffix "
                f"'{self.seg_map_suffix}' fit them. A tab separates the columns of a list whose paths "
                'contain spaces.'
            )

    def _guess_spaces(self) -> str:
        """Return a sentence about the first line whose path was cut at a space, or nothing."""
        text = fileio.get_text(self.ann_file, backend_args=self.backend_args) if self.ann_file else ''
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.strip().split(' ')
            for end in range(len(words), 1, -1):
                name = ' '.join(words[:end])
                if '\t' not in line and self._files.isfile(osp.join(self.data_root or '', name)):
                    if parse_list_line(line)[0] == name:
                        break
                    return (
                        f"Line {number} of the list has a name with spaces, '{name}'. Put a tab after it, "
                        'also if no mask follows. '
                    )
        return ''
