"""Polygons of labelme and COCO become masks."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from allspark_mmseg.own_data.polygons import class_names, draw, find_polygons

SQUARE = [[2, 3], [6, 3], [6, 9], [2, 9]]  # covers the pixels 2..5 and 3..8


def square(value: int = 1, outside: int = 0) -> np.ndarray:
    expected = np.full((12, 10), outside, np.uint8)
    expected[3:9, 2:6] = value
    return expected


def encoded(values: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format='png')
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ('kind', 'value'),
    [
        ('polygon', SQUARE),
        ('rectangle', [[6, 9], [2, 3]]),
        ('mask', (encoded(np.full((6, 4), 255, np.uint8)), [[2, 3], [5, 8]])),
        ('rle', dict(size=[12, 10], counts=[27, 6, 6, 6, 6, 6, 6, 6, 51])),
    ],
)
def test_shapes(kind, value):
    mask = draw([('a', kind, value)], (10, 12), ['background', 'a'])
    np.testing.assert_array_equal(mask, square())


def test_compressed_run_lengths():
    coco = pytest.importorskip('pycocotools.mask')
    encoded = coco.encode(np.asfortranarray(square()))
    value = dict(size=encoded['size'], counts=encoded['counts'].decode())
    np.testing.assert_array_equal(draw([('a', 'rle', value)], (10, 12), ['background', 'a']), square())


def test_the_area_of_a_large_polygon_is_right():
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    points = (100 + 60 * np.stack([np.cos(angles), np.sin(angles)], 1)).tolist()
    for kind, value in (('polygon', points), ('circle', [[100, 100], [160, 100]])):
        area = draw([('a', kind, value)], (200, 200), ['background', 'a']).sum()
        assert abs(area / (np.pi * 60**2) - 1) < 0.02


def test_outside_and_later_shapes():
    shapes = [('a', 'polygon', SQUARE), ('__ignore__', 'polygon', [[2, 3], [6, 3], [6, 5], [2, 5]])]
    mask = draw(shapes, (10, 12), ['a', 'b'])
    expected = square(0, 255)
    expected[3:5, 2:6] = 255
    np.testing.assert_array_equal(mask, expected)


def test_labelme(tmp_path):
    shape = dict(label='crack', points=SQUARE, shape_type='polygon')
    content = dict(version='5.5', shapes=[shape], imagePath='..\\x\\a.jpg', imageData=None)
    (tmp_path / 'json').mkdir()
    (tmp_path / 'json' / 'a.json').write_text(json.dumps(content))
    (tmp_path / 'json' / 'b.json').write_text(json.dumps(content | dict(imagePath='b.jpg')))
    (tmp_path / 'c.json').write_text('{"other": 1}')
    names = ['json/a.json', 'json/b.json', 'c.json']
    files, problems = find_polygons(tmp_path, names, ['images/a.jpg'])
    assert [(file.form, file.images) for file in files] == [
        ('labelme', {'images/a.jpg': [('crack', 'polygon', SQUARE)]})
    ]
    assert [problem.path for problem in problems] == ['json/b.json']
    assert class_names(files, []) == ['background', 'crack']
    with pytest.raises(ValueError, match=r"labels \['crack'\], which are not among"):
        class_names(files, ['background', 'hole'])


def test_coco(tmp_path):
    flat = [number for point in SQUARE for number in point]
    small = dict(image_id=7, category_id=3, segmentation=[flat], area=24)
    large = dict(image_id=7, category_id=1, segmentation=[[0, 0, 10, 0, 10, 12, 0, 12]], area=120)
    content = dict(
        images=[dict(id=7, file_name='sub/a.jpg'), dict(id=8, file_name='lost.jpg')],
        annotations=[small, large],
        categories=[dict(id=3, name='hole'), dict(id=1, name='metal')],
    )
    (tmp_path / 'instances.json').write_text(json.dumps(content))
    images = ['images/sub/a.jpg', 'images/other/a.jpg']
    (file,), (problem,) = find_polygons(tmp_path, ['instances.json'], images)
    names = class_names([file], [])
    assert names == ['background', 'metal', 'hole'] and 'lost.jpg' in problem.reason
    # the large shape is drawn first
    np.testing.assert_array_equal(draw(file.images['images/sub/a.jpg'], (10, 12), names), square(2, 1))


def test_damaged_json_is_named(tmp_path):
    (tmp_path / 'a.json').write_text('{')
    files, problems = find_polygons(tmp_path, ['a.json'], [])
    assert not files and problems[0].reason.startswith('is not a JSON file')
