"""The two image pipelines that are compared: the plain pipeline, and the pipeline of the configs.

Each side yields ``(image, mask)`` for the given files: normalized RGB ``(3, crop, crop)`` float32, and
``(crop, crop)`` int64. The random draws and the work differ between the sides, so measure many images in one
thread.
"""

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmcv.transforms import Compose
from mmseg.registry import TRANSFORMS

import allspark_mmseg.datasets  # noqa: F401  (registers the steps)

from .plain_pipeline import plain_sample

Paths = Sequence[tuple[str, str | None]]

_MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
_STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


def reference_images(
    paths: Paths, crop: int, seed: int, labeled: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the samples of the plain pipeline.

    Args:
        paths (Sequence): Image and mask files. The released code opens the masks of unlabeled images too. A
            mask of None is not opened.
        crop (int): Side of the crop in pixels.
        seed (int): Seed of all draws.
        labeled (bool): Whether to yield labeled samples, with color augmentation, or unlabeled ones.

    Yields:
        tuple[Tensor, Tensor]: Image ``(3, crop, crop)`` float32 and mask ``(crop, crop)`` int64.
    """
    rng = random.Random(seed)
    for image, mask in paths:
        yield plain_sample(image, mask, crop, rng, color=labeled)


def our_images(
    paths: Paths, crop: int, seed: int, labeled: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the samples of this package's pipeline.

    In training, the data preprocessor normalizes whole batches, on the GPU if there is one. Here the images
    are normalized one by one, so both sides yield the same kind of output. The masks of unlabeled images are
    not opened. The function seeds the global generators of Python and NumPy.

    Args:
        paths (Sequence): Image and mask files.
        crop (int): Side of the crop in pixels.
        seed (int): Seed of all draws.
        labeled (bool): Whether to yield labeled samples, with color augmentation, or unlabeled ones.

    Yields:
        tuple[Tensor, Tensor]: Image ``(3, crop, crop)`` float32 and mask ``(crop, crop)`` int64.
    """
    pipeline = our_pipeline(crop, labeled)
    view = 'labeled' if labeled else 'weak'
    random.seed(seed)
    np.random.seed(seed)
    for image, mask in paths:
        sample: dict = {'img_path': image, 'label_map': None, 'reduce_zero_label': False, 'seg_fields': []}
        if labeled:
            sample['seg_map_path'] = mask
        packed = pipeline(sample)
        pixels = packed['inputs'].get(view).flip(0).float()
        yield pixels.sub_(_MEAN).div_(_STD), packed['data_samples'].get(view).gt_sem_seg.data[0]


def our_pipeline(crop: int, labeled: bool) -> Compose:
    """Build the training pipeline of AllSpark's configs.

    Args:
        crop (int): Side of the crop in pixels.
        labeled (bool): Whether to build the pipeline of labeled or of unlabeled images.

    Returns:
        Compose: The pipeline.
    """
    pack = dict(type='PackSegInputs')
    jitter = dict(type='allspark_mmseg.ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25)
    color = [
        dict(type='RandomApply', prob=0.8, transforms=[jitter]),
        dict(type='allspark_mmseg.RandomGrayscale', prob=0.2),
        dict(
            type='RandomApply',
            prob=0.5,
            transforms=[dict(type='allspark_mmseg.GaussianBlur', sigma_range=(0.1, 2.0))],
        ),
    ]
    views = dict(labeled=[*color, pack]) if labeled else dict(weak=[pack])
    steps: list[dict] = [
        dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
        dict(type='LoadAnnotations') if labeled else dict(type='allspark_mmseg.LoadEmptyAnnotations'),
        dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(crop, crop)),
        dict(type='allspark_mmseg.MultiView', **views),
    ]
    return Compose([TRANSFORMS.build({'_scope_': 'mmseg', **step}) for step in steps])
