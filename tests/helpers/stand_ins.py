"""Small data sets with the file layout of the published ones."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

from allspark_mmseg.utils import dicts_in

CLASSES = dict(voc=21, cityscapes=19, coco=81)


def make_stand_in(folder: Path, dataset: str, count: int = 10) -> Path:
    """Make small images with the real layout and lists: 2 labeled, 2 for validation, 6 others."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        part = 'val' if i >= count - 2 else 'train'
        if dataset == 'voc':
            image, mask = f'JPEGImages/2007_{i:06d}.jpg', f'SegmentationClass/2007_{i:06d}.png'
        elif dataset == 'coco':
            image, mask = f'{part}2017/{i:012d}.jpg', f'masks/{i:012d}.png'
        else:
            name = f'{part}/aachen/aachen_{i:06d}_000019'
            image, mask = f'leftImg8bit/{name}_leftImg8bit.png', f'gtFine/{name}_gtFine_labelTrainIds.png'
        size = (96, 192) if dataset == 'cityscapes' else ((60, 80), (81, 56))[i % 2]
        labels = rng.integers(0, CLASSES[dataset], size, dtype=np.uint8)
        labels[:2] = 255
        for path, pixels in ((image, rng.integers(0, 256, (*size, 3), dtype=np.uint8)), (mask, labels)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / path)
        rows.append(f'{image} {mask}')
    for name, chosen in dict(labeled=rows[:2], unlabeled=rows[2:-2], val=rows[-2:]).items():
        (folder / f'{name}.txt').write_text('\n'.join(chosen))
    return folder


def use_stand_in(cfg: Config, folder: Path) -> None:
    """Let the data sets of a config read the stand-in."""
    cfg.train_dataloader.dataset.update(data_root=str(folder), split=str(folder))
    for node in dicts_in([cfg.val_dataloader, cfg.test_dataloader]):
        if node.get('type') == 'allspark_mmseg.ImageListDataset':
            node.update(data_root=str(folder), ann_file='val.txt')


def shorten(loader, supervised: bool) -> None:
    """Draw no more images per step than the stand-in has, and 3 steps per epoch."""
    if supervised:
        loader.update(batch_size=2)
    else:
        loader.update(batch_size=4, sampler=dict(loader.sampler, labeled=2, unlabeled=2))
        if 'epoch_length' in loader.sampler:
            loader.sampler.epoch_length = 3
