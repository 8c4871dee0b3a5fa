"""Which files are images, masks and pairs, in the layouts that users have."""

import json
from pathlib import Path

import pytest

from allspark_mmseg.own_data.files import list_files, select
from allspark_mmseg.own_data.layouts import Layout, Patterns, find_layout
from allspark_mmseg.own_data.roles import parse_name, strip_common_ends

from ..helpers.folders import classes, mask, photo

# layout -> image and mask of the number i
LAYOUTS = {
    'two trees': ('images/{split}/{i}.jpg', 'annotations/{split}/{i}.png'),
    'split above': ('{split}/images/{i}.jpg', '{split}/masks/{i}.png'),
    'one word': ('{split}/{i}.png', '{split}annot/{i}.png'),
    'other names': ('photos/{split}/frame_{i}.jpg', 'foo/{split}/frame_{i}_x.png'),
    'one folder': ('{split}/{i}.jpg', '{split}/{i}.png'),
    'suffixes': ('{split}/{i}_image.png', '{split}/{i}_mask.png'),
    'prefixes': ('{split}/img_{i}.png', '{split}/mask_{i}.png'),
    'Cityscapes': (
        'leftImg8bit/{split}/bonn/bonn_{i}_leftImg8bit.png',
        'gtFine/{split}/bonn/bonn_{i}_gtFine_labelTrainIds.png',
    ),
}


def make(root: Path, image: str, label: str) -> dict[str, str]:
    """Write 4 training images, the last of them without a mask, and 2 validation images."""
    pairs = {}
    for number in range(6):
        names = dict(split='train' if number < 4 else 'val', i=f'{number:03d}')
        photo(root / image.format(**names), number)
        if number != 3:
            mask(root / label.format(**names), classes(number))
            pairs[image.format(**names)] = label.format(**names)
    return pairs


def look(root: Path, **patterns: list[str]) -> Layout:
    return find_layout(root, list_files(root), Patterns(**patterns))


@pytest.mark.parametrize('name', LAYOUTS)
def test_pairs_and_splits(name, tmp_path):
    pairs = make(tmp_path, *LAYOUTS[name])
    layout = look(tmp_path)
    assert layout.masks == pairs
    assert len(layout.images) == 6 and not layout.problems
    assert {image for image, split in layout.splits.items() if split == 'val'} == set(
        sorted(layout.images)[4:]
    )


def test_lists_win(tmp_path):
    make(tmp_path, *LAYOUTS['two trees'])
    (tmp_path / 'labeled.txt').write_text('images/train/000.jpg annotations/train/000.png\n')
    (tmp_path / 'unlabeled.txt').write_text('images/train/001.jpg\n')
    layout = look(tmp_path)
    assert layout.masks == {'images/train/000.jpg': 'annotations/train/000.png'}
    assert layout.images == ['images/train/000.jpg', 'images/train/001.jpg']
    assert '--unlabeled adds them' in layout.notes[0]
    layout = look(tmp_path, unlabeled=['images/val'])
    assert len(layout.images) == 4 and not layout.notes


def test_voc(tmp_path):
    for number in range(5):
        photo(tmp_path / f'JPEGImages/{number}.jpg', number)
    for number in range(4):
        mask(tmp_path / f'SegmentationClass/{number}.png', classes(number))
    lists = tmp_path / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('0\n1\n')
    (lists / 'val.txt').write_text('2\n')
    layout = look(tmp_path)
    # 3 has a mask, but is in no list
    assert sorted(layout.masks) == [f'JPEGImages/{number}.jpg' for number in (0, 1, 2)]
    assert layout.splits == {'JPEGImages/2.jpg': 'val'} and len(layout.images) == 5


def test_the_better_of_two_trees_of_masks_is_taken_and_the_other_is_named(tmp_path):
    for number in range(4):
        photo(tmp_path / f'images/{number}.jpg', number)
        mask(tmp_path / f'masks_raw/{number}.png', classes(number) * 100)
        mask(tmp_path / f'annotations/{number}.png', classes(number))
    layout = look(tmp_path)
    assert set(layout.masks.values()) == {f'annotations/{number}.png' for number in range(4)}
    assert layout.notes[0].startswith('4 masks in masks_raw are not used')
    layout = look(tmp_path, masks=['masks_raw'])
    assert set(layout.masks.values()) == {f'masks_raw/{number}.png' for number in range(4)}
    assert len(layout.images) == 4 and not layout.notes


def test_masks_without_an_image_are_named(tmp_path):
    make(tmp_path, *LAYOUTS['two trees'])
    mask(tmp_path / 'annotations/train/lost.png', classes())
    assert [problem.path for problem in look(tmp_path).problems] == ['annotations/train/lost.png']


def test_masks_of_other_folders_do_not_fit(tmp_path):
    for folder in ('seq1', 'seq2'):
        for number in range(3):
            photo(tmp_path / f'images/{folder}/{number:04d}.png', number)
    for folder in ('seq1', 'seq3'):
        for number in range(3):
            mask(tmp_path / f'masks/{folder}/{number:04d}.png', classes(number))
    layout = look(tmp_path)
    assert layout.masks == {f'images/seq1/000{n}.png': f'masks/seq1/000{n}.png' for n in range(3)}
    assert '3 files such as masks/seq3/0000.png fit no image and are not used.' in layout.notes


def test_the_folders_of_coco(tmp_path):
    """Files of key points list the same images."""
    for part, count in (('train2017', 3), ('val2017', 2)):
        files = [f'{part}_{number}.jpg' for number in range(count)]
        for number, name in enumerate(files):
            photo(tmp_path / part / name, number)
        for kind, labels in (('instances', ['person', 'car']), ('person_keypoints', ['person'])):
            content = dict(
                images=[dict(id=i, file_name=name, width=48, height=40) for i, name in enumerate(files)],
                categories=[dict(id=i, name=name) for i, name in enumerate(labels)],
                annotations=[dict(image_id=0, category_id=0, segmentation=[[0, 0, 9, 0, 9, 9]], area=40)],
            )
            path = tmp_path / 'annotations' / f'{kind}_{part}.json'
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))
    layout = look(tmp_path)
    assert set(layout.masks.values()) == {f'annotations/instances_{y}2017.json' for y in ('train', 'val')}
    assert sorted(image for image, split in layout.splits.items() if split == 'val') == [
        'val2017/val2017_0.jpg',
        'val2017/val2017_1.jpg',
    ]
    assert '2 JSON files such as annotations/person_keypoints_train2017.json are not used' in layout.notes[0]


def test_names():
    name = parse_name('train_images/a/b_gtFine_labelIds.png')
    assert (name.role, name.split, name.key) == ('mask', 'train', 'a/b')
    assert parse_name('unlabeled/x.jpg').split == 'unlabeled'
    assert parse_name('images/mask.png').key == 'mask', 'a name is not only a word of a role'
    assert strip_common_ends(['v_01_l', 'v_02_l']) == {'v_01_l': '01', 'v_02_l': '02'}
    assert strip_common_ends(['001', '002']) == {'001': '001', '002': '002'}


def test_select(tmp_path):
    for name in ('a/1.jpg', 'a/b/2.jpg', 'c/3.jpg'):
        photo(tmp_path / name)
    files = list_files(tmp_path)
    assert select(tmp_path, files, ['a']) == ['a/1.jpg', 'a/b/2.jpg']
    assert select(tmp_path, files, ['c/*.jpg', 'a/1.jpg']) == ['a/1.jpg', 'c/3.jpg']
    with pytest.raises(FileNotFoundError, match="'d' selects no file"):
        select(tmp_path, files, ['d'])


def test_hidden_files_and_circles_of_links_are_not_listed(tmp_path):
    photo(tmp_path / 'a/1.jpg')
    photo(tmp_path / '.allspark/masks/1.png')
    (tmp_path / 'a' / 'again').symlink_to(tmp_path, target_is_directory=True)
    assert list_files(tmp_path) == ['a/1.jpg']
