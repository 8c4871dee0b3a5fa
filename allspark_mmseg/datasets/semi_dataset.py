"""The training data of a semi-supervised run: named streams of labeled and unlabeled images."""

import os.path as osp
from collections.abc import Sequence
from functools import lru_cache

from mmengine.dataset import BaseDataset, ConcatDataset
from mmseg.registry import DATASETS as MMSEG_DATASETS

from ..registry import DATASETS
from ..utils import format_paths

LIST_NAMES = {'labeled': 'labeled.txt', 'unlabeled': 'unlabeled.txt'}


@DATASETS.register_module()
class SemiDataset(ConcatDataset):
    """Labeled images and unlabeled images as one data set with named streams.

    .. code-block:: python

        dataset=dict(
            type='allspark_mmseg.SemiDataset',
            data_root='data/VOC2012',
            split='data/splits/voc/92',
            metainfo=metainfo,
            labeled=dict(pipeline=labeled_pipeline),
            unlabeled=dict(pipeline=unlabeled_pipeline))

    A stream is a dict. There are two forms:

    * Without ``type``, the dict holds arguments of :class:`ImageListDataset`. ``data_root`` and ``metainfo`` of
      the ``SemiDataset`` are the defaults. If the dict has no ``ann_file``, the stream reads
      ``labeled.txt`` or ``unlabeled.txt`` of the ``split`` folder. Without ``split`` it reads the folder
      ``data_prefix['img_path']``. To read a folder although ``split`` is set, write ``ann_file=''``.
    * With ``type``, the dict is the config of any MMSegmentation data set. It is built as it is.

    The index of an image counts the labeled images first. Use :attr:`streams` instead of this order.

    Args:
        labeled (dict): The labeled stream.
        unlabeled (dict or list[dict], optional): The unlabeled stream. A list joins several sources. None
            leaves the stream out, for supervised training.
        split (str, optional): Folder with ``labeled.txt`` and ``unlabeled.txt``, absolute or relative to
            ``data_root``, or else to the working directory.
        data_root (str): Default ``data_root`` of the streams.
        metainfo (dict, optional): Default ``metainfo`` of the streams.
        allow_overlap (bool): Accept images that are in both streams.

    Raises:
        TypeError: A stream is not a dict.
        ValueError: A stream has neither a list nor a folder, or an image is in both streams.
        FileNotFoundError: ``split`` is a file; or see :class:`ImageListDataset`.
    """

    def __init__(
        self,
        labeled: dict,
        unlabeled: dict | Sequence[dict] | None = None,
        *,
        split: str | None = None,
        data_root: str = '',
        metainfo: dict | None = None,
        allow_overlap: bool = False,
    ) -> None:
        if split is not None:
            split = _find_split(split, data_root)
        defaults = {'data_root': data_root, 'metainfo': metainfo}
        sources = [('labeled', labeled)] + [('unlabeled', source) for source in _as_list(unlabeled)]
        parts = [_build_stream(name, source, split, defaults) for name, source in sources]
        # class names and palettes of unlabeled images are never used, so they may differ
        keys = sorted({key for part in parts for key in part.metainfo})
        super().__init__(parts, ignore_keys=keys)
        self.labeled, *self.unlabeled = parts
        if not allow_overlap:
            self._check_overlap()

    @property
    def streams(self) -> dict[str, range]:
        """The indices of each stream, for example ``{'labeled': range(0, 92), 'unlabeled': range(92, 10582)}``.

        A data set without unlabeled images has the stream ``labeled`` only.
        """
        first = len(self.labeled)
        streams = {'labeled': range(first)}
        if self.unlabeled:
            streams['unlabeled'] = range(first, len(self))
        return streams

    def _check_overlap(self) -> None:
        known = _image_files([self.labeled])
        shared = sorted(known & _image_files(self.unlabeled))
        if shared:
            raise ValueError(
                f'SemiDataset: {len(shared)} of {len(known)} labeled images are in the unlabeled stream, '
                f'too:\n{format_paths(shared)}\nRemove them from the unlabeled list. If they shall serve as '
                'both, set allow_overlap=True in the SemiDataset.'
            )


def _find_split(split: str, data_root: str) -> str:
    """Return the split folder; the one in the working directory if there is none."""
    below = osp.join(data_root, split)
    path = below if osp.exists(below) else osp.abspath(split)
    # ImageListDataset reports missing lists, with the command that makes them
    if osp.exists(path) and not osp.isdir(path):
        raise FileNotFoundError(
            f"SemiDataset: split is '{split}', which is a file. Expected a folder with "
            f'{LIST_NAMES["labeled"]} and {LIST_NAMES["unlabeled"]}; name a single list with '
            'labeled=dict(ann_file=...).'
        )
    return osp.abspath(path)


def _as_list(sources: dict | Sequence[dict] | None) -> list[dict]:
    if sources is None:
        return []
    return [sources] if isinstance(sources, dict) else list(sources)


def _build_stream(name: str, source: dict, split: str | None, defaults: dict) -> BaseDataset:
    if not isinstance(source, dict):
        raise TypeError(
            f'SemiDataset: a source of the stream {name} is a {type(source).__name__}, expected a dict such as '
            'dict(pipeline=[...]).'
        )
    if 'type' in source:
        return MMSEG_DATASETS.build(source)
    own = {'type': 'allspark_mmseg.ImageListDataset', 'labeled': name == 'labeled', **defaults, **source}
    if 'ann_file' not in own:
        if split is not None:
            own['ann_file'] = osp.join(split, LIST_NAMES[name])
        elif not own.get('data_prefix'):
            raise ValueError(
                f'SemiDataset: the stream {name} names no images. Set split to a folder with '
                f'{LIST_NAMES[name]}, or set {name}=dict(ann_file=...) to a list, or '
                f'{name}=dict(data_prefix=dict(img_path=...)) to a folder.'
            )
    return MMSEG_DATASETS.build(own)


def _image_files(parts: Sequence[BaseDataset]) -> set[str]:
    # Resolving every path costs a system call for each of its folders: COCO has 118 thousand images in one.
    resolve = lru_cache(maxsize=None)(osp.realpath)
    files = set()
    for part in parts:
        for index in range(len(part)):
            folder, name = osp.split(part.get_data_info(index)['img_path'])
            path = osp.join(resolve(folder), name)
            files.add(osp.realpath(path) if osp.islink(path) else path)
    return files
