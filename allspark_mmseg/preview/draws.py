"""Draw samples from the data sets of a config, as the training and the validation do."""

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.structures import BaseDataElement
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from torch import Tensor

from ..prediction.loading import as_picture
from ..prediction.pipelines import count_loads, find_preprocessor, loads_rgb
from ..utils import dicts_in

META_KEYS = (
    *('img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip'),
    *('flip_direction', 'reduce_zero_label', 'scale', 'crop_box', 'colors'),
)


@dataclass
class View:
    """One view of an image after its transforms.

    Attributes:
        name (str): Name of the view, such as ``labeled`` or ``strong_1``.
        inputs (Tensor): (C, H, W), as the data preprocessor gets it.
        sample (SegDataSample): Its meta information, and ``gt_sem_seg`` if it has a map.
        picture (np.ndarray): (H, W, 3) uint8 BGR, to draw on.
    """

    name: str
    inputs: Tensor
    sample: SegDataSample
    picture: np.ndarray

    @property
    def mask(self) -> np.ndarray | None:
        """The map (H, W) of the view, or None."""
        return self.sample.gt_sem_seg.data[0].numpy() if 'gt_sem_seg' in self.sample else None

    def describe(self) -> list[str]:
        """Return what the transforms drew, as lines of text."""
        meta, lines = self.sample.metainfo, [f'{self.inputs.shape[2]} x {self.inputs.shape[1]} pixels']
        if meta.get('scale_factor') is not None and meta.get('scale') is not None:
            factor = np.mean(meta['scale_factor'])
            width, height = meta['scale']
            lines.append(f'scaled x {factor:.2f} to {width} x {height}')
        if meta.get('crop_box') is not None:
            top, left, *_ = meta['crop_box']
            lines.append(f'crop at x {left}, y {top}')
        if meta.get('flip') is not None:
            lines.append(f'flipped: {meta["flip_direction"]}' if meta['flip'] else 'not flipped')
        colors = [
            name if name == 'gray' else f'{name} {number:.2f}' for name, number in meta.get('colors', ())
        ]
        return lines + (colors or [])


@dataclass
class Draw:
    """One image and its views.

    Attributes:
        name (str): Name of the image file.
        bare (np.ndarray): The image as it is loaded, (H, W, 3) uint8 BGR.
        bare_mask (np.ndarray | None): Its mask (H, W), or None.
        views (list[View]): The views.
    """

    name: str
    bare: np.ndarray
    bare_mask: np.ndarray | None
    views: list[View]


@dataclass
class Stream:
    """The images of one stream, and their transforms.

    Attributes:
        name (str): ``labeled``, ``unlabeled``, ``training`` or ``validation``.
        dataset (BaseDataset or ConcatDataset): The data set.
        indices (range): The images of the stream.
        is_rgb (bool): Whether images of three bands are RGB instead of BGR.
    """

    name: str
    dataset: Any
    indices: range
    is_rgb: bool = False

    @property
    def has_labels(self) -> bool:
        """Whether its maps are labels. Those of unlabeled images only mark padding."""
        return self.name != 'unlabeled'

    @property
    def training(self) -> bool:
        """Whether the images are those of the training."""
        return self.name != 'validation'

    def draw(self, num: int, seed: int) -> Iterator[Draw]:
        """Draw random images and their transforms.

        Args:
            num (int): Number of draws. Each image is drawn once before one is drawn again.
            seed (int): Seed of the images and of their transforms.

        Yields:
            Draw: The draws.
        """
        generator = np.random.default_rng(seed)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        order: list[int] = []
        for _ in range(num):
            order = order or generator.permutation(self.indices).tolist()
            yield self._draw(*_find_source(self.dataset, order.pop()))

    def _draw(self, dataset: BaseDataset, index: int) -> Draw:
        info = dataset.get_data_info(index)
        steps = dataset.pipeline.transforms
        loads = [type(step).__name__.startswith('Load') for step in steps]
        bare = Compose(steps[: [*loads, False].index(False)])(copy.deepcopy(info))
        packed = dataset.pipeline(info)
        views = [
            View(*part, as_picture(to_array(part[1]), self.is_rgb)) for part in _views(packed, self.name)
        ]
        mask = bare.get('gt_seg_map') if self.has_labels else None
        return Draw(Path(info['img_path']).name, as_picture(bare['img'], self.is_rgb), mask, views)


def find_streams(cfg: Config) -> list[Stream]:
    """Build the data sets of a config.

    Args:
        cfg (Config): The config of a run.

    Returns:
        list[Stream]: The streams of the training data, then the validation data.

    Raises:
        ValueError: The config has no training data.
    """
    if not cfg.get('train_dataloader'):
        raise ValueError(
            'the config has no train_dataloader; expected the config of a training run, such as '
            'configs/METHOD/NAME.py.'
        )
    preprocessor = find_preprocessor(cfg)
    found = []
    for key, name in (('train_dataloader', 'training'), ('val_dataloader', 'validation')):
        if cfg.get(key):
            steps = [step for step in dicts_in(cfg[key].dataset) if 'type' in step and count_loads([step])]
            is_rgb = loads_rgb(steps, preprocessor)
            dataset = DATASETS.build(_record_draws(copy.deepcopy(cfg[key]['dataset'])))
            parts = getattr(dataset, 'streams', None) or {name: range(len(dataset))}
            found += [Stream(part, dataset, indices, is_rgb) for part, indices in parts.items()]
    return found


def _record_draws(config: Any) -> Any:
    """Let ``PackSegInputs`` keep what the transforms drew. The config is changed in place."""
    for node in dicts_in(config):
        if str(node.get('type')).rpartition('.')[2] == 'PackSegInputs':
            node['meta_keys'] = tuple(dict.fromkeys([*META_KEYS, *node.get('meta_keys', ())]))
    return config


def _find_source(dataset: Any, index: int) -> tuple[BaseDataset, int]:
    """Return the data set that reads an image, and the index of the image in it."""
    while not isinstance(dataset, BaseDataset):
        if isinstance(dataset, ConcatDataset):
            part, index = dataset._get_ori_dataset_idx(index)
            dataset = dataset.datasets[part]
        else:  # RepeatDataset, ClassBalancedDataset
            index, dataset = dataset._get_ori_dataset_idx(index), dataset.dataset
    return dataset, index


def _views(packed: dict, name: str) -> list[tuple[str, Tensor, SegDataSample]]:
    inputs, samples = packed['inputs'], packed['data_samples']
    if not isinstance(inputs, BaseDataElement):
        return [(name, inputs, samples)]
    # keys() comes from a set; the views of a second crop (mix_weak, ...) stand behind those of the first
    names = sorted(inputs.keys(), key=lambda key: (key.startswith('mix_'), 'strong' in key, key))
    return [(key, inputs.get(key), samples.get(key)) for key in names]


def to_array(inputs: Tensor) -> np.ndarray:
    """Convert an image (C, H, W) of any dtype to an array (H, W, C)."""
    return np.ascontiguousarray(inputs.permute(1, 2, 0).numpy())
