"""The converters of COCO, Cityscapes and CamVid, run as commands on small copies of the real file layouts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[2] / 'tools' / 'dataset_converters'))
import conversion

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools' / 'dataset_converters'

# The category ids of instances_{train,val}2017.json: 1 to 90 without the ten that were never annotated.
COCO_IDS = [
    *(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21),
    *(22, 23, 24, 25, 27, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44),
    *(46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65),
    *(67, 70, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 84, 85, 86, 87, 88, 89, 90),
]
PERSON, DOG, CUP, TOOTHBRUSH = 1, 17, 42, 80  # labels of the categories 1, 18, 47 and 90

# Label ids of Cityscapes 0 to 33 with their training ids; the 35th, the license plate, has the id -1.
CITYSCAPES = """
unlabeled - | ego vehicle - | rectification border - | out of roi - | static - | dynamic - | ground - | road 0
sidewalk 1 | parking - | rail track - | building 2 | wall 3 | fence 4 | guard rail - | bridge - | tunnel -
pole 5 | polegroup - | traffic light 6 | traffic sign 7 | vegetation 8 | terrain 9 | sky 10 | person 11
rider 12 | car 13 | truck 14 | bus 15 | caravan - | trailer - | train 16 | motorcycle 17 | bicycle 18
"""
CITYSCAPES = [entry.strip().rsplit(maxsplit=1) for entry in CITYSCAPES.strip().replace('\n', '|').split('|')]


def command(tool, *arguments):
    return [sys.executable, str(TOOLS / f'{tool}.py'), *map(str, arguments)]


def run(tool, *arguments, workers=2, status=0, **environment):
    """Run a tool and return what it printed, errors last."""
    done = subprocess.run(
        command(tool, *arguments, '--workers', workers),
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr
    return done.stdout + done.stderr


def pixels(path):
    return np.asarray(Image.open(path))


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def contents(root):
    return {path: path.read_bytes() for path in root.rglob('*') if path.is_file()}


# COCO


def box(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def counts(inside):
    """Run lengths of a mask, column by column, the first of them outside: as COCO stores crowd regions."""
    flat = np.concatenate([[False], np.asarray(inside, bool).ravel(order='F'), [False]])
    borders = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(np.concatenate([[0], borders, [np.size(inside)]]))
    if lengths[-1] == 0:
        lengths = lengths[:-1]
    return {'size': list(np.shape(inside)), 'counts': lengths.tolist()}


def annotations(*images):
    """Annotations of COCO: of each image its id, height, width and (label, segmentation[, crowd]), ..."""
    entries = [
        dict(image_id=image[0], category_id=COCO_IDS[label - 1], segmentation=shape, iscrowd=int(bool(crowd)))
        for image in images
        for label, shape, *crowd in image[3:]
    ]
    return dict(
        images=[
            dict(id=number, file_name=f'{number:012d}.jpg', height=height, width=width)
            for number, height, width, *_ in images
        ],
        categories=[dict(id=number, name=f'category {number}') for number in reversed(COCO_IDS)],
        annotations=[dict(entry, id=index) for index, entry in enumerate(entries, start=1000)],
    )


def write_coco(root, train, val=None):
    (root / 'annotations').mkdir(exist_ok=True)
    for split, content in (('train', train), ('val', val or annotations((7, 2, 2)))):
        (root / f'annotations/instances_{split}2017.json').write_text(json.dumps(content))
    return root


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


def test_coco_small_objects_stay_visible_whatever_the_order_of_the_file(tmp_path):
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


def test_coco_refuses_what_is_not_the_instances_of_2017(tmp_path):
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


def test_coco_says_which_package_is_missing(tmp_path):
    (tmp_path / 'pycocotools.py').write_text('raise ModuleNotFoundError(name="pycocotools")')
    printed = run('coco', '--data-root', tmp_path, status=1, PYTHONPATH=str(tmp_path))
    assert 'pip install pycocotools' in printed


# Cityscapes


def write_cityscapes(root, number=1, labels=((7, 24), (0, 26))):
    """Label maps of ``number`` training and one validation image; return the names of the maps to be made."""
    stems = [f'train/aachen/aachen_{index:06d}_000019' for index in range(number)]
    stems.append('val/munster/munster_000173_000019')
    for stem in stems:
        save(root / f'gtFine/{stem}_gtFine_labelIds.png', labels)
        (root / f'gtFine/{stem}_gtFine_polygons.json').write_text('{}')
    return [root / f'gtFine/{stem}_gtFine_labelTrainIds.png' for stem in stems]


def test_cityscapes_maps_all_35_ids(tmp_path):
    labels = [list(range(34)) + [255]] * 2
    for path in write_cityscapes(tmp_path, 1, labels):
        assert not path.exists()
    printed = run('cityscapes', '--data-root', tmp_path)
    assert 'train: 1 label maps' in printed and '2 files written, 0 were complete already' in printed
    expected = [255 if train == '-' else int(train) for _, train in CITYSCAPES] + [255]
    assert len(expected) == 35
    for path in tmp_path.rglob('*_labelTrainIds.png'):
        assert pixels(path).tolist() == [expected] * 2
    assert len(list(tmp_path.rglob('*.png'))) == 4


def test_cityscapes_classes_are_in_the_order_of_mmsegmentation():
    from mmseg.datasets import CityscapesDataset

    classes = {int(train): name for name, train in CITYSCAPES if train != '-'}
    assert tuple(classes[train] for train in sorted(classes)) == CityscapesDataset.METAINFO['classes']


def test_cityscapes_says_what_to_do_without_label_ids(tmp_path):
    printed = run('cityscapes', '--data-root', tmp_path, status=1)
    assert str(tmp_path / 'gtFine/train') in printed and 'gtFine_trainvaltest.zip' in printed
    write_cityscapes(tmp_path)
    gone = tmp_path / 'gtFine/val/munster/munster_000173_000019_gtFine_labelIds.png'
    gone.unlink()
    printed = run('cityscapes', '--data-root', tmp_path, status=1)
    assert f'{gone}: expected a label map beside the polygons' in printed and 'cityscapesscripts' in printed


def test_bad_label_maps_are_named_and_the_others_are_made(tmp_path):
    outs = write_cityscapes(tmp_path, 7)
    sources = sorted(tmp_path.glob('gtFine/train/aachen/*_labelIds.png'))
    cut, empty, flipped, colored, unknown, gone = bad = sources[:6]
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    empty.write_bytes(b'')
    at = whole.index(b'IDAT') + 8
    flipped.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
    save(colored, np.zeros((2, 2, 3)))
    save(unknown, [[7, 34]])
    gone.unlink()
    gone.symlink_to('nowhere')
    printed = run('cityscapes', '--data-root', tmp_path, status=1)
    assert '6 of 8 files could not be made (2 written, 0 were complete)' in printed
    for path in bad:
        assert f'{path}: expected' in printed
    assert 'image of mode RGB' in printed and 'found also [34]' in printed
    assert sorted(tmp_path.rglob('*_labelTrainIds.png')) == outs[6:]


# CamVid


@pytest.fixture
def camvid(tmp_path):
    """SegNet's layout, with the first names of our lists; smooth images, masks of all labels."""
    rows, columns = np.mgrid[:36, :48]
    image = np.stack([5 * columns, 7 * rows, 255 - 5 * columns], -1)
    lists = ROOT / 'configs/_base_/splits/camvid/1over8'
    names = [
        Path(line.split()[0]).stem
        for name in ('labeled', 'unlabeled')
        for line in (lists / f'{name}.txt').read_text().splitlines()[:2]
    ]
    for split, number in (('train', 4), ('val', 1)):
        for name in names[:number]:
            save(tmp_path / f'CamVid/{split}/{name}.png', image)
            save(tmp_path / f'CamVid/{split}annot/{name}.png', (rows + columns) % 12)
    return tmp_path / 'CamVid', tmp_path / 'data', names


def test_camvid_fits_the_lists_and_turns_void_into_ignored(camvid):
    source, root, names = camvid
    printed = run('camvid', source, '--data-root', root)
    assert 'train: 4 images' in printed and '10 files written, 0 were complete already' in printed
    for path in (ROOT / 'configs/_base_/splits/camvid/1over8').iterdir():
        for line in path.read_text().splitlines()[:2]:
            for name in line.split():
                assert (root / name).is_file()
    assert {path.relative_to(root).parts[:2] for path in contents(root)} == {
        (kind, split) for kind in ('images', 'annotations') for split in ('train', 'val')
    }
    old = pixels(source / f'valannot/{names[0]}.png')
    new = pixels(root / f'annotations/val/{names[0]}.png')
    assert new.dtype == np.uint8 and set(old.ravel()) == set(range(12))
    assert (new == np.where(old == 11, 255, old)).all()
    image = Image.open(root / f'images/val/{names[0]}.jpg')
    assert image.format == 'JPEG'
    assert np.abs(np.asarray(image) - pixels(source / f'val/{names[0]}.png').astype(int)).mean() < 2


def test_camvid_names_bad_files(camvid):
    source, root, names = camvid
    faults = [source / f'train/{names[0]}.png', source / f'trainannot/{names[1]}.png']
    faults.append(source / f'trainannot/{names[2]}.png')
    faults[0].write_bytes(faults[0].read_bytes()[:-300])
    save(faults[1], [[12] * 48] * 36)
    save(faults[2], [[0] * 36] * 48)
    printed = run('camvid', source, '--data-root', root, status=1)
    assert f'{faults[0]}: expected an image' in printed
    assert f'{faults[1]}: expected labels among' in printed and 'found also [12]' in printed
    assert f'{faults[2]}: expected the size of its image, (48, 36), found (36, 48)' in printed
    gone = source / f'trainannot/{names[3]}.png'
    gone.unlink()
    printed = run('camvid', source, '--data-root', root, status=1)
    assert f'{gone}: expected the label map' in printed
    assert 'expected PNG images' in run('camvid', source / 'nowhere', '--data-root', root, status=1)


# All of them


def test_a_second_run_makes_only_what_is_missing_or_partial(camvid):
    source, root, names = camvid
    run('camvid', source, '--data-root', root)
    first = contents(root)
    deleted = root / f'images/train/{names[1]}.jpg'
    cut = [root / f'images/val/{names[0]}.jpg', root / f'annotations/train/{names[2]}.png']
    emptied = root / f'annotations/train/{names[0]}.png'
    leftover = root / f'annotations/train/.{names[3]}.png.12345.partial'
    before = {path: path.stat().st_mtime_ns for path in first}
    deleted.unlink()
    for path in cut:
        path.write_bytes(first[path][:-1])
    emptied.write_bytes(b'')
    leftover.write_bytes(b'half')
    printed = run('camvid', source, '--data-root', root)
    assert '4 files written, 6 were complete already' in printed
    assert contents(root) == first
    for path in first.keys() - {deleted, *cut, emptied}:
        assert path.stat().st_mtime_ns == before[path]
    leftover.write_bytes(b'half')
    assert '0 files written, 10 were complete already' in run('camvid', source, '--data-root', root)
    assert contents(root) == first


def children(process):
    path = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    return path.read_text().split() if path.is_file() else []


def is_running(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM', 'SIGKILL'])
def test_an_interrupted_run_leaves_nothing_half_written_and_can_go_on(tmp_path, name):
    labels = np.random.default_rng(0).integers(0, 34, (256, 512))
    outs = write_cityscapes(tmp_path, 1, labels)
    source = tmp_path / 'gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png'
    for index in range(1, 200):  # enough to be at work still when the signal arrives on a busy machine
        path = source.with_name(f'aachen_{index:06d}_000019_gtFine_labelIds.png')
        os.link(source, path)
        outs.append(path.with_name(path.name.replace('labelIds', 'labelTrainIds')))
    process = subprocess.Popen(
        command('cityscapes', '--data-root', tmp_path, '--workers', 2),
        stderr=subprocess.PIPE,
        text=True,
        # where a shell runs the tests in the background, they and their children ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not any(path.exists() for path in outs):
        assert process.poll() is None
        time.sleep(0.002)
    workers = children(process)
    process.send_signal(getattr(signal, name))
    _, printed = process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline, 'the workers outlive their parent'
        time.sleep(0.01)
    done = [path for path in outs if path.exists()]
    assert 1 <= len(done) < len(outs)
    assert all(conversion.is_complete(path) and pixels(path).shape == (256, 512) for path in done)
    if name != 'SIGKILL':
        assert process.returncode == conversion.INTERRUPTED and printed.startswith('interrupted')
        assert not list(tmp_path.rglob('.*'))
    printed = run('cityscapes', '--data-root', tmp_path)
    assert f'{len(outs) - len(done)} files written, {len(done)} were complete already' in printed
    assert not list(tmp_path.rglob('.*')) and all(conversion.is_complete(path) for path in outs)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix):
    path = tmp_path / f'mask{suffix}'
    path.write_bytes(b'old')

    def fail(*_):
        raise OSError('No space left on device')

    monkeypatch.setattr(conversion.os, 'replace', fail)
    with pytest.raises(OSError, match='No space'):
        conversion.write_image(path, np.zeros((2, 2), np.uint8))
    assert contents(tmp_path) == {path: b'old'}


def test_a_folder_that_cannot_be_written_is_an_error_without_traceback(tmp_path):
    root = write_coco(tmp_path, annotations((1, 2, 2)))
    (root / 'masks').write_text('a file where the folder should be')
    assert f"error: [Errno 17] File exists: '{root / 'masks'}'" in run('coco', '--data-root', root, status=1)


@pytest.mark.parametrize('tool', ['coco', 'cityscapes', 'camvid'])
def test_command_line(tool):
    assert '--data-root' in run(tool, '--help')
    source = ['CamVid'] if tool == 'camvid' else []
    assert '--workers is 0; expected 1 or more' in run(tool, *source, workers=0, status=2)
