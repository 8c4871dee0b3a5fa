"""Every form of masks becomes the class numbers that it means."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from allspark_mmseg.own_data.colors import (
    ColorTable,
    color_name,
    colors_to_classes,
    default_palette,
    frequent_colors,
    read_table,
)
from allspark_mmseg.own_data.mask_facts import read_mask_facts
from allspark_mmseg.own_data.mask_forms import MaskForm, recognize

from ..helpers.folders import classes

TRUTH = classes(count=3)
BINARY = classes(count=2)
MANY = np.array([*range(40), 255], np.uint8)[classes(count=6) * 8]  # mostly dark, and 255
MANY[5] = np.arange(48).clip(0, 39)
COLORS = np.array([[128, 64, 128], [0, 0, 0], [250, 170, 30]], np.uint8)


def palette_image() -> Image.Image:
    image = Image.fromarray(TRUTH).convert('P')
    image.putdata(TRUTH.ravel().tolist())
    image.putpalette(COLORS.ravel().tolist())
    return image


def ignored() -> np.ndarray:
    values = TRUTH.copy()
    values[:4] = 255
    return values


FROM_1 = np.array([1, 2, 255], np.uint8)[TRUTH]
# form -> (image, kind, mask, whether the file is used as it is)
FORMS = {
    'numbers': (Image.fromarray(TRUTH), 'numbers', TRUTH, True),
    'ignored': (Image.fromarray(ignored()), 'numbers', ignored(), True),
    'many classes': (Image.fromarray(MANY), 'numbers', MANY, True),
    'palette': (palette_image(), 'numbers', TRUTH, True),
    'one bit': (Image.fromarray(BINARY.astype(bool)), 'numbers', BINARY, False),
    '16 bits': (Image.fromarray(TRUTH.astype(np.uint16)), 'numbers', TRUTH, False),
    'gray in RGB': (Image.fromarray(np.stack([TRUTH] * 3, axis=2)), 'numbers', TRUTH, False),
    '0 and 255': (Image.fromarray(255 * BINARY), 'binary', BINARY, False),
    'levels': (Image.fromarray(np.array([0, 90, 200], np.uint8)[TRUTH]), 'levels', TRUTH, False),
    'from 1': (Image.fromarray(TRUTH + 1), 'shifted', TRUTH, False),
    'from 1, ignored': (Image.fromarray(FROM_1), 'shifted', np.array([0, 1, 255], np.uint8)[TRUTH], False),
    '16-bit levels': (Image.fromarray(np.array([0, 300, 65535], np.uint16)[TRUTH]), 'levels', TRUTH, False),
}


def understand(tmp_path, image: Image.Image, **options) -> tuple[MaskForm, dict]:
    image.save(tmp_path / 'mask.png')
    facts = read_mask_facts(tmp_path / 'mask.png')
    arguments = dict(table=None, threshold=None, binary_elsewhere=False) | options
    return recognize([facts], **arguments), facts


@pytest.mark.parametrize('name', FORMS)
def test_forms(name, tmp_path):
    image, kind, expected, in_place = FORMS[name]
    form, facts = understand(tmp_path, image)
    assert form.kind == kind
    assert form.needs_conversion(facts['mode']) != in_place
    np.testing.assert_array_equal(form.decode(tmp_path / 'mask.png'), expected)
    counts = form.counts(facts)
    np.testing.assert_array_equal(counts, np.bincount(expected.ravel(), minlength=256))
    assert form.text


def test_the_palette_of_the_image_gives_the_colors(tmp_path):
    form, _ = understand(tmp_path, palette_image())
    assert form.palette == [tuple(color) for color in COLORS.tolist()]


@pytest.mark.parametrize(('threshold', 'limit'), [(None, 128), (60, 60)])
def test_soft_gray_is_cut_at_the_threshold(threshold, limit, tmp_path):
    wide = Image.fromarray(255 * classes(count=2, size=(480, 40)).repeat(10, axis=1))
    soft = wide.filter(ImageFilter.GaussianBlur(2))
    form, _ = understand(tmp_path, soft, threshold=threshold)
    assert form.kind == 'soft'
    np.testing.assert_array_equal(form.decode(tmp_path / 'mask.png'), np.asarray(soft) >= limit)
    if threshold is None:
        form, _ = understand(tmp_path, Image.fromarray(np.asarray(soft).astype(np.uint16) * 256))
        np.testing.assert_array_equal(form.decode(tmp_path / 'mask.png'), np.asarray(soft) >= 128)


def test_255_alone_is_ignored_unless_another_folder_has_0_and_1(tmp_path):
    white = Image.fromarray(np.full((4, 4), 255, np.uint8))
    assert understand(tmp_path, white)[0].decode(tmp_path / 'mask.png').max() == 255
    form, _ = understand(tmp_path, white, binary_elsewhere=True)
    assert form.decode(tmp_path / 'mask.png').max() == 1


def test_colors_are_found_by_frequency(tmp_path):
    labels = np.repeat([0, 1, 2], [500, 300, 200]).reshape(20, 50)
    form, facts = understand(tmp_path, Image.fromarray(COLORS[labels]))
    assert form.kind == 'colors' and form.names[1] == 'black'
    np.testing.assert_array_equal(form.decode(tmp_path / 'mask.png'), labels)
    assert form.counts(facts)[:3].tolist() == [500, 300, 200]
    assert '50.0%; (0, 0, 0) 30.0%' in form.text


def test_a_table_decides_the_order_and_what_is_ignored(tmp_path):
    (tmp_path / 'table.txt').write_text('# comment\n250 170 30\tTraffic light\n128 64 128 road\n0 0 0 Void\n')
    table = read_table(tmp_path / 'table.txt')
    assert table == ColorTable(['Traffic light', 'road'], [(250, 170, 30), (128, 64, 128)], [(0, 0, 0)])
    form, _ = understand(tmp_path, Image.fromarray(COLORS[TRUTH]), table=table)
    expected = np.array([1, 255, 0], np.uint8)[TRUTH]
    np.testing.assert_array_equal(form.decode(tmp_path / 'mask.png'), expected)


def test_masks_of_class_numbers_can_have_a_table_of_colors(tmp_path):
    table = ColorTable(['road', 'void', 'car'], [(128, 64, 128), (0, 0, 0), (250, 170, 30)], [])
    form, _ = understand(tmp_path, Image.fromarray(TRUTH), table=table)
    assert form.kind == 'numbers'
    gray = ColorTable(['edge', 'inside'], [(0, 0, 0), (255, 255, 255)], [])
    form, _ = understand(tmp_path, Image.fromarray(255 * BINARY), table=gray)
    assert form.kind == 'colors'
    np.testing.assert_array_equal(form.decode(tmp_path / 'mask.png'), BINARY)


def test_numbers_of_objects_are_no_classes(tmp_path):
    pixels = (1000 + 7 * np.arange(400)).astype(np.uint16).reshape(20, 20)
    with pytest.raises(ValueError, match='400 different values from 1000 to 3793, such as the numbers'):
        understand(tmp_path, Image.fromarray(pixels))


@pytest.mark.parametrize(
    'text',
    ['road:128,64,128::\n', 'name,r,g,b\nroad,128,64,128\n', 'road 128 64 128\n', '{"road": [128, 64, 128]}'],
)
def test_tables_of_other_tools(text, tmp_path):
    path = tmp_path / ('table.json' if text.startswith('{') else 'table.txt')
    path.write_text(text)
    assert read_table(path) == ColorTable(['road'], [(128, 64, 128)], [])


@pytest.mark.parametrize(('text', 'message'), [('road\n', 'has no colors'), ('road 1 2 300\n', '0 to 255')])
def test_wrong_tables(text, message, tmp_path):
    (tmp_path / 'table.txt').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / 'table.txt')


def test_colors_of_smoothed_edges_are_no_classes():
    counts = {(0, 0, 0): 9000, (200, 0, 0): 5000, (190, 8, 4): 50, (100, 0, 0): 1}
    classes = [(0, 0, 0), (200, 0, 0)]
    assert frequent_colors(counts, exact=False) == (classes, {(190, 8, 4): (200, 0, 0)})
    assert frequent_colors(counts, exact=True) == ([*classes, (190, 8, 4), (100, 0, 0)], {})
    some = counts | {(0, 0, 100 + i): 1 for i in range(16)}
    assert frequent_colors(some, exact=True) == ([*classes, (190, 8, 4)], {})
    many = counts | {(0, 0, 100 + i): 1 for i in range(64)}
    assert frequent_colors(many, exact=True)[0] == classes
    table = ColorTable(['a', 'b'], [(0, 0, 0), (200, 0, 0)], [])
    pixels = np.array([[[190, 8, 4], [100, 0, 0], [10, 10, 10]]], np.uint8)
    assert colors_to_classes(pixels, table, nearest=True).tolist() == [[1, 255, 0]]
    assert colors_to_classes(pixels, table, nearest=False).tolist() == [[255, 255, 255]]


def test_colors_of_classes_differ():
    assert len(set(default_palette(60))) == 60
    assert color_name((255, 0, 0)) == 'red' and color_name((1, 2, 3)) == 'color_1_2_3'


def test_a_damaged_mask_is_named(tmp_path):
    (tmp_path / 'mask.png').write_text('<!DOCTYPE html>')
    assert read_mask_facts(tmp_path / 'mask.png') == {'error': 'is a web page (HTML), not an image'}
