"""make_splits.py: published lists by rule and from a reference, what it refuses, and new splits."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from allspark_mmseg.datasets import published_splits as splits
from tests.helpers.configs import ROOT

sys.path.append(str(ROOT / 'tools' / 'dataset_converters'))
import make_splits as tool

PUBLISHED = Path(os.environ.get('ALLSPARK_SPLITS', ROOT.parent / 'shared' / 'data' / 'splits'))
NEEDED = {f'pascal/{f}/{p}labeled.txt' for f in ('u2pl_1_4', '92', '183', '366', '732') for p in ('', 'un')}


def run(*arguments):
    """The command line as a user gives it: exit status and output."""
    command = [sys.executable, ROOT / 'tools/dataset_converters/make_splits.py', *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def call(capsys):
    """The same in this process, which is quicker."""

    def run_here(*arguments):
        try:
            tool.main([str(argument) for argument in arguments])
            status = 0
        except SystemExit as error:
            print(error.code)
            status = error.code if isinstance(error.code, int) else 1
        return status, ''.join(capsys.readouterr())

    return run_here


def lists_below(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob('*') if file.is_file()}


def row(output, path):
    return next(line.split(maxsplit=2) for line in output.splitlines() if line.startswith(f'{path} '))


@pytest.fixture(scope='module')
def published():
    if not PUBLISHED.is_dir():
        pytest.skip(f'published lists not found: {PUBLISHED} (set ALLSPARK_SPLITS to their folder)')
    return {path: (PUBLISHED / path).read_bytes() for path in splits.LISTS if (PUBLISHED / path).is_file()}


def names(content):
    return [Path(line.split()[0]).stem for line in content.decode().splitlines()]


@pytest.fixture(scope='module')
def voc(published, tmp_path_factory):
    """A stand-in for VOC2012 with augmented masks; all files are empty and there are no images."""
    root = tmp_path_factory.mktemp('voc') / 'VOC2012'
    lists, masks = root / 'ImageSets/Segmentation', root / 'SegmentationClass'
    lists.mkdir(parents=True)
    masks.mkdir()
    for split, path in (('train', 'pascal/1464/labeled.txt'), ('val', 'pascal/val.txt')):
        (lists / f'{split}.txt').write_text('\n'.join(names(published[path])))
    for name in names(published['pascal/train_aug.txt'] + published['pascal/val.txt']):
        (masks / f'{name}.png').touch()
    return root


@pytest.fixture(scope='module')
def by_rule(voc, tmp_path_factory):
    out = tmp_path_factory.mktemp('out') / 'splits'
    status, output = run('voc', '--data-root', voc, '--out', out)
    return status, output, out


# ---- Pascal by rule


def test_rules_give_the_published_lists(by_rule, published):
    status, output, out = by_rule
    assert status == 0, output
    made = lists_below(out)
    expected = {path for path in splits.LISTS if path.startswith('pascal/')} - NEEDED
    assert set(made) == expected and len(made) == 16
    for path, content in made.items():
        if path in splits.SORTED_SHA256:
            assert sorted(content.splitlines()) == sorted(published[path].splitlines()), path
            assert row(output, path)[2] == 'by rule            same images, order of its own'
        else:
            assert content == published[path], path
            assert row(output, path)[2] == 'by rule            sha256 equal'


def test_lists_without_rule_are_named(by_rule):
    _, output, _ = by_rule
    assert all('needs --reference' in row(output, path)[2] for path in NEEDED)
    assert '10 lists follow no rule: add --reference' in output


def test_missing_images_are_counted(by_rule):
    _, output, _ = by_rule
    assert 'lacks 12031 images of these lists:\n  JPEGImages/' in output and '... and 12026 more' in output
    assert 'masks of these lists' not in output


def test_masks_elsewhere_and_the_command_that_links_them(voc, published, tmp_path, call):
    root, out = tmp_path / 'VOC 2012', tmp_path / 'splits'
    (root / 'SegmentationClass').mkdir(parents=True)
    (root / 'ImageSets').symlink_to(voc / 'ImageSets')
    (root / 'SegmentationClassAug').symlink_to(voc / 'SegmentationClass')
    own = root / f'SegmentationClass/{names(published["pascal/val.txt"])[0]}.png'
    own.write_text('finer')
    status, output = call('voc', '--data-root', root, '--out', out)
    assert status == 1 and set(lists_below(out)) == {'pascal/val.txt', 'pascal/1464/labeled.txt'}
    assert 'expected the masks of 10582 training images, found 1464' in output
    assert 'warning' in output and 'masks of these lists' in output

    command = output[output.index('(cd') :].splitlines()[0]
    subprocess.run(command, shell=True, check=False)
    assert own.read_text() == 'finer'
    status, output = call('voc', '--data-root', root, '--out', out)
    assert status == 0 and 'there already' in row(output, 'pascal/val.txt')[2]

    status, output = call(
        'voc', '--data-root', root, '--masks', 'SegmentationClassAug', '--out', tmp_path / 'again'
    )
    assert status == 0 and lists_below(tmp_path / 'again') == lists_below(out)


def test_other_masks_than_the_published_are_refused(voc, tmp_path, call):
    root, out = tmp_path / 'VOC2012', tmp_path / 'splits'
    (root / 'ImageSets').parent.mkdir()
    (root / 'ImageSets').symlink_to(voc / 'ImageSets')
    given = {
        name for file in (root / 'ImageSets/Segmentation').iterdir() for name in file.read_text().split()
    }
    masks = {file.stem for file in (voc / 'SegmentationClass').iterdir()} - given
    (root / 'SegmentationClass').mkdir()
    for name in [*sorted(masks)[1:], 'another']:
        (root / f'SegmentationClass/{name}.png').touch()
    status, output = call('voc', '--data-root', root, '--out', out)
    assert status == 1 and not (out / 'pascal/train_aug.txt').exists() and not (out / 'pascal/1_16').exists()
    assert 'error: the list by rule is not the published one: expected 10582' in output


@pytest.mark.parametrize(
    'missing, message', [('ImageSets', 'part of Pascal VOC 2012'), ('SegmentationClass', '--masks')]
)
def test_an_incomplete_data_set_is_explained(tmp_path, call, missing, message):
    for folder in {'ImageSets/Segmentation', 'SegmentationClass'} - {missing}:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        if missing != 'ImageSets':
            for split in ('train', 'val'):
                (tmp_path / f'ImageSets/Segmentation/{split}.txt').write_text('2007_000032\n')
    if missing == 'SegmentationClass':
        (tmp_path / 'ImageSets/Segmentation').mkdir(parents=True, exist_ok=True)
    status, output = call('voc', '--data-root', tmp_path, '--out', tmp_path / 'splits')
    assert status == 1 and message in output and not (tmp_path / 'splits').exists()


# ---- import


def as_folder(place):
    shutil.copytree(PUBLISHED, place / 'AllSpark/splits')
    return place / 'AllSpark'


def as_splits(place):
    return as_folder(place) / 'splits'


def as_unpacked(place):
    return as_folder(place).parent


def as_zip(place):
    as_folder(place)
    return shutil.make_archive(place / 'AllSpark-main', 'zip', place, 'AllSpark')


def as_tar(place):
    as_folder(place)
    return shutil.make_archive(place / 'lists', 'gztar', place / 'AllSpark', 'splits')


@pytest.mark.parametrize('pack', [as_folder, as_splits, as_unpacked, as_zip, as_tar])
def test_import(published, tmp_path, call, pack):
    reference = pack(tmp_path)
    for name in ('voc', 'cityscapes', 'coco'):
        status, output = call(
            name, '--data-root', tmp_path / 'no', '--reference', reference, '--out', tmp_path / 'splits'
        )
        assert status == (name == 'coco'), output  # the copy for tests lacks lists of COCO
        assert 'was not checked' in output
    assert lists_below(tmp_path / 'splits') == published
    assert (
        f'error: not in {reference}' in output
        and 'So 6 of' in output
        and 'coco/1_512/unlabeled.txt' in output
    )


def test_import_from_an_address(published, tmp_path):
    archive = as_tar(tmp_path)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}'
    try:
        found = tool.read_reference(f'{address}/{Path(archive).name}')
        with pytest.raises(OSError, match=r'could not download http\S+: HTTP Error 404.*name its file'):
            tool.read_reference(f'{address}/nothing.zip')
        with pytest.raises(OSError, match=r'expected a zip or tar archive.*Download it again'):
            tool.read_reference(f'{address}/AllSpark/splits/pascal/val.txt')
    finally:
        server.shutdown()
        server.server_close()
    assert found == published
    with pytest.raises(OSError, match=r'could not download .*Connection refused'):
        tool.read_reference(f'{address}/{Path(archive).name}')


@pytest.mark.parametrize('end', ['', '/', '.git'])
def test_a_repository_is_fetched_as_an_archive(end):
    archive = 'https://github.com/xmed-lab/AllSpark/archive/refs/heads/main.zip'
    assert tool.archive_address(f'https://github.com/xmed-lab/AllSpark{end}') == archive
    assert tool.archive_address(archive) == archive


def test_an_altered_list_is_refused_and_a_missing_one_is_made_or_named(voc, published, tmp_path):
    reference = as_folder(tmp_path)
    altered, out = reference / 'splits/pascal/1_8/labeled.txt', tmp_path / 'splits'
    altered.write_bytes(altered.read_bytes().replace(b'2007_000032', b'2007_000033', 1))
    shutil.rmtree(reference / 'splits/pascal/1_2')
    (reference / 'splits/pascal/92/labeled.txt').unlink()
    status, output = run('voc', '--data-root', voc, '--reference', reference, '--out', out)
    assert status == 1
    lost = {'pascal/1_8/labeled.txt', 'pascal/92/labeled.txt'}
    assert 'error: the list imported is not the published one: expected 1323' in output
    assert f'error: not in {reference}' in output and '\n  pascal/92/labeled.txt' in output
    assert all('not made' in row(output, path)[2] for path in lost)
    assert 'by rule' in row(output, 'pascal/1_2/labeled.txt')[2]
    expected = {path for path in published if path.startswith('pascal/')} - lost
    assert lists_below(out) == {path: published[path] for path in expected}


def test_cityscapes_and_coco_lists_that_follow_from_others(published, tmp_path, call):
    for path in published:
        if '1_2/' in path or path == 'coco/1_32/labeled.txt':
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            # a copy that git checked out on Windows
            (tmp_path / path).write_bytes(published[path].replace(b'\n', b'\r\n'))
    for name in ('cityscapes', 'coco'):
        call(name, '--data-root', tmp_path, '--reference', tmp_path, '--out', tmp_path / 'splits')
    made = lists_below(tmp_path / 'splits')
    assert made == {path: published[path] for path in made}
    halves = {f'cityscapes/1_{k}/{part}labeled.txt' for k in (2, 4, 8, 16) for part in ('', 'un')}
    assert set(made) == halves | {'coco/1_32/labeled.txt', 'coco/1_512/labeled.txt'}


def test_what_the_data_set_lacks_and_unlabeled_images_need_no_mask(published, tmp_path, call):
    root = tmp_path / 'cityscapes'
    lines = published['cityscapes/val.txt'].decode().splitlines()
    for name in ' '.join(lines[7:]).split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    status, output = call(
        'cityscapes', '--data-root', root, '--reference', PUBLISHED, '--out', tmp_path / 's'
    )
    assert status == 0
    assert f'lacks {2975 + 7} images of these lists:\n  {lines[0].split()[0]}\n' in output
    labeled = b'\n'.join(published[f'cityscapes/{folder}/labeled.txt'] for folder in ('1_30', '1_2'))
    masks = {line.split()[1] for line in labeled.splitlines()}
    assert 1488 < len(masks) < 1588 and f'lacks {len(masks) + 7} masks' in output
    assert 'dataset_converters/cityscapes.py' in output


# ---- lists that are there


def test_imported_order_replaces_and_outlives_the_sorted_one(voc, by_rule, published, tmp_path, call):
    out = tmp_path / 'splits'
    shutil.copytree(by_rule[2], out)
    path = 'pascal/1464/unlabeled.txt'
    only = tmp_path / 'copy' / path
    only.parent.mkdir(parents=True)
    only.write_bytes(published[path])
    status, output = call('voc', '--data-root', voc, '--reference', tmp_path / 'copy', '--out', out)
    assert status == 1  # the copy lacks 92 and others
    made = lists_below(out)
    assert made[path] == published[path]
    # drawn from the order of 1464/unlabeled.txt
    assert made['pascal/u2pl_1_4/labeled.txt'] == published['pascal/u2pl_1_4/labeled.txt']
    assert row(output, 'pascal/u2pl_1_4/unlabeled.txt')[2].endswith('same images, order of its own')
    stamps = {file: file.stat().st_mtime_ns for file in out.rglob('*') if file.name == 'labeled.txt'}
    status, output = call('voc', '--data-root', voc, '--out', out)
    assert status == 0 and lists_below(out) == made
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    assert 'there already' in row(output, path)[2]


def test_other_images_are_not_overwritten(voc, tmp_path, call):
    mine = tmp_path / 'splits/pascal/1_16/labeled.txt'
    mine.parent.mkdir(parents=True)
    mine.write_text('my.jpg list.png\n')
    status, output = call('voc', '--data-root', voc, '--out', tmp_path / 'splits')
    assert status == 1 and mine.read_text() == 'my.jpg list.png\n'
    assert f'{mine} is there, with other images' in output
    assert (mine.parent / 'unlabeled.txt').exists()


# ---- without the published lists


def test_nothing_to_import_from(tmp_path, call):
    for name in ('cityscapes', 'coco'):
        status, output = call(name, '--data-root', tmp_path, '--out', tmp_path / 'splits')
        assert status == 1 and 'lists follow no rule: add --reference' in output
    assert not list(tmp_path.iterdir())


def test_a_reference_that_is_none(tmp_path, call):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.zip').write_text('not found')
    with tarfile.open(tmp_path / 'cut.tar.gz', 'w:gz') as archive:
        archive.add(ROOT / 'LICENSE')
        archive.add(ROOT / 'setup.py')
    whole = (tmp_path / 'cut.tar.gz').read_bytes()
    (tmp_path / 'cut.tar.gz').write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ('nowhere', 'found nothing at'),
        ('empty', 'expected lists such as splits/pascal/val.txt, found none'),
        ('text.zip', 'expected a zip or tar archive, found something else'),
        ('cut.tar.gz', 'could not read'),
    ):
        status, output = call('coco', '--reference', tmp_path / name, '--out', tmp_path / 'splits')
        assert status == 1 and message in output and name in output


@pytest.mark.parametrize(
    'member, path',
    [
        ('AllSpark-main/splits/pascal/1_8/labeled.txt', 'pascal/1_8/labeled.txt'),
        ('AllSpark/splits/pascal/val.txt', 'pascal/val.txt'),
        ('./splits/coco/val.txt', 'coco/val.txt'),
        ('coco/val.txt', 'coco/val.txt'),
        ('splits/coco/1_3/labeled.txt', None),
        ('more/scenarios/splits/coco/val.txt', None),
        ('splits/README.md', None),
    ],
)
def test_which_members_of_an_archive_are_lists(member, path):
    assert tool._list_name(member) == path


def test_a_broken_write_leaves_no_half_of_a_list(tmp_path, monkeypatch):
    def fail(self, obj, filepath):
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        Path(filepath).write_bytes(obj[:2])
        raise OSError('disk full')

    monkeypatch.setattr('mmengine.fileio.LocalBackend.put', fail)
    lists = tool.Collection('pascal')
    lists.made['pascal/val.txt'] = tool.Made(b'a list', 'imported', 'sha256 equal')
    with pytest.raises(OSError, match='disk full'):
        tool.store(tmp_path, lists)
    assert lists_below(tmp_path) == {}


# ---- new splits

PRESENT = st.tuples(st.integers(2, 40), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape))


@settings(deadline=None, max_examples=60)
@given(PRESENT, st.data(), st.integers(0, 99))
def test_choice_has_the_size_covers_what_it_can_and_repeats_itself(present, data, seed):
    count = data.draw(st.integers(1, len(present) - 1))
    chosen = tool.choose(present, count, seed)
    assert len(set(chosen.tolist())) == len(chosen) == count
    assert set(chosen.tolist()) <= set(range(len(present))) and (np.diff(chosen) > 0).all()
    existing = present.any(axis=0).sum()
    assert present[chosen].any(axis=0).sum() >= min(count, existing)
    assert (chosen == tool.choose(present, count, seed)).all()


def test_choice_keeps_the_frequencies_and_depends_on_the_seed():
    rng = np.random.default_rng(0)
    share = np.array([1, 0.5, 0.25, 0.1, 0.02])
    present = rng.random((2000, 5)) < share
    chosen = tool.choose(present, 100, 0)
    assert np.abs(present[chosen].mean(axis=0) - present.mean(axis=0)).max() < 0.03
    assert (chosen != tool.choose(present, 100, 1)).any()


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


def test_a_new_split_of_folders(mine, tmp_path):
    out = tmp_path / 'split'
    status, output = run('new', '--data-root', mine, *NEW, '--ratio', '1/10', '--out', out)
    assert status == 0, output
    labeled, unlabeled = ((out / f'{name}.txt').read_text().splitlines() for name in ('labeled', 'unlabeled'))
    assert len(labeled) == 3 and len(unlabeled) == 21
    listed = [line.split() for line in labeled + unlabeled]
    assert {image for image, _ in listed} == {str(p.relative_to(mine)) for p in mine.glob('images/*/*')}
    assert all(mask == image.replace('images', 'masks').replace('jpg', 'png') for image, mask in listed)
    assert 'images/town1/13.jpg masks/town1/13.png' in labeled
    assert '3 labeled and 21 unlabeled images, seed 0' in output
    assert '3                   6        1              0        0' in output


def test_a_new_split_of_a_list_and_what_it_does_not_overwrite(mine, tmp_path, call):
    lines = [f'{p.relative_to(mine)}' for p in sorted(mine.glob('images/town0/*'))]
    (mine / 'train.txt').write_text('\n'.join(lines))
    options = ('new', '--data-root', mine, '--list', 'train.txt', *NEW, '--count', 2, '--out', tmp_path / 's')
    status, output = call(*options, '--num-classes', 3)
    assert status == 0 and 'no labeled image holds the classes [2]' in output
    before = lists_below(tmp_path / 's')
    assert len(before['labeled.txt'].splitlines()) == 2 and len(before['unlabeled.txt'].splitlines()) == 10
    assert call(*options)[0] == 0 and lists_below(tmp_path / 's') == before
    status, output = call(*options, '--seed', 1)
    assert status == 1 and 'is there, with other contents' in output
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
        (('--count', 2, '--ignore-index', 0, 1, 3, 255), 'ignored values only'),
        (('--count', 2, '--seed', -1), '--seed is -1; expected 0 or more'),
    ],
)
def test_impossible_options_are_refused(mine, tmp_path, call, options, message):
    status, output = call('new', '--data-root', mine, *NEW, *options, '--out', tmp_path / 's')
    assert status != 0 and message in output and not (tmp_path / 's').exists()


def test_impossible_data_are_refused(mine, tmp_path, call):
    options = ('new', '--data-root', mine, '--count', 2, '--out', tmp_path / 's')
    status, output = call(*options)
    assert status == 2 and 'expected --images and --masks, or --list' in output
    (mine / 'twice.txt').write_text('images/town0/00.jpg masks/town0/00.png\n' * 3)
    status, output = call(*options, '--list', 'twice.txt')
    assert status == 1 and 'must not occur twice, found:\n  images/town0/00.jpg' in output
    cv2.imwrite(str(mine / 'masks/town0/04.png'), np.zeros((4, 6, 3), np.uint8))
    status, output = call(*options, *NEW)
    assert status == 1 and '04.png: expected a mask of one byte a pixel' in output and 'mode RGB' in output
    mask = mine / 'masks/town0/06.png'
    mask.write_bytes(mask.read_bytes()[:50])
    (mine / 'masks/town0/04.png').write_bytes((mine / 'masks/town0/02.png').read_bytes())
    status, output = call(*options, *NEW)
    assert status == 1 and '06.png: expected a mask, found a file that cannot be read' in output
    (mine / 'images/town0/04.jpg').rename(mine / 'images/town0/0 4.jpg')
    (mine / 'masks/town0/04.png').rename(mine / 'masks/town0/0 4.png')
    status, output = call(*options, *NEW)
    assert status == 1 and '2 names contain white space; rename the files:\n  images/town0/0 4.jpg' in output


def test_help_is_readable(call):
    assert all(word in call('new', '--help')[1] for word in ('--ratio', '--seed', 'share to label'))
    assert 'voc|cityscapes|coco|new' in call('--help')[1]
