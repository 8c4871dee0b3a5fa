"""The one dataset of this package: images named by a split list, or all images below a folder.

Semi-supervised work keeps the images where they are and moves only the lists, so that a split is a text
file of a few lines. MMSegmentation's own datasets read lists of names without suffix inside one fixed
folder, always join a mask to them, and meet a missing file in the middle of training; the published splits
are lists of ``image mask`` paths (UniMatch, arXiv:2208.09910, and AllSpark, arXiv:2403.01818), and an
unlabelled image has no mask.
"""

import os.path as osp
from collections.abc import Iterable

from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from ..registry import DATASETS
from .benchmark_splits import command_for

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.ppm', '.webp')


def first_five(names: Iterable[str]) -> str:
    """Indent the first five of ``names``, a line each, and say how many are left out: for error messages."""
    names = list(names)
    lines = [f'  {name}' for name in names[:5]]
    if len(names) > 5:
        lines.append(f'  ... and {len(names) - 5} more')
    return '\n'.join(lines)


@DATASETS.register_module()
class SplitListDataset(BaseSegDataset):
    """Images of a split list or of a folder, with their masks or, when unlabelled, without.

    ``ann_file`` names a text file with one ``image`` or ``image mask`` a line, separated by white space;
    paths are absolute or relative to ``data_root``, blank lines are ignored. Without ``ann_file`` the
    dataset holds every image below ``data_prefix['img_path']``, sorted by path.

    A labelled dataset takes the mask from the second column. Where there is none it is found by
    MMSegmentation's convention: the image's path below ``data_prefix['img_path']``, looked up below
    ``data_prefix['seg_map_path']`` with the suffix replaced. An unlabelled dataset has no masks at all: a
    second column is not read, and the file it names need not exist.

    Each item of the list (``get_data_info``) holds ``img_path``, ``label_map``, ``reduce_zero_label``,
    ``seg_fields`` and ``sample_idx``, and if labelled ``seg_map_path``. All files are looked for when the
    dataset is built, so that a wrong list fails before the first iteration.

    Args:
        ann_file: The split list, absolute or relative to ``data_root``; empty for a folder of images.
        labeled: Whether the images have masks. False never opens nor requires one.
        img_suffix: End of an image's name that ``seg_map_suffix`` replaces (Cityscapes:
            ``'_leftImg8bit.png'``), also the only files taken from a folder. None: the file extension,
            and in a folder all of ``IMAGE_SUFFIXES`` in upper or lower case.
        data_prefix: ``img_path`` and, for masks by convention, ``seg_map_path``: folders, absolute or
            relative to ``data_root``.
        **kwargs: The other arguments of :class:`mmseg.datasets.BaseSegDataset`: ``data_root``,
            ``metainfo``, ``seg_map_suffix`` (``'.png'``), ``indices``, ``pipeline``, ...

    Raises:
        FileNotFoundError: ``data_root``, the list, the image folder, images or masks do not exist, or images
            or masks are files of no bytes.
        ValueError: A line has more than two columns, there is no image, or a labelled dataset cannot tell
            where its masks are.
    """

    def __init__(
        self,
        ann_file: str = '',
        labeled: bool = True,
        img_suffix: str | None = None,
        data_prefix: dict | None = None,
        **kwargs,
    ) -> None:
        self.labeled = labeled
        super().__init__(
            ann_file=ann_file,
            img_suffix=img_suffix,
            data_prefix={'img_path': ''} if data_prefix is None else data_prefix,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Read the list or the folder and check that every file is there.

        Returns:
            list[dict]: An item for each image, as the class describes, in the order of the list.

        Raises:
            FileNotFoundError, ValueError: As the class describes.
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
        if self.labeled:
            rows = [(image, mask or self._mask_by_convention(image)) for image, mask in rows]
            self._require_files('masks', [mask for _, mask in rows])
        return [self._data_info(image, mask) for image, mask in rows]

    @property
    def _source(self) -> str:
        if self.ann_file:
            return f"ann_file '{self.ann_file}'"
        return f"data_prefix['img_path'] '{self.data_prefix.get('img_path')}'"

    def _data_info(self, image: str, mask: str | None) -> dict:
        info = {
            'img_path': image,
            'label_map': self.label_map,
            'reduce_zero_label': self.reduce_zero_label,
            'seg_fields': [],
        }
        if self.labeled:
            info['seg_map_path'] = mask
        return info

    def _read_list(self) -> list[tuple[str, str | None]]:
        if not self._files.isfile(self.ann_file):
            command = command_for(self.ann_file, self.data_root or '.')
            raise FileNotFoundError(
                f"ann_file: expected a split list, found no file at '{self.ann_file}'. Give an absolute path "
                f"or one relative to data_root '{self.data_root}', or leave ann_file out to take all images "
                "below data_prefix['img_path']." + (f' Make it with: {command}' if command else '')
            )
        rows = []
        text = self._files.get_text(self.ann_file).removeprefix('\ufeff')  # as Windows' Notepad begins a file
        for number, line in enumerate(text.splitlines(), start=1):
            columns = line.split()
            if len(columns) > 2:
                raise ValueError(
                    f"{self.ann_file}:{number}: expected 'image' or 'image mask', found {len(columns)} "
                    f'columns: {line.strip()!r}. Paths must not contain white space.'
                )
            if columns:
                paths = [osp.join(self.data_root or '', column) for column in columns]
                rows.append((paths[0], paths[1] if len(paths) == 2 else None))
        return rows

    def _read_folder(self) -> list[tuple[str, None]]:
        folder = self.data_prefix.get('img_path') or '.'
        if not self._files.isdir(folder):
            raise FileNotFoundError(
                f"data_prefix['img_path']: expected a folder of images, found none at '{folder}'. Set it to "
                'where the images are, or name a split list with ann_file.'
            )
        names = self._files.list_dir_or_file(folder, list_dir=False, recursive=True)
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
                f"{self._source}: cannot tell the mask of '{image}': expected an image below "
                f"data_prefix['img_path'] '{folder}' whose name ends with '{suffix}'. Correct "
                "data_prefix['img_path'] or img_suffix, or name the masks in a second column of the list."
            )
        return osp.join(masks, name[: len(name) - len(suffix)] + self.seg_map_suffix)

    def _require_files(self, kind: str, paths: list[str]) -> None:
        missing = [path for path in paths if not self._files.isfile(path)]
        # an interrupted copy leaves them; OpenCV would tell of it in the middle of training, without a name
        empty = [path for path in paths if osp.isfile(path) and not osp.getsize(path)]
        if missing or empty:
            which, what = (missing, 'do not exist') if missing else (empty, 'are empty files')
            raise FileNotFoundError(
                f'{self._source}: expected {len(paths)} {kind}, found that {len(which)} of them {what}:\n'
                f'{first_five(which)}\nCheck that the data are complete and that data_root '
                f"'{self.data_root}', data_prefix and seg_map_suffix '{self.seg_map_suffix}' fit them."
            )
