"""Load an image as the test data are loaded, but without a mask, and refuse incomplete files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS
from mmseg.structures import SegDataSample
from torch import Tensor

from ..datasets.image_headers import ImageHeader, read_header
from ..datasets.image_pixels import read_pixels
from .pipelines import (
    count_loads,
    find_preprocessor,
    find_test_data,
    loads_rgb,
    reduces_zero_label,
    without_masks,
)
from .tta import find_tta


@dataclass
class LoadedImage:
    """An image as the network takes it.

    Attributes:
        inputs (list[Tensor]): One image (C, h, w) per view. Without test-time augmentation there is one view.
        data_samples (list[SegDataSample]): The sample of each view.
        picture (np.ndarray): The image before its transforms, (H, W, 3) uint8 BGR, to draw on.
    """

    inputs: list[Tensor]
    data_samples: list[SegDataSample]
    picture: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result in pixels."""
        return tuple(self.data_samples[0].ori_shape[:2])

    @property
    def shapes(self) -> tuple:
        """What images of one batch have in common: the shapes of the views and of the result."""
        return (self.size, *(tuple(view.shape) for view in self.inputs))


class ImageLoader:
    """Loads images as the test data of a config are loaded.

    The first transforms, up to the first that does not begin with ``Load``, give the picture for the overlay.

    Args:
        cfg (Config): Config of the model.
        tta (bool): Make the views of test-time augmentation, as :func:`find_tta` describes.

    Attributes:
        steps (list[dict]): The transforms.

    Raises:
        ValueError: The config has no test data.
    """

    def __init__(self, cfg: Config, tta: bool = False) -> None:
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        data = find_test_data(cfg)
        self.reduce_zero_label = reduces_zero_label(data)
        self.steps = without_masks(find_tta(cfg)[1] if tta else list(data['pipeline']))
        count = count_loads(self.steps)
        first = self.steps[0] if self.steps else {}
        stock = first.get('type') in ('LoadImageFromFile', 'mmseg.LoadImageFromFile')
        self.color_type = first.get('color_type', 'color') if stock else None
        self.load, self.prepare = (
            Compose([TRANSFORMS.build(step) for step in part])
            for part in (self.steps[:count], self.steps[count:])
        )
        self.is_rgb = loads_rgb(self.steps, find_preprocessor(cfg))

    @property
    def first_class(self) -> int:
        """Number of the first class in masks of the data set: 1 with ``reduce_zero_label``, otherwise 0."""
        return int(self.reduce_zero_label)

    def __call__(self, path: str | Path, header: ImageHeader | None = None) -> LoadedImage:
        """Load an image.

        Args:
            path (str | Path): The file.
            header (ImageHeader, optional): Its header, if it has been read.

        Returns:
            LoadedImage: The image.

        Raises:
            Exception: What the transforms raise; ValueError if the file is not an image or is incomplete, or
                if the loader drops bits.
        """
        self._check(header or read_header(str(path)))
        results: dict[str, Any] = dict(
            img_path=str(path), reduce_zero_label=self.reduce_zero_label, label_map=None, seg_fields=[]
        )
        results = self.load(results)
        picture = as_picture(results['img'], self.is_rgb)
        packed = self.prepare(results)
        inputs, samples = packed['inputs'], packed['data_samples']
        if isinstance(inputs, torch.Tensor):
            inputs, samples = [inputs], [samples]
        return LoadedImage(list(inputs), list(samples), picture)

    def _check(self, header: ImageHeader) -> None:
        # some versions of OpenCV fill up a file whose end is missing, without an error
        if header.suspicious and (problem := read_pixels(header).problem):
            raise ValueError(problem)
        if self.color_type is None:
            return  # another loader may know the format
        if header.problem:
            raise ValueError(header.problem)
        if header.bits > 8 and self.color_type != 'unchanged':
            raise ValueError(
                f'has {header.bits} bits per band, and color_type={self.color_type!r} keeps only the highest '
                '8; convert it in the way in which the training images were made'
            )


def as_picture(image: np.ndarray, is_rgb: bool = False) -> np.ndarray:
    """Convert an image of any kind to 8-bit BGR, to draw on.

    Args:
        image (np.ndarray): Image (H, W) or (H, W, C) of any dtype.
        is_rgb (bool): Whether the order of three or more bands is RGB instead of BGR.

    Returns:
        np.ndarray: (H, W, 3) uint8 BGR. Of more than three bands, the first three are shown; of two, the
        first. Other dtypes than uint8 are stretched from their percentiles 1 and 99 to 0 and 255. An image
        that has this form already is not copied.
    """
    if image.ndim == 3 and image.shape[2] != 3:
        image = image[..., :3] if image.shape[2] > 3 else image[..., 0]
    if image.dtype != np.uint8:
        step = max(image.shape[0] // 500, 1), max(image.shape[1] // 500, 1)
        low, high = np.nanpercentile(image[:: step[0], :: step[1]].astype(np.float32), [1, 99])
        scaled = (image.astype(np.float32) - low) * (255 / max(high - low, 1e-9))
        image = np.nan_to_num(scaled).clip(0, 255).astype(np.uint8)
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image[..., ::-1] if is_rgb else image)
