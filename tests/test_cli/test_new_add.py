"""new --add: masks of images that were unlabeled, and what must not become one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from allspark_mmseg.own_data.drafts import record_drafts

from ..helpers.folders import classes, mask, photo
from .conftest import lines, new


def labelme(path: Path, image: str, label: str = 'foreground') -> Path:
    """Write a file with a polygon over the upper half of an image of 48 x 40."""
    shape = dict(label=label, points=[[0, 0], [48, 0], [48, 20], [0, 20]], shape_type='polygon')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(shapes=[shape], imagePath=image)))
    return path


def added_mask(data: Path, image: str) -> np.ndarray:
    return np.asarray(Image.open(data / dict(line.split() for line in lines(data, 'labeled'))[image]))


def test_added_masks_move_images_to_the_labeled_stream(data, capsys):
    assert new() == 0
    config = Path('configs/mine/allspark.py').read_bytes()
    held_out = lines(data, 'val')
    mask(Path('new_masks/07_mask.png'), classes(7, count=2))
    mask(Path('new_masks/77.png'), classes(7, count=2))
    record_drafts(Path('new_masks'), [labelme(Path('new_masks/08.json'), '08.jpg')])
    capsys.readouterr()
    assert new('--add', 'new_masks') == 0
    text = '1 files of --add are still as suggest drew them, and are left out: new_masks/08.json'
    assert text in capsys.readouterr().out and len(lines(data, 'unlabeled')) == 5
    assert new('--add', 'new_masks', '--accept-drafts') == 0
    assert 'as suggest drew them' not in capsys.readouterr().out
    assert new() == 0, 'the next run keeps them'
    assert len(lines(data, 'unlabeled')) == 4
    np.testing.assert_array_equal(added_mask(data, 'images/07.jpg'), classes(7, count=2))
    assert added_mask(data, 'images/08.jpg').sum() == 48 * 20
    assert lines(data, 'val') == held_out and len(config) > 0


@pytest.mark.parametrize('place', ['folder', 'option', 'list'])
def test_images_that_were_called_unlabeled_move_too(data, place):
    (data / 'unlabeled').mkdir()
    for number in range(6, 12):
        (data / f'images/{number:02d}.jpg').rename(data / f'unlabeled/{number:02d}.jpg')
    options = ['--unlabeled', 'unlabeled'] if place == 'option' else []
    if place == 'list':
        pairs = [f'images/0{number}.jpg masks/0{number}.png' for number in range(6)]
        (data / 'labeled.txt').write_text('\n'.join(pairs))
        (data / 'unlabeled.txt').write_text(
            '\n'.join(f'unlabeled/{number:02d}.jpg' for number in range(6, 12))
        )
    assert new(*options) == 0 and len(lines(data, 'unlabeled')) == 6
    mask(Path('new_masks/07.png'), classes(7, count=2))
    assert new('--add', 'new_masks') == 0
    assert len(lines(data, 'unlabeled')) == 5
    np.testing.assert_array_equal(added_mask(data, 'unlabeled/07.jpg'), classes(7, count=2))


@pytest.mark.parametrize('gray', [False, True])
def test_copies_of_photographs_are_no_masks(data, gray, capsys):
    """A folder of labelme has the images, also those that nobody has annotated."""
    if gray:
        for path in (data / 'images').iterdir():
            Image.open(path).convert('L').save(path)
    assert new() == 0
    for name in ('07.jpg', '08.jpg', '09.jpg'):
        (Path('labelme') / name).parent.mkdir(exist_ok=True)
        shutil.copy(data / 'images' / name, Path('labelme') / name)
    photo(Path('labelme/09.jpg'), 3)  # saved again, with other bytes
    labelme(Path('labelme/07.json'), '07.jpg')
    capsys.readouterr()
    assert new('--add', 'labelme') == 0
    printed = capsys.readouterr().out
    assert '1 images have the masks of --add now' in printed
    assert '09.jpg is taken for the image of the polygons beside it' in printed and '08.jpg' not in printed
    assert added_mask(data, 'images/07.jpg').sum() == 48 * 20 and len(lines(data, 'unlabeled')) == 5


def test_a_labelme_file_wins_over_a_coco_file(data):
    assert new() == 0
    labelme(Path('drafts/labelme/07.json'), '07.jpg')
    coco = dict(
        images=[dict(id=1, file_name='07.jpg', width=48, height=40)],
        categories=[dict(id=1, name='foreground')],
        annotations=[dict(image_id=1, category_id=1, segmentation=[[0, 0, 48, 0, 48, 40, 0, 40]], area=1920)],
    )
    Path('drafts/coco.json').write_text(json.dumps(coco))
    assert new('--add', 'drafts') == 0
    assert added_mask(data, 'images/07.jpg').sum() == 48 * 20


def test_a_labeled_image_of_the_same_name_keeps_its_mask(data, capsys):
    """The mask of images/a/00 is not that of images/b/00."""
    shutil.rmtree(data)
    for folder in 'ab':
        for number in range(4):
            photo(data / f'images/{folder}/{number:02d}.jpg', number + 10 * (folder == 'b'))
    for number in range(4):
        mask(data / f'masks/a/{number:02d}.png', 255 * classes(number, count=2))
    assert new() == 0
    mask(Path('export/images/a/00.png'), 1 - classes(0, count=2))
    mask(Path('export/images/b/01.png'), classes(1, count=2))
    capsys.readouterr()
    assert new('--add', 'export') == 0
    assert 'images/a/00.jpg has a mask already, and keeps it' in capsys.readouterr().out
    assert lines(data, 'unlabeled') == ['images/b/00.jpg', 'images/b/02.jpg', 'images/b/03.jpg']


def test_a_mask_in_the_data_is_newer_than_an_added_one(data):
    assert new() == 0
    mask(Path('new_masks/07.png'), np.zeros((40, 48), np.uint8))
    assert new('--add', 'new_masks') == 0 and not added_mask(data, 'images/07.jpg').any()
    mask(data / 'masks/07.png', np.full((40, 48), 255, np.uint8))
    assert new() == 0 and added_mask(data, 'images/07.jpg').all()


def test_added_masks_keep_their_class_numbers(data, capsys):
    shutil.rmtree(data / 'masks')
    for number in range(4):
        labelme(data / f'images/{number:02d}.json', f'{number:02d}.jpg', 'crack' if number % 2 else 'hole')
    assert new() == 0
    labelme(Path('more/07.json'), '07.jpg', 'hole')
    assert new('--add', 'more') == 0 and added_mask(data, 'images/07.jpg').max() == 2
    labelme(data / 'images/05.json', '05.jpg', 'blister')
    capsys.readouterr()
    assert new() == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert 'Keep them with --classes background crack hole blister.' in sentence
    assert new('--classes', 'background', 'crack', 'hole', 'blister') == 0
    assert added_mask(data, 'images/07.jpg').max() == 2


def test_the_first_masks_are_not_added(data, capsys):
    shutil.rmtree(data / 'masks')
    labelme(Path('more/07.json'), '07.jpg')
    assert new('--add', 'more') == 2
    printed = capsys.readouterr().err
    assert 'has none yet. Name the first ones with --masks' in printed
    labelme(Path('more/08.json'), '08.jpg')
    assert new('--masks', str(Path('more').resolve())) == 0
