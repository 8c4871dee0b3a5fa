"""Draw the instances of COCO 2017 as label maps of 81 classes, for the semi-supervised benchmark.

    python tools/dataset_converters/coco.py [--data-root data/coco]

Classes: 0 is the background. The 80 categories, in the order of their ids (1 to 90, with gaps), are 1 to 80.
No pixel is ignored. An image without annotations is all background.

UniMatch and AllSpark train on masks that they offer as a download. They do not say how the masks were drawn.
PseudoSeg refers only to the DeepLab conversion script for VOC. ReCo does not use COCO. Public loaders differ:
many draw crowd regions and show the first annotation where annotations overlap; others omit crowd regions and
show the last one. The masks of this tool may therefore differ from the published ones. Its rules are:

* Crowd regions ("iscrowd") get the label of their category, because a semantic label does not separate
  individuals. They are below all other annotations, because their outlines are coarse.
* Above them, larger objects are drawn first, so that small objects in front of large ones stay visible. The
  size is the number of pixels of all parts. Objects of equal size keep the order of the file.

Reads   annotations/instances_{train,val}2017.json
Writes  masks/000000000009.png, ...; for train2017 and val2017, whose image ids are distinct

The training annotations need a few GB of memory. A run can be interrupted; see conversion.py.
"""

import argparse
import json
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from conversion import BadInputError, Job, command_line

SPLITS = ('train2017', 'val2017')
CATEGORIES = 80
DOWNLOAD = 'http://images.cocodataset.org/annotations/annotations_trainval2017.zip'


class Region(NamedTuple):
    """An annotation.

    Attributes:
        annotation (int): Its id.
        label (int): The label to draw.
        crowd (bool): Whether it is a crowd region.
        segmentation (list | dict): Polygons or run lengths.
    """

    annotation: int
    label: int
    crowd: bool
    segmentation: list | dict


def mask_api() -> ModuleType:
    """Import ``pycocotools.mask``.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'reading the annotations of COCO needs the package pycocotools; run: pip install pycocotools'
        ) from error
    return mask


def run_lengths(segmentation: list | dict, height: int, width: int) -> dict:
    """Convert polygons, or run lengths as a list or a string, to the run lengths of pycocotools.

    Args:
        segmentation (list | dict): Polygons or run lengths.
        height (int): Height of the image in pixels.
        width (int): Width of the image in pixels.

    Returns:
        dict: Compressed run lengths.

    Raises:
        ValueError, KeyError, TypeError: The segmentation is malformed.
    """
    api = mask_api()
    if isinstance(segmentation, list):
        # pycocotools reads four numbers as a box, and its error without polygons is unclear
        if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
            raise ValueError('expected polygons of three or more corners, found fewer')
        return api.merge(api.frPyObjects(segmentation, height, width))
    if list(segmentation['size']) != [height, width]:
        raise ValueError(f'expected run lengths of size {[height, width]}, found {segmentation["size"]}')
    counts = segmentation['counts']
    if not isinstance(counts, list):
        return segmentation
    if min(counts) < 0 or sum(counts) != height * width:
        raise ValueError(f'expected run lengths of {height * width} pixels together, found {sum(counts)}')
    return api.frPyObjects(segmentation, height, width)


def draw(source: str, height: int, width: int, regions: list[Region]) -> np.ndarray:
    """Draw the regions of one image in the order that the module describes.

    Args:
        source (str): File and image, for errors.
        height (int): Height of the image in pixels.
        width (int): Width of the image in pixels.
        regions (list[Region]): Annotations of the image in the order of the file.

    Returns:
        np.ndarray: Labels ``(height, width)`` uint8.

    Raises:
        BadInputError: An annotation is malformed.
    """
    api = mask_api()
    layers = []
    for region in regions:
        try:
            shape = run_lengths(region.segmentation, height, width)
            area, inside = int(api.area(shape)), api.decode(shape) > 0
            # if run lengths are missing, pycocotools leaves the remaining pixels uninitialized
            if area != inside.sum():
                raise ValueError(f'expected run lengths of {height * width} pixels together, found fewer')
            layers.append((not region.crowd, -area, inside, region.label))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError(
                f'{source}, annotation {region.annotation}: {type(error).__name__}: {error}; download the '
                'annotations again'
            ) from error
    labels = np.zeros((height, width), np.uint8)
    for _, _, inside, label in sorted(layers, key=lambda layer: layer[:2]):
        labels[inside] = label
    return labels


def jobs_of(path: Path, masks: Path) -> list[Job]:
    """List the masks of an annotation file.

    Args:
        path (Path): The annotation file.
        masks (Path): Folder of the masks.

    Returns:
        list[Job]: One job per image.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not contain COCO's instances.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}: expected the annotations of COCO 2017, found no file; unpack {DOWNLOAD} in '
            f'{path.parent.parent}, or give --data-root'
        )
    try:
        content = json.loads(path.read_bytes())
        categories = sorted(category['id'] for category in content['categories'])
        if len(categories) != CATEGORIES:
            raise ValueError(f'{len(categories)} categories instead of {CATEGORIES}')
        labels = {category: label for label, category in enumerate(categories, start=1)}
        regions: dict[int, list[Region]] = {image['id']: [] for image in content['images']}
        for annotation in content['annotations']:
            regions[annotation['image_id']].append(
                Region(
                    annotation['id'],
                    labels[annotation['category_id']],
                    bool(annotation['iscrowd']),
                    annotation['segmentation'],
                )
            )
        return [
            Job(
                masks / f'{image["id"]:012d}.png',
                draw,
                (f'{path}: image {image["id"]}', image['height'], image['width'], regions[image['id']]),
            )
            for image in content['images']
        ]
    except (KeyError, TypeError, ValueError) as error:
        found = f'no entry {error}' if isinstance(error, KeyError) else error
        raise ValueError(
            f'{path}: expected the instances of COCO 2017, found {found}; unpack {DOWNLOAD} again'
        ) from error


def find_jobs(args: argparse.Namespace) -> list[Job]:
    """List the masks of both splits; ``args`` has ``data_root``."""
    mask_api()  # report a missing package before reading the annotations, which takes a while
    jobs = []
    for split in SPLITS:
        path = args.data_root / 'annotations' / f'instances_{split}.json'
        print(f'reading {path}', flush=True)
        jobs += jobs_of(path, args.data_root / 'masks')
    return jobs


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description='Draw the instances of COCO 2017 as label maps of 81 classes.'
    )
    parser.add_argument(
        '--data-root',
        type=Path,
        default=Path('data/coco'),
        help='folder with annotations/instances_{train,val}2017.json; masks are written to its folder masks '
        '(default: %(default)s)',
    )
    command_line(parser, find_jobs)
