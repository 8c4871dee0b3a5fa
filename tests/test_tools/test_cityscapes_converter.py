"""cityscapes.py converts label ids to the 19 classes."""

import numpy as np

from tests.helpers.raw_data import (
    pixels,
    run,
    save,
    write_cityscapes,
)

# Label ids of Cityscapes 0 to 33 with their training ids; the 35th, the license plate, has the id -1.
CITYSCAPES = """
unlabeled - | ego vehicle - | rectification border - | out of roi - | static - | dynamic - | ground - | road 0
sidewalk 1 | parking - | rail track - | building 2 | wall 3 | fence 4 | guard rail - | bridge - | tunnel -
pole 5 | polegroup - | traffic light 6 | traffic sign 7 | vegetation 8 | terrain 9 | sky 10 | person 11
rider 12 | car 13 | truck 14 | bus 15 | caravan - | trailer - | train 16 | motorcycle 17 | bicycle 18
"""
CITYSCAPES = [entry.strip().rsplit(maxsplit=1) for entry in CITYSCAPES.strip().replace('\n', '|').split('|')]


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


def test_cityscapes_gives_advice_without_label_ids(tmp_path):
    printed = run('cityscapes', '--data-root', tmp_path, status=1)
    assert str(tmp_path / 'gtFine/train') in printed and 'gtFine_trainvaltest.zip' in printed
    write_cityscapes(tmp_path)
    gone = tmp_path / 'gtFine/val/munster/munster_000173_000019_gtFine_labelIds.png'
    gone.unlink()
    printed = run('cityscapes', '--data-root', tmp_path, status=1)
    assert f'{gone}: expected a label map beside the polygons' in printed and 'cityscapesscripts' in printed


def test_wrong_label_maps_are_reported_and_the_others_are_written(tmp_path):
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
