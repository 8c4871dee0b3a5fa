"""Both sides of the comparison of image pipelines: the plain one, and this package's as the configs have it.

Each side yields ``(image, mask)`` for the files it is given: float32 (3, crop, crop) normalized, RGB, and
int64 (crop, crop). Time it over many images in one thread, as draws and work differ between them.
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
        paths: (image, mask) files. The released code opens the masks of unlabeled images too; None: none.
        crop: Side of the crop.
        seed: Of all draws.
        labeled: Whether to make labeled samples, with strong colors, or unlabeled ones.
    """
    rng = random.Random(seed)
    for image, mask in paths:
        yield plain_sample(image, mask, crop, rng, color=labeled)


def our_images(
    paths: Paths, crop: int, seed: int, labeled: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the samples of this package's pipeline.

    In training the preprocessor normalizes whole batches, on the GPU if there is one; here its arithmetic is
    done image by image, so that both sides end alike. Takes the arguments of :func:`reference_images`; masks
    of unlabeled images are not opened. Seeds the global generators of Python and NumPy.
    """
    pipeline = our_pipeline(crop, labeled)
    view = 'labeled' if labeled else 'weak'
    random.seed(seed)
    np.random.seed(seed)
    for image, mask in paths:
        sample = {'img_path': image, 'label_map': None, 'reduce_zero_label': False, 'seg_fields': []}
        if labeled:
            sample['seg_map_path'] = mask
        packed = pipeline(sample)
        pixels = packed['inputs'].get(view).flip(0).float()
        yield pixels.sub_(_MEAN).div_(_STD), packed['data_samples'].get(view).gt_sem_seg.data[0]


def our_pipeline(crop: int, labeled: bool) -> Compose:
    """Build the training pipeline of AllSpark's configs."""
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
    steps = [
        dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
        dict(type='LoadAnnotations') if labeled else dict(type='allspark_mmseg.LoadEmptyAnnotations'),
        dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(crop, crop)),
        dict(type='allspark_mmseg.MultiView', **views),
    ]
    return Compose([TRANSFORMS.build({'_scope_': 'mmseg', **step}) for step in steps])
