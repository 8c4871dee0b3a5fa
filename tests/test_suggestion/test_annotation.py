"""Polygons of masks: drawn again, they give the mask, by ``new`` and by pycocotools."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as api

from allspark_mmseg.own_data.polygons import draw, find_polygons
from allspark_mmseg.suggestion.annotation import (
    AGREEMENT,
    coco_json,
    draw_regions,
    find_regions,
    labelme_json,
    remove_small_parts,
    trace,
)

CLASSES = ['sky', 'road', 'pole', 'car', 'tree']


def predicted_mask(seed: int, size: tuple[int, int] = (360, 480), noise: float = 0.06) -> np.ndarray:
    """A mask like that of a network: the largest of coarse maps, enlarged, with thin and tiny parts."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(size=(len(CLASSES), 9, 12))
    maps = [cv2.resize(each, size[::-1], interpolation=cv2.INTER_CUBIC) for each in coarse]
    fine = noise * np.array([cv2.GaussianBlur(generator.normal(size=size), (5, 5), 0) for _ in CLASSES])
    mask = (np.array(maps) + fine).argmax(0).astype(np.uint8)
    mask[20:120, 60:62] = 2
    return mask


def draw_coco(content: dict, image: int) -> np.ndarray:
    """Draw the annotations of an image in the order of the file, with pycocotools."""
    entry = content['images'][image]
    height, width = entry['height'], entry['width']
    mask = np.full((height, width), 255, np.uint8)
    for annotation in content['annotations']:
        if annotation['image_id'] == entry['id']:
            shape = api.merge(api.frPyObjects(annotation['segmentation'], height, width))
            mask[api.decode(shape) > 0] = annotation['category_id'] - 1
    return mask


def test_the_masks_are_hard_enough():
    mask = predicted_mask(0)
    parts = [cv2.connectedComponents((mask == label).astype(np.uint8))[0] - 1 for label in range(5)]
    assert sum(parts) > 40 and len(np.unique(mask)) == 5


@pytest.mark.parametrize('seed', range(4))
def test_polygons_agree_with_the_mask(seed):
    mask = predicted_mask(seed)
    regions = trace(mask)
    assert (draw_regions(regions, mask.shape) == mask).mean() >= AGREEMENT
    content = coco_json([('a.jpg', mask.shape, regions)], CLASSES)
    assert (draw_coco(content, 0) == mask).mean() >= AGREEMENT
    exact = sum(len(region.corners) for region in find_regions(mask, 0))
    assert sum(len(region.corners) for region in regions) < 0.9 * exact


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)))
def test_exact_outlines_of_any_mask(mask):
    regions = find_regions(mask, 0)
    # diagonal neighbors of two classes can cross; without crossings the drawing is the mask
    crossing = (
        (mask[:-1, :-1] == mask[1:, 1:]) & (mask[:-1, 1:] == mask[1:, :-1]) & (mask[1:, 1:] != mask[1:, :-1])
    )
    if not crossing.any():
        np.testing.assert_array_equal(draw_regions(regions, mask.shape), mask)
        content = coco_json([('a.png', mask.shape, regions)], CLASSES)
        np.testing.assert_array_equal(draw_coco(content, 0), mask)
    assert all(len(region.corners) >= 4 for region in regions)


def test_a_hole_is_what_is_drawn_over_it():
    mask = np.zeros((40, 50), np.uint8)
    mask[5:35, 5:40] = 1
    mask[10:30, 10:30] = 0
    mask[15:20, 15:20] = 3
    regions = trace(mask)
    assert [region.label for region in regions] == [0, 1, 0, 3]
    assert [region.area for region in regions] == [2000, 1050, 400, 25]
    np.testing.assert_array_equal(draw_regions(regions, mask.shape), mask)


def test_small_parts_take_the_class_around_them():
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 1
    mask[5:8, 5:10] = 2  # 15 pixels
    mask[20:24, 30:34] = 2  # 16 pixels
    mask[0, 39] = 3
    clean = remove_small_parts(mask)
    assert (clean[5:8, 5:10] == 0).all() and (clean[20:24, 30:34] == 2).all() and clean[0, 39] == 1
    np.testing.assert_array_equal(remove_small_parts(mask, 1), mask)
    np.testing.assert_array_equal(remove_small_parts(np.full((2, 3), 4, np.uint8)), 4)


def test_many_small_parts_stay_where_the_agreement_needs_them():
    mask = np.zeros((40, 40), np.uint8)
    mask[2::6, 2::6] = 2  # 49 pixels, 3 %
    np.testing.assert_array_equal(draw_regions(trace(mask), mask.shape), mask)


def test_labelme_file():
    mask = np.zeros((20, 30), np.uint8)
    mask[4:12, 6:21] = 3
    content = json.loads(json.dumps(labelme_json(trace(mask), CLASSES, 'a b.jpg', mask.shape)))
    assert (content['imagePath'], content['imageHeight'], content['imageWidth']) == ('a b.jpg', 20, 30)
    assert content['imageData'] is None
    assert [shape['label'] for shape in content['shapes']] == ['sky', 'car']
    car = content['shapes'][1]
    assert car['shape_type'] == 'polygon'
    assert sorted(car['points']) == [[6, 4], [6, 12], [21, 4], [21, 12]]


def test_new_reads_the_labelme_file_as_the_same_mask(tmp_path):
    mask = predicted_mask(5, (90, 120))
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(labelme_json(find_regions(mask, 0), CLASSES, 'a.jpg', mask.shape)))
    (file,), problems = find_polygons(tmp_path, ['a.json'], ['a.jpg'])
    assert not problems
    drawn = draw(file.images['a.jpg'], mask.shape[::-1], CLASSES)
    assert (drawn == mask).mean() > 0.999  # two parts can cross at a corner


def test_coco_file():
    mask = np.zeros((20, 30), np.uint8)
    mask[4:12, 6:21] = 3
    regions = trace(mask)
    images = [('x/a.jpg', mask.shape, regions), ('x/b.jpg', mask.shape, regions)]
    content = json.loads(json.dumps(coco_json(images, CLASSES)))
    assert [category['name'] for category in content['categories']] == CLASSES
    assert [image['file_name'] for image in content['images']] == ['x/a.jpg', 'x/b.jpg']
    assert [annotation['id'] for annotation in content['annotations']] == [1, 2, 3, 4]
    car = content['annotations'][3]
    assert (car['image_id'], car['category_id'], car['area'], car['bbox']) == (2, 4, 120, [6, 4, 15, 8])
