"""make_splits.py voc|cityscapes|coco: lists that follow a rule, and existing lists."""

import shutil
import subprocess
from pathlib import Path

import pytest
from splits.collection import IMPORTED, Collection, VerifiedList

from allspark_mmseg.datasets import published_splits
from tests.helpers.split_lists import image_ids, lists_below, row, run_make_splits

NO_RULE = {f'voc/{f}/{p}labeled.txt' for f in ('u2pl_1_4', '92', '183', '366', '732') for p in ('', 'un')}


@pytest.fixture(scope='module')
def by_rule(voc, tmp_path_factory):
    out = tmp_path_factory.mktemp('out') / 'splits'
    status, output = run_make_splits('voc', '--data-root', voc, '--out', out)
    return status, output, out


def test_rules_give_the_published_lists(by_rule, published):
    status, output, out = by_rule
    assert status == 0, output
    made = lists_below(out)
    expected = {path for path in published_splits.LISTS if path.startswith('voc/')} - NO_RULE
    assert set(made) == expected and len(made) == 16
    for path, content in made.items():
        if path in published_splits.SORTED_SHA256:
            assert sorted(content.splitlines()) == sorted(published[path].splitlines()), path
            assert row(output, path)[2] == 'by rule            same images, another order'
        else:
            assert content == published[path], path
            assert row(output, path)[2] == 'by rule            sha256 equal'


def test_lists_without_a_rule_need_a_reference(by_rule):
    _, output, _ = by_rule
    assert all('needs --reference' in row(output, path)[2] for path in NO_RULE)
    assert '10 lists follow no rule: add --reference' in output


def test_missing_images_are_counted(by_rule):
    _, output, _ = by_rule
    assert '12031 images of these lists are missing in ' in output and '... and 12026 more' in output
    assert 'masks of these lists' not in output


def test_the_printed_command_links_the_augmented_masks(voc, published, tmp_path, make_splits):
    root, out = tmp_path / 'VOC 2012', tmp_path / 'splits'
    (root / 'SegmentationClass').mkdir(parents=True)
    (root / 'ImageSets').symlink_to(voc / 'ImageSets')
    (root / 'SegmentationClassAug').symlink_to(voc / 'SegmentationClass')
    own = root / f'SegmentationClass/{image_ids(published["voc/val.txt"])[0]}.png'
    own.write_text('finer')
    status, output = make_splits('voc', '--data-root', root, '--out', out)
    assert status == 1 and set(lists_below(out)) == {'voc/val.txt', 'voc/1464/labeled.txt'}
    assert 'expected the masks of 10582 training images, found 1464' in output
    assert 'warning' in output and 'masks of these lists' in output

    command = output[output.index('(cd') :].splitlines()[0]
    subprocess.run(command, shell=True, check=False)
    assert own.read_text() == 'finer'
    status, output = make_splits('voc', '--data-root', root, '--out', out)
    assert status == 0 and 'there already' in row(output, 'voc/val.txt')[2]

    status, output = make_splits(
        'voc', '--data-root', root, '--masks', 'SegmentationClassAug', '--out', tmp_path / 'again'
    )
    assert status == 0 and lists_below(tmp_path / 'again') == lists_below(out)


def test_other_masks_than_the_published_are_refused(voc, tmp_path, make_splits):
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
    status, output = make_splits('voc', '--data-root', root, '--out', out)
    assert status == 1 and not (out / 'voc/train_aug.txt').exists() and not (out / 'voc/1_16').exists()
    assert 'error: the list by rule is not the published one: expected 10582' in output


@pytest.mark.parametrize(
    'missing, message', [('ImageSets', 'part of Pascal VOC 2012'), ('SegmentationClass', '--masks')]
)
def test_an_incomplete_data_set_is_refused_with_advice(tmp_path, make_splits, missing, message):
    for folder in {'ImageSets/Segmentation', 'SegmentationClass'} - {missing}:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        if missing != 'ImageSets':
            for split in ('train', 'val'):
                (tmp_path / f'ImageSets/Segmentation/{split}.txt').write_text('2007_000032\n')
    if missing == 'SegmentationClass':
        (tmp_path / 'ImageSets/Segmentation').mkdir(parents=True, exist_ok=True)
    status, output = make_splits('voc', '--data-root', tmp_path, '--out', tmp_path / 'splits')
    assert status == 1 and message in output and not (tmp_path / 'splits').exists()


def test_the_published_order_replaces_the_sorted_order_and_is_kept(
    voc, by_rule, published, tmp_path, make_splits
):
    out = tmp_path / 'splits'
    shutil.copytree(by_rule[2], out)
    path = 'voc/1464/unlabeled.txt'
    only = tmp_path / 'copy' / path
    only.parent.mkdir(parents=True)
    only.write_bytes(published[path])
    status, output = make_splits('voc', '--data-root', voc, '--reference', tmp_path / 'copy', '--out', out)
    assert status == 1  # the copy lacks 92 and others
    made = lists_below(out)
    assert made[path] == published[path]
    # drawn from the order of 1464/unlabeled.txt
    assert made['voc/u2pl_1_4/labeled.txt'] == published['voc/u2pl_1_4/labeled.txt']
    assert row(output, 'voc/u2pl_1_4/unlabeled.txt')[2].endswith('same images, another order')
    stamps = {file: file.stat().st_mtime_ns for file in out.rglob('*') if file.name == 'labeled.txt'}
    status, output = make_splits('voc', '--data-root', voc, '--out', out)
    assert status == 0 and lists_below(out) == made
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    assert 'there already' in row(output, path)[2]


def test_a_file_with_other_images_is_not_overwritten(voc, tmp_path, make_splits):
    mine = tmp_path / 'splits/voc/1_16/labeled.txt'
    mine.parent.mkdir(parents=True)
    mine.write_text('my.jpg list.png\n')
    status, output = make_splits('voc', '--data-root', voc, '--out', tmp_path / 'splits')
    assert status == 1 and mine.read_text() == 'my.jpg list.png\n'
    assert f'{mine} exists and lists other images' in output
    assert (mine.parent / 'unlabeled.txt').exists()


def test_a_failed_write_leaves_no_partial_list(tmp_path, monkeypatch):
    def fail(self, obj, filepath):
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        Path(filepath).write_bytes(obj[:2])
        raise OSError('disk full')

    monkeypatch.setattr('mmengine.fileio.LocalBackend.put', fail)
    collection = Collection('voc')
    collection.lists['voc/val.txt'] = VerifiedList(b'a list', IMPORTED, 'sha256 equal')
    with pytest.raises(OSError, match='disk full'):
        collection.write(tmp_path)
    assert lists_below(tmp_path) == {}
