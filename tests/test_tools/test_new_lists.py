"""make_splits.py new: lists for any data set with masks."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from splits.new import choose, list_lines

from allspark_mmseg.datasets import ImageListDataset
from tests.helpers.split_lists import lists_below

PRESENT = st.tuples(st.integers(2, 40), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape))


@settings(deadline=None, max_examples=60)
@given(PRESENT, st.data(), st.integers(0, 99))
def test_the_choice_has_the_size_covers_the_classes_and_is_reproducible(present, data, seed):
    count = data.draw(st.integers(1, len(present) - 1))
    chosen = choose(present, count, seed)
    assert len(set(chosen.tolist())) == len(chosen) == count
    assert set(chosen.tolist()) <= set(range(len(present))) and (np.diff(chosen) > 0).all()
    existing = present.any(axis=0).sum()
    assert present[chosen].any(axis=0).sum() >= min(count, existing)
    assert (chosen == choose(present, count, seed)).all()


def test_the_choice_keeps_the_frequencies_and_depends_on_the_seed():
    rng = np.random.default_rng(0)
    share = np.array([1, 0.5, 0.25, 0.1, 0.02])
    present = rng.random((2000, 5)) < share
    chosen = choose(present, 100, 0)
    assert np.abs(present[chosen].mean(axis=0) - present.mean(axis=0)).max() < 0.03
    assert (chosen != choose(present, 100, 1)).any()


@pytest.fixture
def mine(tmp_path):
    """24 images in two folders; class 0 everywhere, class 3 in one image, 1 in every third, 255 ignored."""
    root = tmp_path / 'mine'
    for index in range(24):
        mask = np.zeros((4, 6), np.uint8)
        mask[0], mask[1, :3] = 255, index % 3 == 0
        mask[2] = 3 * (index == 13)
        for folder, suffix, content in (('images', 'jpg', np.stack([mask] * 3, 2)), ('masks', 'png', mask)):
            file = root / folder / f'town{index % 2}' / f'{index:02d}.{suffix}'
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), content)
    return root


NEW = ('--images', 'images', '--masks', 'masks')


def test_folders_are_split(mine, tmp_path, make_splits):
    out = tmp_path / 'split'
    status, output = make_splits('new', '--data-root', mine, *NEW, '--ratio', '1/10', '--out', out)
    assert status == 0, output
    labeled, unlabeled = ((out / f'{name}.txt').read_text().splitlines() for name in ('labeled', 'unlabeled'))
    assert len(labeled) == 3 and len(unlabeled) == 21
    listed = [line.split() for line in labeled + unlabeled]
    assert {image for image, _ in listed} == {str(p.relative_to(mine)) for p in mine.glob('images/*/*')}
    assert all(mask == image.replace('images', 'masks').replace('jpg', 'png') for image, mask in listed)
    assert 'images/town1/13.jpg masks/town1/13.png' in labeled
    assert '3 labeled and 21 unlabeled images, seed 0' in output
    assert '3                   6        1              0        0' in output


def test_a_list_is_split_and_other_lists_are_not_overwritten(mine, tmp_path, make_splits):
    lines = [f'{p.relative_to(mine)}' for p in sorted(mine.glob('images/town0/*'))]
    (mine / 'train.txt').write_text('\n'.join(lines))
    options = ('new', '--data-root', mine, '--list', 'train.txt', *NEW, '--count', 2, '--out', tmp_path / 's')
    status, output = make_splits(*options, '--num-classes', 3)
    assert status == 0 and 'no labeled image contains the classes [2]' in output
    before = lists_below(tmp_path / 's')
    assert len(before['labeled.txt'].splitlines()) == 2 and len(before['unlabeled.txt'].splitlines()) == 10
    assert make_splits(*options)[0] == 0 and lists_below(tmp_path / 's') == before
    status, output = make_splits(*options, '--seed', 1)
    assert status == 1 and 'exists and has other contents' in output
    assert lists_below(tmp_path / 's') == before


@pytest.mark.parametrize(
    'options, message',
    [
        (('--count', 24), 'expected to label 1 to 23 of the 24 images, found 24'),
        (('--count', 0), '--count is 0; expected 1 or more'),
        (('--ratio', '3/2'), 'found 36'),
        (('--count', 2, '--num-classes', 3), r'13.png: expected values 0 to 2 or [255], found 3'),
        (('--count', 2, '--num-classes', 300), '--num-classes is 300; expected 1 to 256'),
        (('--count', 2, '--ignore-index', 256), '--ignore-index is 256; expected 0 to 255'),
        (('--count', 2, '--ignore-index', 0, 1, 3, 255), 'all values in the masks are ignored'),
        (('--count', 2, '--seed', -1), '--seed is -1; expected 0 or more'),
    ],
)
def test_wrong_options_are_refused(mine, tmp_path, make_splits, options, message):
    status, output = make_splits('new', '--data-root', mine, *NEW, *options, '--out', tmp_path / 's')
    assert status != 0 and message in output and not (tmp_path / 's').exists()


def test_wrong_data_are_refused(mine, tmp_path, make_splits):
    options = ('new', '--data-root', mine, '--count', 2, '--out', tmp_path / 's')
    status, output = make_splits(*options)
    assert status == 2 and 'expected --images and --masks, or --list' in output
    (mine / 'twice.txt').write_text('images/town0/00.jpg masks/town0/00.png\n' * 3)
    status, output = make_splits(*options, '--list', 'twice.txt')
    assert status == 1 and 'must not occur twice, found:\n  images/town0/00.jpg' in output
    cv2.imwrite(str(mine / 'masks/town0/04.png'), np.zeros((4, 6, 3), np.uint8))
    status, output = make_splits(*options, *NEW)
    assert status == 1 and '04.png: expected a mask of 8 bits per pixel' in output and 'mode RGB' in output
    mask = mine / 'masks/town0/06.png'
    mask.write_bytes(mask.read_bytes()[:50])
    (mine / 'masks/town0/04.png').write_bytes((mine / 'masks/town0/02.png').read_bytes())
    status, output = make_splits(*options, *NEW)
    assert status == 1 and '06.png: expected a mask, found a file that cannot be read' in output


def test_names_with_spaces_go_through_the_lists_and_back(mine, tmp_path, make_splits):
    for folder, suffix in (('images', 'jpg'), ('masks', 'png')):
        (mine / folder / 'town0').rename(mine / folder / 'my town')
        (mine / folder / 'my town' / f'04.{suffix}').rename(mine / folder / 'my town' / f'0 4  a.{suffix}')
    out = tmp_path / 'my splits'
    status, output = make_splits('new', '--data-root', mine, *NEW, '--count', 4, '--out', out)
    assert status == 0, output
    pairs = []
    for name in ('labeled', 'unlabeled'):
        dataset = ImageListDataset(ann_file=str(out / f'{name}.txt'), data_root=str(mine))
        pairs += [
            (item['img_path'], item['seg_map_path'])
            for item in map(dataset.get_data_info, range(len(dataset)))
        ]
    images = sorted(map(str, (mine / 'images').rglob('*.jpg')))
    assert sorted(pairs) == [(i, i.replace('/images/', '/masks/').replace('.jpg', '.png')) for i in images]
    assert sum(' ' in image for image in images) == 12

    # the lists are an input again
    again = (
        'new',
        '--data-root',
        mine,
        '--list',
        out / 'unlabeled.txt',
        '--count',
        2,
        '--out',
        tmp_path / 'again',
    )
    status, output = make_splits(*again)
    assert status == 0 and '2 labeled and 18 unlabeled images' in output


@pytest.mark.parametrize('name', ['a\tb.jpg', 'a\nb.jpg', 'a\u2028b.jpg'])
def test_names_that_a_list_cannot_hold_are_refused(name):
    with pytest.raises(ValueError, match='1 names contain a tab or a line break'):
        list_lines([('fine.jpg', 'fine.png'), (name, 'b.png')])


def test_help_names_the_options(make_splits):
    assert all(
        word in make_splits('new', '--help')[1]
        for word in ('--ratio', '--seed', 'share of the images to label')
    )
    assert 'voc|cityscapes|coco|new' in make_splits('--help')[1]
