"""Training data set with named streams of labeled and unlabeled images."""

import logging
import os.path as osp
from collections.abc import Sequence

from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.logging import print_log
from mmseg.registry import DATASETS as MMSEG_DATASETS
from torch.utils.data import Dataset

from ..registry import DATASETS
from ..utils import format_paths, on_one_process, require
from .draws import Draw, seeded
from .shared_images import image_files, shared_images

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

    * Without ``type``, the dict has arguments of :class:`ImageListDataset`. ``data_root`` and ``metainfo`` of
      the ``SemiDataset`` are the defaults. Without ``ann_file``, the stream reads ``labeled.txt`` or
      ``unlabeled.txt`` in the ``split`` folder. Without ``ann_file`` and ``split``, it reads the folder
      ``data_prefix['img_path']``. If ``split`` is set, ``ann_file=''`` selects the folder.
    * With ``type``, the dict is the config of any MMSegmentation data set. It has no defaults.

    A list of such dicts joins several sources in one stream. The labeled images come first. Use
    :attr:`streams` to get the indices of a stream.

    The samplers of this package yield :class:`Draw` indices. The augmentation of an image is then a function
    of its draw (seed, stream, epoch, position), so workers, prefetching and a resume do not change it. This
    holds for transforms that use the global generators of Python, NumPy and PyTorch.

    Args:
        labeled (dict or list[dict]): The labeled stream.
        unlabeled (dict or list[dict], optional): The unlabeled stream. None disables it, for supervised
            training.
        split (str, optional): Folder with ``labeled.txt`` and ``unlabeled.txt``. A relative path is looked up
            in ``data_root``, then in the working directory.
        data_root (str): Default ``data_root`` of the streams.
        metainfo (dict, optional): Default ``metainfo`` of the streams.
        allow_overlap (bool): Accept images that are in both streams.

    Raises:
        TypeError: A source is not a dict, or its ``type`` is not a subclass of MMEngine's ``BaseDataset``.
        ValueError: The labeled stream has no source, a source has neither a list nor a folder, or an image is
            in both streams.
        FileNotFoundError: ``split`` is a file; or see :class:`ImageListDataset`.
    """

    def __init__(
        self,
        labeled: dict | Sequence[dict],
        unlabeled: dict | Sequence[dict] | None = None,
        *,
        split: str | None = None,
        data_root: str = '',
        metainfo: dict | None = None,
        allow_overlap: bool = False,
    ) -> None:
        if split is not None:
            _warn_if_unused(split, [*_as_list(labeled), *_as_list(unlabeled)])
            split = _find_split(split, data_root)
        defaults = {'data_root': data_root, 'metainfo': metainfo}
        parts, self.unlabeled = (
            [_build_source(name, source, split, defaults) for source in _as_list(sources)]
            for name, sources in (('labeled', labeled), ('unlabeled', unlabeled))
        )
        require('SemiDataset', 'labeled', labeled, bool(parts), 'at least one source')
        # ConcatDataset checks that all labeled sources have the same classes
        self.labeled = parts[0] if len(parts) == 1 else ConcatDataset(parts)
        # metainfo of unlabeled images is not used, so it can differ
        keys = sorted({key for part in [*parts, *self.unlabeled] for key in part.metainfo})
        super().__init__([*parts, *self.unlabeled], ignore_keys=keys)
        if not allow_overlap:
            on_one_process(self._check_overlap)

    @property
    def streams(self) -> dict[str, range]:
        """The indices of each stream, such as ``{'labeled': range(0, 92), 'unlabeled': range(92, 10582)}``.

        A data set without unlabeled images has the stream ``labeled`` only.
        """
        first = len(self.labeled)
        streams = {'labeled': range(first)}
        if self.unlabeled:
            streams['unlabeled'] = range(first, len(self))
        return streams

    def __getitem__(self, idx: int) -> dict:
        """Return an item after its pipeline.

        Args:
            idx (int): The index. The random numbers of the pipeline follow from the key of a :class:`Draw`,
                and from the state of the global generators for another index.

        Returns:
            dict: The output of the pipeline.
        """
        if not isinstance(idx, Draw):
            return super().__getitem__(idx)
        with seeded(*idx.key):
            return super().__getitem__(int(idx))

    def _check_overlap(self) -> None:
        labeled = image_files([self.labeled])
        shared = shared_images(labeled, [leaf for part in self.unlabeled for leaf in leaf_datasets(part)])
        if shared:
            raise ValueError(
                f'SemiDataset: {len(shared)} of {len(labeled)} labeled images are also unlabeled images:\n'
                f'{format_paths(shared)}\nRemove them from the unlabeled list. To use them in both streams, '
                'set allow_overlap=True in the SemiDataset.'
            )


def _warn_if_unused(split: str, sources: list[dict]) -> None:
    # an error would be too strict: a child config inherits split from its base
    if all(isinstance(source, dict) and ('type' in source or 'ann_file' in source) for source in sources):
        print_log(
            f"SemiDataset: split is '{split}', but no stream reads it: each source has its own ann_file or "
            'type. Remove ann_file to read the split.',
            logger='current',
            level=logging.WARNING,
        )


def _find_split(split: str, data_root: str) -> str:
    """Return the absolute path of the split folder, below ``data_root`` or the working directory."""
    path = osp.join(data_root, split)
    if not osp.exists(path):
        path = split
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


def _build_source(name: str, source: dict, split: str | None, defaults: dict) -> BaseDataset:
    if not isinstance(source, dict):
        raise TypeError(
            f'SemiDataset: a source of the stream {name} is a {type(source).__name__}, expected a dict such '
            'as dict(pipeline=[...]).'
        )
    if 'type' in source:
        dataset = MMSEG_DATASETS.build(source)
        if not isinstance(dataset, BaseDataset):
            raise TypeError(
                f'SemiDataset: a source of the stream {name} is a {type(dataset).__name__}, expected a '
                f'BaseDataset. Join several sources with a list: {name}=[dict(...), dict(...)]. There is no '
                'need to repeat images: the DualStreamSampler starts again each time they run out.'
            )
        return dataset
    own = {'type': 'allspark_mmseg.ImageListDataset', 'labeled': name == 'labeled', **defaults, **source}
    if 'ann_file' not in own:
        if split is not None:
            own['ann_file'] = osp.join(split, LIST_NAMES[name])
        elif not own.get('data_prefix'):
            raise ValueError(
                f'SemiDataset: a source of the stream {name} has no images. Set split to a folder with '
                f'{LIST_NAMES[name]}, or set {name}=dict(ann_file=...) to a list, or '
                f'{name}=dict(data_prefix=dict(img_path=...)) to a folder.'
            )
    return MMSEG_DATASETS.build(own)


def leaf_datasets(dataset: Dataset) -> list:
    """Return the data sets inside nested ConcatDatasets and RepeatDatasets, or the data set itself."""
    children = getattr(dataset, 'datasets', None) or (
        [dataset.dataset] if hasattr(dataset, 'dataset') else []
    )
    return [leaf for child in children for leaf in leaf_datasets(child)] or [dataset]
