"""Masks as polygons, in the files that annotation tools read: labelme JSON and COCO JSON.

Rules of the polygons:

* Each connected part of each class, also of class 0, has one polygon: its outer outline.
* There are no holes. Polygons are sorted by area, the largest first, and each one covers those before it. So
  what lies in a hole is drawn over it. labelme draws in the order of the file; in COCO files, drawing large
  regions first is a common rule.
* Parts of fewer than 16 pixels take the class that surrounds them most.
* The outline deviates by at most 1 pixel. If the polygons of an image, drawn again, differ from the mask in
  more than 1 % of the pixels, the tolerance is 0.5 pixels, then 0, then 0 with parts of any size. Then they
  differ only where parts of two classes cross at a corner, as in noise.
* Points are corners of pixels: the center of the first pixel is (0.5, 0.5), as in the window of labelme and
  in COCO. ``python -m allspark_mmseg new`` and pycocotools fill the pixels whose centers are inside.
  labelme's own export adds the outline, up to one pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..own_data.polygons import fill_polygon

MIN_PART = 16  # pixels
AGREEMENT = 0.99
# tolerance in pixels, and size of the smallest part; the last one is exact
LEVELS = ((1.0, MIN_PART), (0.5, MIN_PART), (0.0, MIN_PART), (0.0, 1))


@dataclass(frozen=True)
class Region:
    """Outer outline of a connected part of a class.

    Attributes:
        label (int): The class.
        corners (np.ndarray): (P, 2), x and y of the corners of its border pixels, P >= 4.
        area (int): Pixels inside the outline.
    """

    label: int
    corners: np.ndarray
    area: int


def remove_small_parts(mask: np.ndarray, min_part: int = MIN_PART) -> np.ndarray:
    """Give small parts the class that surrounds them most.

    Args:
        mask (np.ndarray): (H, W) uint8.
        min_part (int): Pixels of the smallest part that stays.

    Returns:
        np.ndarray: (H, W) uint8. A mask that is one small part stays.
    """
    mask = mask.copy()
    for label in np.unique(mask) if min_part > 1 else ():
        _, parts, stats, _ = cv2.connectedComponentsWithStats((mask == label).astype(np.uint8))
        for part in 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] < min_part):  # 0 is the other classes
            left, top, width, height = stats[part, :4]
            rows, columns = (
                slice(max(top - 1, 0), top + height + 1),
                slice(max(left - 1, 0), left + width + 1),
            )
            inside = parts[rows, columns] == part
            ring = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~inside
            if ring.any():
                mask[rows, columns][inside] = np.bincount(mask[rows, columns][ring]).argmax()
    return mask


def find_regions(mask: np.ndarray, tolerance: float) -> list[Region]:
    """Trace the parts of a mask.

    Args:
        mask (np.ndarray): (H, W) uint8.
        tolerance (float): Largest deviation of an outline in pixels.

    Returns:
        list[Region]: The largest first.
    """
    regions = []
    for label in np.unique(mask):
        binary = (mask == label).astype(np.uint8)
        # two levels: a hole has a parent, an outer outline has none, also in the hole of another part
        outlines, ((*links,),) = cv2.findContours(binary, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for outline, (_, _, _, parent) in zip(outlines, links, strict=True):
            if parent < 0:
                regions.append(_make_region(int(label), outline[:, 0], tolerance))
    return sorted(regions, key=lambda region: -region.area)


def _make_region(label: int, outline: np.ndarray, tolerance: float) -> Region:
    """Simplify the outline (P, 2) of a part, given as the centers of all its border pixels."""
    offset = outline.min(0)
    filled = np.zeros((outline.max(0) - offset + 1)[::-1], np.uint8)
    cv2.fillPoly(filled, [outline - offset], 1)
    area = int(filled.sum())
    doubled = filled.repeat(2, 0).repeat(2, 1)
    (edge,), _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # the corner between two pixels of the doubled part is an odd number, ceil(odd / 2) its place
    corners = (edge[:, 0] + 1) // 2 + offset
    return Region(label, _simplify(corners, tolerance), area)


def _simplify(points: np.ndarray, tolerance: float) -> np.ndarray:
    """Approximate a closed outline (P, 2); the corners of a part always keep four points."""
    simple = cv2.approxPolyDP(points.astype(np.int32), tolerance, True)[:, 0]
    return simple if len(simple) > 2 else cv2.approxPolyDP(points.astype(np.int32), 0, True)[:, 0]


def draw_regions(regions: Sequence[Region], shape: tuple[int, int], fill: int = 255) -> np.ndarray:
    """Draw polygons, each over those before it.

    Args:
        regions (Sequence[Region]): The polygons.
        shape (tuple[int, int]): Height and width.
        fill (int): Value of pixels in no polygon.

    Returns:
        np.ndarray: (H, W) uint8.
    """
    mask = np.full(shape, fill, np.uint8)
    for region in regions:
        fill_polygon(mask, region.corners, region.label)
    return mask


def trace(mask: np.ndarray) -> list[Region]:
    """Trace a mask with the first of `LEVELS` whose polygons agree with it on 99 % of the pixels.

    If none does, the last one is used.

    Args:
        mask (np.ndarray): (H, W) uint8.

    Returns:
        list[Region]: The largest first.
    """
    regions: list[Region] = []
    for tolerance, min_part in LEVELS:
        regions = find_regions(remove_small_parts(mask, min_part), tolerance)
        if (draw_regions(regions, mask.shape) == mask).mean() >= AGREEMENT:
            break
    return regions


def labelme_json(
    regions: Sequence[Region], classes: Sequence[str], image: str, size: tuple[int, int]
) -> dict[str, Any]:
    """Return the content of a labelme file.

    Args:
        regions (Sequence[Region]): The polygons, the largest first.
        classes (Sequence[str]): Names of the classes.
        image (str): Path of the image, relative to the folder of the file.
        size (tuple[int, int]): Height and width.

    Returns:
        dict: The content, for ``json.dump``.
    """
    shapes = [
        {
            'label': classes[region.label],
            'points': region.corners.astype(float).tolist(),
            'group_id': None,
            'description': '',
            'shape_type': 'polygon',
            'flags': {},
        }
        for region in regions
    ]
    return {
        'version': '5.0.0',
        'flags': {},
        'shapes': shapes,
        'imagePath': image,
        'imageData': None,
        'imageHeight': size[0],
        'imageWidth': size[1],
    }


def coco_json(
    images: Sequence[tuple[str, tuple[int, int], Sequence[Region]]], classes: Sequence[str]
) -> dict[str, Any]:
    """Return the content of a COCO file with instances, as CVAT imports it.

    Args:
        images (Sequence): Relative name, height and width, and polygons of each image.
        classes (Sequence[str]): Names of the classes. Class k has the category id k + 1.

    Returns:
        dict: The content, for ``json.dump``.
    """
    rule = 'Later annotations cover earlier ones; all are sorted by area, the largest first.'
    content: dict[str, Any] = {
        'info': {'description': f'Predicted masks, as a start for annotation. {rule}'},
        'licenses': [],
        'categories': [
            {'id': number, 'name': name, 'supercategory': ''} for number, name in enumerate(classes, start=1)
        ],
        'images': [],
        'annotations': [],
    }
    for number, (name, (height, width), regions) in enumerate(images, start=1):
        content['images'].append({'id': number, 'file_name': name, 'height': height, 'width': width})
        for region in regions:
            low, high = region.corners.min(0), region.corners.max(0)
            annotation = {
                'id': len(content['annotations']) + 1,
                'image_id': number,
                'category_id': region.label + 1,
                'segmentation': [region.corners.ravel().tolist()],
                'area': region.area,
                'bbox': [*low.tolist(), *(high - low).tolist()],
                'iscrowd': 0,
            }
            content['annotations'].append(annotation)
    return content
