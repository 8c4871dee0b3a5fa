"""Draw COCO 2017's instances as label maps of 81 classes, for the semi-supervised benchmark.

Classes: 0 is the background; the 80 categories, in the order of their ids (1 to 90, with gaps), are 1 to 80.
There is no ignored pixel, and an image without annotations is background all over.

UniMatch and AllSpark train on masks that they offer as a download, without saying how they were drawn;
PseudoSeg names DeepLab's conversion script, and that of VOC only; ReCo does not use COCO. Public loaders
commonly draw crowd regions and show, where annotations overlap, the first in the file; others leave the
crowds out and show the last. So the following is this tool's choice, and its masks may differ from the
published ones:

* Crowd regions ("iscrowd") get the label of their category: a semantic label does not need to tell
  individuals apart. They lie below everything else, because they are outlined coarsely.
* Above them, larger objects are drawn first, so that a small object in front of, or held by, a large one
  stays visible. What counts is an object's own pixels, all parts together; equals keep the file's order.

Usage: python tools/dataset_converters/coco.py [--data-root data/coco]

Reads   annotations/instances_{train,val}2017.json
Writes  masks/000000000009.png, ...; for train2017 and val2017, whose image ids are distinct

The training annotations take a few GB of memory. A run can be interrupted, see conversion.py.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from conversion import BadInputError, Job, command_line

SPLITS = ('train2017', 'val2017')
CATEGORIES = 80
DOWNLOAD = 'http://images.cocodataset.org/annotations/annotations_trainval2017.zip'


class Region(NamedTuple):
    """An annotation: its id, the label to draw, whether it is a crowd, and its polygons or run lengths."""

    annotation: int
    label: int
    crowd: bool
    segmentation: list | dict


def mask_api():
    """Import pycocotools.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'decoding the annotations of COCO needs the package pycocotools; run: pip install pycocotools'
        ) from error
    return mask


def run_lengths(segmentation: list | dict, height: int, width: int) -> dict:
    """Polygons, or run lengths as a list or a string -> run lengths as pycocotools takes them.

    Raises:
        ValueError, KeyError, TypeError: They are malformed.
    """
    api = mask_api()
    if isinstance(segmentation, list):
        # pycocotools takes four numbers for a box, and fails unclearly when there is no polygon.
        if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
            raise ValueError('expected polygons of three or more corners, found others')
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
    """Draw the regions of one image, in the order that the module describes.

    Args:
        source: file and image, for errors.
        height: of the image, in pixels.
        width: of the image, in pixels.
        regions: its annotations in the order of the file.

    Returns:
        Labels (height, width), uint8.

    Raises:
        BadInputError: An annotation is malformed.
    """
    api = mask_api()
    layers = []
    for region in regions:
        try:
            shape = run_lengths(region.segmentation, height, width)
            area, inside = int(api.area(shape)), api.decode(shape) > 0
            # pycocotools leaves the pixels beyond too few run lengths as they were in memory.
            if area != inside.sum():
                raise ValueError(f'expected run lengths of {height * width} pixels together, found others')
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
    """One mask for each image of an annotation file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else than COCO's instances.
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
        regions = {image['id']: [] for image in content['images']}
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
    """All masks to write, of both splits."""
    mask_api()  # reading the annotations takes a while: complain of a missing package before
    jobs = []
    for split in SPLITS:
        path = args.data_root / 'annotations' / f'instances_{split}.json'
        print(f'reading {path}', flush=True)
        jobs += jobs_of(path, args.data_root / 'masks')
    return jobs


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description="Draw COCO 2017's instances as label maps of 81 classes.")
    parser.add_argument(
        '--data-root',
        type=Path,
        default=Path('data/coco'),
        help='folder with annotations/instances_{train,val}2017.json; masks go to masks/ in it '
        '(default: %(default)s)',
    )
    command_line(parser, find_jobs)
