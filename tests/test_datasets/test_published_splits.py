"""The published split lists: the table, the rules, and the command that makes a missing list."""

import hashlib
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allspark_mmseg.datasets import ImageListDataset
from allspark_mmseg.datasets import published_splits as splits
from tests.helpers.split_lists import published_lists


@pytest.fixture(scope='module')
def published() -> dict[str, bytes]:
    """Key of ``LISTS`` -> content, for the published lists on this machine."""
    return published_lists()


def test_the_table_is_complete_and_consistent():
    assert len(splits.LISTS) == 49
    for path, (lines, digest) in splits.LISTS.items():
        assert lines > 0 and len(digest) in (40, 64) and set(digest) <= set('0123456789abcdef'), path
    total = {'voc': 10582, 'cityscapes': 2975, 'coco': 118287}
    for path in splits.LISTS:
        if path.endswith('/labeled.txt'):
            other = path.replace('/labeled', '/unlabeled')
            count = splits.LISTS[path].lines + splits.LISTS[other].lines
            assert count == total[path.split('/')[0]], path
    assert set(splits.SORTED_SHA256) < set(splits.LISTS)


def test_published_lists_have_the_digests_of_the_table(published):
    for path, content in published.items():
        assert len(content.splitlines()) == splits.LISTS[path].lines, path
        assert splits.verify(path, content) == 'sha256 equal', path
    for path in set(splits.LISTS) - set(published):  # known by their git blob ids only
        assert len(splits.LISTS[path].digest) == 40, path


def test_sorted_lists_have_the_digests_of_the_table(published):
    for path in splits.SORTED_SHA256:
        lines = sorted(published[path].decode().splitlines())
        assert splits.verify(path, splits.encode(path, lines)) == 'same images, another order'
        with pytest.raises(ValueError, match='expected'):
            splits.verify(path, splits.encode(path, lines[1:]))


def test_rules_reproduce_the_published_lists(published):
    lines = {path: content.decode().splitlines() for path, content in published.items()}
    derived = splits.derive(lines)
    assert len(derived) == 8 + 8 + 6 + 1
    for path, made in derived.items():
        check = splits.verify(path, splits.encode(path, made))
        assert (check == 'sha256 equal') == (path not in splits.SORTED_SHA256), path


def test_nothing_is_derived_from_nothing():
    assert splits.derive({}) == {}
    assert set(splits.derive({'voc/train_aug.txt': ['a'] * 32})) == {
        f'voc/1_{step}/{part}.txt' for step in (2, 4, 8, 16) for part in ('labeled', 'unlabeled')
    }


@given(st.integers(0, 70), st.integers(1, 20))
def test_every_step_th_line_is_labeled_and_the_rest_is_not(number, step):
    lines = [f'{index:03d}' for index in range(number)]
    labeled, unlabeled = splits.every(lines, step)
    assert sorted(labeled + unlabeled) == lines and unlabeled == sorted(unlabeled)
    assert labeled == [f'{index:03d}' for index in range(0, number, step)]


@given(st.integers(0, 30), st.integers(0, 1))
def test_interleave_is_the_inverse_of_every_second(number, odd):
    lines = [str(index) for index in range(2 * number + odd)]
    assert splits.interleave(*splits.every(lines, 2)) == lines


def test_a_large_sample_starts_with_the_small_one():
    lines = [str(index) for index in range(1464)]
    large, small = splits.u2pl_sample(lines, 1323), splits.u2pl_sample(lines, 662)
    assert large[:662] == small and len(set(large)) == 1323


def test_a_list_is_verified_by_its_git_blob_id(monkeypatch):
    # `printf 'hello\n' | git hash-object --stdin`
    entry = splits.Published(1, 'ce013625030ba8dba906f756967f9e9ca394464a')
    monkeypatch.setitem(splits.LISTS, 'coco/train.txt', entry)
    assert splits.verify('coco/train.txt', b'hello\n') == 'git blob id equal'
    assert splits.encode('coco/train.txt', ['hello']) == b'hello\n'
    with pytest.raises(
        ValueError, match=r'expected 1 lines with git blob id ce01\w+, found 2 lines with \w+$'
    ):
        splits.verify('coco/train.txt', b'hello\nagain\n')


def test_the_final_newline_is_the_published_one(monkeypatch):
    entry = splits.Published(2, hashlib.sha256(b'a\nb').hexdigest())
    monkeypatch.setitem(splits.LISTS, 'coco/val.txt', entry)
    assert splits.encode('coco/val.txt', ['a', 'b']) == b'a\nb'
    assert splits.encode('coco/val.txt', ['a', 'c']) == b'a\nc\n'


VOC, ALLSPARK = 'python tools/dataset_converters/make_splits.py voc', 'https://github.com/xmed-lab/AllSpark'


@pytest.mark.parametrize(
    'ann_file, command',
    [
        ('data/splits/voc/1_16/labeled.txt', f'{VOC} --data-root data/VOC'),
        ('configs/a/../../data/splits/voc/val.txt', f'{VOC} --data-root data/VOC'),
        ('data/splits/voc/u2pl_1_8/unlabeled.txt', f'{VOC} --data-root data/VOC'),
        ('data/splits/voc/u2pl_1_4/labeled.txt', f'{VOC} --data-root data/VOC --reference {ALLSPARK}'),
        ('data/splits/voc/92/labeled.txt', f'{VOC} --data-root data/VOC --reference {ALLSPARK}'),
        (
            'data/splits/coco/val.txt',
            f'{VOC.replace("voc", "coco")} --data-root data/VOC --reference {ALLSPARK}',
        ),
        ('/my lists/splits/voc/val.txt', f"{VOC} --data-root data/VOC --out '/my lists/splits'"),
        ('data/splits/voc/1_3/labeled.txt', None),
        ('data/voc/val.txt', None),
        ('splits/val.txt', None),
        ('s3://bucket/splits/voc/val.txt', None),
    ],
)
def test_the_command_for_a_list(ann_file, command):
    assert splits.command_for(ann_file, 'data/VOC') == command


def test_the_command_quotes_and_names_the_subcommand():
    command = shlex.split(splits.command_for('/x/splits/cityscapes/1_30/labeled.txt', 'my data'))
    assert command[2:] == [
        *('cityscapes', '--data-root', 'my data', '--reference', ALLSPARK, '--out', '/x/splits')
    ]


def test_the_error_for_a_missing_list_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'Make it with: python tools/\S+ voc --data-root \S+ --out'):
        ImageListDataset(ann_file=f'{tmp_path}/splits/voc/1_8/labeled.txt', data_root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"data_prefix\['img_path'\]\.$"):
        ImageListDataset(ann_file='mine/labeled.txt', data_root=str(tmp_path))
