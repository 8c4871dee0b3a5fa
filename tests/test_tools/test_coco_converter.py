"""coco.py draws the instances of COCO 2017 as label maps."""

import json

import numpy as np

from tests.helpers.raw_data import (
    CUP,
    DOG,
    PERSON,
    TOOTHBRUSH,
    annotations,
    box,
    contents,
    counts,
    pixels,
    run,
    write_coco,
)


def coco_masks(root, *images):
    """Masks of training images, as the tool draws them."""
    run('coco', '--data-root', write_coco(root, annotations(*images)))
    return [pixels(root / f'masks/{image[0]:012d}.png') for image in images]


def test_coco_draws_all_categories_of_both_splits_in_one_folder(tmp_path):
    cells = [(label, box(6 * ((label - 1) % 10), 5 * ((label - 1) // 10), 6, 5)) for label in range(1, 81)]
    write_coco(
        tmp_path,
        annotations((9, 40, 60, *cells[:40])),
        annotations((139, 40, 60, *cells[40:]), (581929, 3, 5)),
    )
    printed = run('coco', '--data-root', tmp_path)
    assert '3 files written, 0 were complete already' in printed
    names = ['000000000009.png', '000000000139.png', '000000581929.png']
    assert sorted(path.name for path in (tmp_path / 'masks').iterdir()) == names
    train, val, empty = (pixels(tmp_path / 'masks' / name) for name in names)
    assert train.dtype == val.dtype == np.uint8 and train.shape == val.shape == (40, 60)
    grid = np.arange(1, 81).reshape(8, 10).repeat(5, 0).repeat(6, 1)
    assert (train == np.where(grid <= 40, grid, 0)).all()
    assert (val == np.where(grid > 40, grid, 0)).all()
    assert empty.shape == (3, 5) and not empty.any()


def test_coco_small_objects_stay_visible_in_any_order_of_the_file(tmp_path):
    large, small = (DOG, box(0, 0, 8, 8)), (CUP, box(2, 3, 3, 2))
    first, second, equal = coco_masks(
        tmp_path,
        (1, 8, 10, large, small),
        (2, 8, 10, small, large),
        (3, 8, 10, (DOG, box(0, 0, 4, 4)), (CUP, box(2, 0, 4, 4))),
    )
    expected = np.zeros((8, 10))
    expected[:, :8] = DOG
    expected[3:5, 2:5] = CUP
    assert (first == expected).all() and (second == expected).all()
    assert equal[0].tolist() == [DOG, DOG, CUP, CUP, CUP, CUP, 0, 0, 0, 0]


def test_coco_area_counts_all_parts_of_an_object_but_not_the_hull(tmp_path):
    """Two parts far apart (8 pixels) lie above a box of 12 pixels between and below them."""
    parts = box(0, 0, 2, 2) + box(4, 0, 2, 2)
    (mask,) = coco_masks(tmp_path, (1, 2, 6, (DOG, parts), (TOOTHBRUSH, box(0, 0, 6, 2))))
    assert (mask == [[DOG, DOG, TOOTHBRUSH, TOOTHBRUSH, DOG, DOG]] * 2).all()


def test_coco_crowds_are_drawn_below_everything_even_when_they_are_small(tmp_path):
    crowd = np.zeros((6, 7), bool)
    crowd[1:3, 2:7] = crowd[0, 0] = crowd[5, 6] = True
    as_list = counts(crowd)
    from pycocotools import mask

    as_string = mask.encode(np.asfortranarray(crowd, np.uint8))
    as_string['counts'] = as_string['counts'].decode()
    dog = (DOG, box(0, 2, 5, 4))
    masks = coco_masks(
        tmp_path,
        (1, 6, 7, dog, (PERSON, as_list, True)),
        (2, 6, 7, (PERSON, as_string, True), dog),
    )
    expected = np.where(crowd, PERSON, 0)
    expected[2:, :5] = DOG
    for found in masks:
        assert (found == expected).all()


def test_coco_names_malformed_annotations_and_draws_the_other_images(tmp_path):
    faults = [
        ([[1, 1, 2, 2]], 'expected polygons of three or more corners'),
        ([], 'expected polygons of three or more corners'),
        ({'size': [4, 5], 'counts': [3, 4]}, 'expected run lengths of 20 pixels together, found 7'),
        ({'size': [4, 5], 'counts': 'zzzz'}, 'Invalid RLE'),
        ({'size': [5, 4], 'counts': [20]}, 'expected run lengths of size [4, 5], found [5, 4]'),
    ]
    bad = [(number, 4, 5, (DOG, shape)) for number, (shape, _) in enumerate(faults)]
    write_coco(tmp_path, annotations(*bad, (5, 4, 5, (CUP, box(0, 0, 5, 4)))))
    printed = run('coco', '--data-root', tmp_path, status=1)
    for number, (_, complaint) in enumerate(faults):
        where = f'instances_train2017.json: image {number}, annotation {1000 + number}: '
        assert where in printed and complaint in printed
    assert '5 of 7 files could not be made (2 written, 0 were complete)' in printed
    assert sorted(contents(tmp_path / 'masks')) == [
        tmp_path / f'masks/{number:012d}.png' for number in (5, 7)
    ]


def test_coco_refuses_other_annotation_files(tmp_path):
    path = write_coco(tmp_path, annotations((1, 2, 2))) / 'annotations/instances_val2017.json'
    content = json.loads(path.read_text())
    for spoilt, found in (
        (dict(content, categories=content['categories'][:79]), '79 categories instead of 80'),
        (dict(content, annotations=[dict(image_id=7, id=1, category_id=12)]), 'no entry 12'),
        ({'panoptic': []}, "no entry 'categories'"),
    ):
        path.write_text(json.dumps(spoilt))
        printed = run('coco', '--data-root', tmp_path, status=1)
        assert str(path) in printed and found in printed
    path.write_text(json.dumps(content)[:-40])
    assert f'{path}: expected the instances' in run('coco', '--data-root', tmp_path, status=1)
    path.unlink()
    printed = run('coco', '--data-root', tmp_path, status=1)
    assert f'{path}: expected the annotations' in printed and 'annotations_trainval2017.zip' in printed
    assert not (tmp_path / 'masks').exists()


def test_coco_reports_the_missing_package(tmp_path):
    (tmp_path / 'pycocotools.py').write_text('raise ModuleNotFoundError(name="pycocotools")')
    printed = run('coco', '--data-root', tmp_path, status=1, PYTHONPATH=str(tmp_path))
    assert 'pip install pycocotools' in printed
