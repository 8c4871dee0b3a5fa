"""The contact sheet: it shows images, labels, captions and legend."""

import numpy as np
import pytest

from allspark_mmseg.report import sheet

from ..helpers.work_dirs import CLASSES, PALETTE


def test_the_sheet_shows_images_labels_and_legend():
    image = np.full((20, 30, 3), 77, np.uint8)
    truth, prediction = np.ones((20, 30), np.uint8), np.full((20, 30), 2)
    truth[:10] = 255
    picture = sheet.contact_sheet([[image, truth, prediction]], ['image', 'truth', 'A'], CLASSES, PALETTE)
    pixels = np.array(picture)
    top, step = 2 * sheet.LINE_HEIGHT + 2 * sheet.GAP, sheet.CELL_WIDTH + sheet.GAP
    height = round(sheet.CELL_WIDTH * 20 / 30)
    column = [
        pixels[top : top + height, sheet.GAP + index * step :][:, : sheet.CELL_WIDTH] for index in range(3)
    ]
    assert (column[0] == 77).all()
    assert (column[1][: height // 2 - 1] == sheet.IGNORE_COLOR).all() and (column[1][-1] == PALETTE[1]).all()
    assert (column[2] == PALETTE[2]).all()
    legend = pixels[top + height + sheet.GAP :].reshape(-1, 3).tolist()
    assert PALETTE[1] in legend and PALETTE[2] in legend and PALETTE[0] not in legend
    with pytest.raises(ValueError, match='expected 2, one per title'):
        sheet.contact_sheet([[image, truth, prediction]], ['image', 'truth'], CLASSES, PALETTE)


def test_the_difference_marks_the_pixels_that_one_model_alone_has_right():
    image = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    truth = np.array([[0, 1], [2, 255]], np.uint8)
    first, last = np.array([[0, 0], [2, 0]], np.uint8), np.array([[1, 1], [2, 1]], np.uint8)
    picture = sheet.difference_picture(image, truth, first, last)
    assert picture[0].tolist() == [list(sheet.ONLY_FIRST), list(sheet.ONLY_LAST)]
    (red, green, blue), ignored = picture[1].tolist()
    assert red == green == blue >= 160 and ignored == [red] * 3
    # the validation pipeline can change the size of the truth, but not that of the file
    large = sheet.difference_picture(np.zeros((6, 4, 3), np.uint8), truth, first, last)
    assert large.shape == (2, 2, 3)


def test_captions_marks_and_note_are_below_the_cells():
    cell, note = np.zeros((10, 10), np.uint8), 'some words ' * 10
    plain = sheet.contact_sheet([[cell]], ['truth'], CLASSES, PALETTE)
    texts = dict(captions=[['caption']], marks=[('mark', sheet.ONLY_LAST)], note=note)
    full = sheet.contact_sheet([[cell]], ['truth'], CLASSES, PALETTE, **texts)
    font = sheet.ImageFont.load_default(sheet.TEXT_SIZE)
    lines = sheet.wrap_text(note, font, sheet.CELL_WIDTH)
    assert len(lines) > 3 and all(font.getlength(line) <= sheet.CELL_WIDTH for line in lines)
    assert ' '.join(lines) == note.strip()
    assert full.width == plain.width
    # lines of the caption, of the mark and of the note, with gaps
    assert full.height - plain.height == (2 + len(lines)) * sheet.LINE_HEIGHT + 3 * sheet.GAP
    pixels = np.array(full)
    below = 2 * sheet.LINE_HEIGHT + 2 * sheet.GAP + sheet.CELL_WIDTH
    assert (pixels[below : below + sheet.LINE_HEIGHT] == 0).any()
    assert (pixels[below:] == sheet.ONLY_LAST).all(2).any()


def test_a_long_caption_widens_the_columns():
    cell, caption = np.zeros((10, 10), np.uint8), 'a caption that is longer than a cell is wide'
    picture = sheet.contact_sheet([[cell]], ['truth'], CLASSES, PALETTE, captions=[[caption]])
    assert picture.width > sheet.ImageFont.load_default(sheet.TEXT_SIZE).getlength(caption) > sheet.CELL_WIDTH


def test_a_legend_of_many_classes_stays_inside_the_sheet():
    classes = [f'a class with a long name {index}' for index in range(40)]
    labels = np.arange(40).reshape(5, 8)
    picture = sheet.contact_sheet([[labels]], ['truth'], classes, np.full((40, 3), 9))
    font = sheet.ImageFont.load_default(sheet.TEXT_SIZE)
    places = sheet.legend_places(classes, font, 400)
    assert len(set(places)) == 40 and all(left + font.getlength(classes[0]) < 400 for left, _ in places)
    assert picture.height > 40 * sheet.LINE_HEIGHT
