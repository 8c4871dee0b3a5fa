"""Data set of the images of a list or folder, with or without masks.

A semi-supervised split is a pair of text files; the images are not moved. The published splits (UniMatch,
arXiv:2208.09910; AllSpark, arXiv:2403.01818) are lists of ``image mask`` paths. MMSegmentation's own data
sets read lists of names without suffix, need a mask for every image, and do not check at the start that all
files exist.
"""

import os.path as osp
import re
from collections.abc import Sequence
from io import StringIO
from typing import Any

from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from ..registry import DATASETS
from ..utils import format_paths
from .published_splits import command_for

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.ppm', '.webp')
_FIRST_IMAGE = re.compile(rf'(.*?(?:{"|".join(map(re.escape, IMAGE_SUFFIXES))}))\s+(\S.*)', re.IGNORECASE)


def parse_list_line(line: str) -> tuple[str, str | None]:
    """Split one line of a list into the path of the image and the path of the mask.

    A tab separates the two columns. In a line without a tab, the first column ends with the first image
    suffix (``IMAGE_SUFFIXES``) before white space, so both paths may contain spaces. A line without such a
    suffix is split at white space.

    Args:
        line (str): The line, not blank.

    Returns:
        tuple[str, str | None]: The image, and the mask or None.

    Raises:
        ValueError: The line has more than two columns.

    Examples:
        >>> parse_list_line('images/my photo.jpg masks/my photo.png')
        ('images/my photo.jpg', 'masks/my photo.png')
        >>> parse_list_line('images/my photo.jpg')
        ('images/my photo.jpg', None)
    """
    line = line.lstrip(' \t').rstrip(' \r\n')  # a tab at the end has a meaning
    if '\t' in line:
        columns = [column.strip() for column in line.rstrip().split('\t')]
    elif _FIRST_IMAGE.fullmatch(line):
        columns = []
        while match := _FIRST_IMAGE.fullmatch(line):
            column, line = match.groups()
            columns.append(column)
        columns.append(line)
    else:
        columns = [line] if line.lower().endswith(IMAGE_SUFFIXES) else line.split()
    if len(columns) > 2:
        raise ValueError(
            f"expected 'image' or 'image mask', found {len(columns)} columns: {columns}. If names contain "
            'spaces, separate the two columns with a tab, and end a line without mask with a tab.'
        )
    return columns[0], columns[1] if len(columns) == 2 else None


def format_list_line(image: str, mask: str | None = None) -> str:
    """Write one line of a list, the inverse of :func:`parse_list_line`.

    Args:
        image (str): Path of the image, without tabs, line breaks, and spaces at its ends.
        mask (str, optional): Path of the mask, with the same restrictions.

    Returns:
        str: The line, without a line break. It has a tab if spaces alone do not separate the columns. A tab
        at its end means that the line is one path.
    """
    line = image if mask is None else f'{image} {mask}'
    if mask is not None and re.search(r'\s', image + mask):
        return f'{image}\t{mask}'
    try:
        if parse_list_line(line) == (image, mask):
            return line
    except ValueError:
        pass  # the path has spaces but no image suffix
    return f'{image}\t{mask or ""}'


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
    ``sample_idx``; labeled items also hold ``seg_map_path``. The data set checks that all files exist when it
    is built, before the first iteration.

    Args:
        ann_file (str): The list. A relative path is looked up in ``data_root``, then in the working
            directory. Empty for a folder of images.
        labeled (bool): Whether the images have masks.
        img_suffix (str, optional): End of the image name that ``seg_map_suffix`` replaces, for example
            ``'_leftImg8bit.png'``. A folder then holds only the files with this suffix. None: the file
            extension; a folder then holds all files with one of ``IMAGE_SUFFIXES``.
        data_prefix (dict, optional): ``img_path`` and ``seg_map_path``: folders, absolute or relative to
            ``data_root``.
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
        **kwargs: Any,
    ) -> None:
        self.labeled = labeled
        super().__init__(
            ann_file=ann_file,
            img_suffix=img_suffix,
            data_prefix={'img_path': ''} if data_prefix is None else data_prefix,
            **kwargs,
        )

    def _join_prefix(self) -> None:
        """Join paths with ``data_root``. If the list is not there, use the working directory."""
        ann_file = self.ann_file
        super()._join_prefix()
        if ann_file and not osp.isfile(self.ann_file) and osp.isfile(ann_file):
            self.ann_file = ann_file

    def load_data_list(self) -> list[dict]:
        """Read the list or the folder, and check that all files exist.

        Returns:
            list[dict]: One item per image, in the order of the list.

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
        rows = self._read_list() if self.ann_file else self._read_folder()
        if not rows:
            raise ValueError(
                f'{self._source}: expected at least one image, found none. Check the file or the folder'
                f'{f" and img_suffix={self.img_suffix!r}" if self.img_suffix else ""}.'
            )
        self._require_files('images', [image for image, _ in rows])
        if not self.labeled:
            return [self._data_info(image) for image, _ in rows]
        pairs = [(image, mask or self._mask_by_convention(image)) for image, mask in rows]
        self._require_files('masks', [mask for _, mask in pairs])
        return [self._data_info(image) | {'seg_map_path': mask} for image, mask in pairs]

    @property
    def _source(self) -> str:
        if self.ann_file:
            return f"ann_file '{self.ann_file}'"
        return f"data_prefix['img_path'] '{self.data_prefix.get('img_path')}'"

    def _data_info(self, image: str) -> dict:
        return {
            'img_path': image,
            'label_map': self.label_map,
            'reduce_zero_label': self.reduce_zero_label,
            'seg_fields': [],
        }

    def _read_list(self) -> list[tuple[str, str | None]]:
        if not self._files.isfile(self.ann_file):
            command = command_for(self.ann_file, self.data_root or '.')
            raise FileNotFoundError(
                f"ann_file: expected a list of images, found no file at '{self.ann_file}'. Give an absolute "
                f"path, or one relative to data_root '{self.data_root}' or to the working directory. Or "
                "remove ann_file to use all images below data_prefix['img_path']."
                + (f' Make it with: {command}' if command else '')
            )
        rows = []
        # Windows editors write a byte-order mark
        text = self._files.get_text(self.ann_file).removeprefix('\ufeff')
        # str.splitlines would also split at characters that a path can contain, such as a form feed
        for number, line in enumerate(StringIO(text, newline=None), start=1):
            if not line.strip():
                continue
            try:
                image, mask = parse_list_line(line)
            except ValueError as error:
                raise ValueError(f'{self.ann_file}:{number}: {error}') from error
            root = self.data_root or ''
            rows.append((osp.join(root, image), None if mask is None else osp.join(root, mask)))
        return rows

    def _read_folder(self) -> list[tuple[str, None]]:
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
        return [(osp.join(folder, name), None) for name in sorted(names)]

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

    def _require_files(self, kind: str, paths: Sequence[str]) -> None:
        missing = [path for path in paths if not self._files.isfile(path)]
        # an interrupted copy leaves empty files; OpenCV's error for them does not name the file
        empty = [path for path in paths if osp.isfile(path) and not osp.getsize(path)]
        if missing or empty:
            which, what = (missing, 'do not exist') if missing else (empty, 'are empty files')
            raise FileNotFoundError(
                f'{self._source}: expected {len(paths)} {kind}, found that {len(which)} of them {what}:\n'
                f'{format_paths(which)}\n{self._guess_spaces()}Check that the data are complete and that '
                f"data_root '{self.data_root}', data_prefix and seg_map_suffix '{self.seg_map_suffix}' fit "
                'them. A tab separates the columns of a list whose paths contain spaces.'
            )

    def _guess_spaces(self) -> str:
        """Return a sentence about the first line whose path was cut at a space, or nothing."""
        text = self._files.get_text(self.ann_file) if self.ann_file else ''
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
