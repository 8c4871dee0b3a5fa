"""Data augmentation of UniMatch and AllSpark.

UniMatch (arXiv:2208.09910; released code, ``dataset/semi.py`` and ``dataset/transform.py``) and AllSpark
(arXiv:2403.01818) use the same transforms. Most of them are in MMCV and MMSegmentation; this package adds the
others. ``tests/test_datasets/test_transforms.py`` tests all of them against the formulas. The pipelines are::

    crop = 321
    load = [dict(type='LoadImageFromFile')]
    geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(crop, crop))]
    color = [
        dict(type='RandomApply', prob=0.8, transforms=[
            dict(type='allspark_mmseg.ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25)]),
        dict(type='allspark_mmseg.RandomGrayscale', prob=0.2),
        dict(type='RandomApply', prob=0.5, transforms=[
            dict(type='allspark_mmseg.GaussianBlur', sigma_range=(0.1, 2.0))]),
    ]
    pack = dict(type='PackSegInputs')

    unimatch_labeled = load + [dict(type='LoadAnnotations')] + geometry + [
        dict(type='allspark_mmseg.MultiView', labeled=[pack])]
    unimatch_unlabeled = load + [dict(type='allspark_mmseg.LoadEmptyAnnotations')] + geometry + [
        dict(type='allspark_mmseg.MultiView', weak=[pack], strong_1=color + [pack], strong_2=color + [pack])]

    allspark_labeled = load + [dict(type='LoadAnnotations')] + geometry + [
        dict(type='allspark_mmseg.MultiView', labeled=color + [pack])]
    allspark_unlabeled = load + [dict(type='allspark_mmseg.LoadEmptyAnnotations')] + geometry + [
        dict(type='allspark_mmseg.MultiView', weak=[pack])]

``LoadEmptyAnnotations`` replaces ``LoadAnnotations`` for unlabeled images. It lets the unlabeled loss ignore
padding. ``RandomScaleCropFlip`` is a faster equivalent of four transforms. Use these to insert other
transforms between them::

    four_steps = [
        dict(type='allspark_mmseg.RandomResizeLongSide', ratio_range=(0.5, 2.0)),
        dict(type='Pad', size=(crop, crop), pad_val=dict(img=0, seg=255)),
        dict(type='RandomCrop', crop_size=(crop, crop), cat_max_ratio=1.0),
        dict(type='RandomFlip', prob=0.5),
    ]

``RareClassCrop`` is a ``RandomScaleCropFlip`` with more crops of rare classes. UniMatch and AllSpark do not
use it.

``Pad`` pads only on the right and at the bottom, with black before normalization. It does not change a side
that is long enough. ``RandomCrop`` draws its corner from a range that includes both ends. The color
operations equal PIL's up to one gray level; see :mod:`allspark_mmseg.datasets.pillow_ops`.

The transforms take images of any number of bands, (H, W, C) or (H, W), of type uint8, uint16 or float32, and
treat each band by itself. Only the operations of color need three bands. ``ScaleIntensity`` maps the values
of images with more than 8 bits to [0, 255].

All random numbers come from the global generators of NumPy and Python. MMEngine seeds them when a worker
process starts, with the same seed in each epoch. Without ``persistent_workers=True``, a data loader repeats
its random numbers in every epoch.
"""

from .geometric import LoadEmptyAnnotations, RandomResizeLongSide, RandomScaleCropFlip
from .intensity import ScaleIntensity
from .photometric import ColorJitter, GaussianBlur, RandomGrayscale
from .rare_class_crop import RareClassCrop

__all__ = [
    'ColorJitter',
    'GaussianBlur',
    'LoadEmptyAnnotations',
    'RandomGrayscale',
    'RandomResizeLongSide',
    'RandomScaleCropFlip',
    'RareClassCrop',
    'ScaleIntensity',
]
