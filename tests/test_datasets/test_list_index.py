"""Lines of lists in memory and in shared files; the checks and the sampler at the size of a long list."""

import itertools
import os
import pickle
import threading
import time
import tracemalloc
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.fileio import get_file_backend

from allspark_mmseg.datasets import ImageListDataset, SemiDataset, file_checks, list_index, parse_list_line
from allspark_mmseg.datasets.file_checks import evenly_spaced, find_bad_files, map_files
from allspark_mmseg.datasets.list_index import StoredLines, hash_name, lines_of_paths, read_lines
from allspark_mmseg.utils import on_one_process

from .test_samplers import sampler

META = {'classes': ('void', 'thing'), 'palette': [[0, 0, 0], [255, 0, 0]]}
TEXT = '\ufeffa/1.jpg\r\n\n  \nb/my photo.jpg\tm.png\né/2.jpg masks/2.png\n \tc.jpg \na/1.jpg'
LINES = ['a/1.jpg', 'b/my photo.jpg\tm.png', 'é/2.jpg masks/2.png', ' \tc.jpg ', 'a/1.jpg']


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Indexes of all lists are files, and a list is read in small parts."""
    monkeypatch.setattr(list_index, 'STORED_BYTES', 0)
    monkeypatch.setattr(list_index, '_BLOCK', 9)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'allspark_mmseg' / 'lists'


def write(path, text):
    path.write_bytes(text.encode())
    return path


def find(lines, *names):
    wanted = np.array(sorted(hash_name(name.encode()) for name in names), np.uint32)
    return lines.find_names(wanted).tolist()


def test_files_hold_what_memory_holds(tmp_path, stored):
    path = write(tmp_path / 'list.txt', TEXT)
    lines = read_lines(path, 'list.txt')
    assert isinstance(lines, StoredLines)
    assert list(lines) == LINES
    assert list(pickle.loads(pickle.dumps(lines))) == list(deepcopy(lines)) == LINES
    assert find(lines, 'x/1.jpg', 'my photo.jpg') == [0, 1, 4] and find(lines, 'm.png', '3.jpg') == []
    with patch.object(list_index, 'STORED_BYTES', 1000):
        memory = read_lines(path, 'list.txt')
    assert not isinstance(memory, StoredLines) and list(memory) == LINES


@given(st.lists(st.text('aé \t\x0c\n\r', max_size=8)), st.integers(1, 30))
@settings(deadline=None)
def test_any_text_has_the_lines_of_python(tmp_path_factory, texts, block):
    path = tmp_path_factory.mktemp('lists') / 'list.txt'
    path.write_bytes('\n'.join(texts).encode())
    expected = [line for line in path.read_text().split('\n') if line.strip()]
    with patch.object(list_index, '_BLOCK', block):
        try:
            lines = list(read_lines(path, 'list.txt'))
        except ValueError as error:
            number = int(str(error).split(':')[1])
            with pytest.raises(ValueError, match='columns'):
                parse_list_line(path.read_text().split('\n')[number - 1])
        else:
            assert lines == expected


def test_the_index_is_found_by_the_content(tmp_path, stored):
    path = write(tmp_path / 'list.txt', TEXT)
    read_lines(path, 'list.txt')
    with patch.object(list_index, '_write_files', side_effect=AssertionError('made again')):
        assert list(read_lines(write(tmp_path / 'copy.txt', TEXT), 'copy.txt')) == LINES
    assert len(read_lines(write(path, TEXT + '\nnew.jpg'), 'list.txt')) == 6
    assert len(list(stored.iterdir())) == 2


def test_a_failure_leaves_no_index(tmp_path, stored):
    path = write(tmp_path / 'list.txt', 'a.jpg\n\nb.jpg c.png d.png\n')
    with pytest.raises(ValueError, match=r'list\.txt:3: expected .* found 3 columns'):
        read_lines(path, 'list.txt')
    path.write_bytes(b'a.jpg\n\xff.jpg')
    with pytest.raises(ValueError, match=r"list\.txt:2: 'utf-8' codec"):
        read_lines(path, 'list.txt')
    assert list(stored.iterdir()) == []
    with patch.object(list_index, '_write_files', side_effect=OSError(28, 'No space left')):
        path.write_text('a.jpg')
        with pytest.raises(OSError, match=r'list\.txt: the index .* No space left.*XDG_CACHE_HOME'):
            read_lines(path, 'list.txt')
    assert list(stored.iterdir()) == []


def test_paths_of_a_folder_can_hold_anything():
    paths = ['a\nb.jpg', os.fsdecode(b'\xff.jpg'), 'my photo.jpg other.png']
    lines = lines_of_paths(paths)
    assert list(lines) == paths and find(lines, 'my photo.jpg other.png') == [2]
    assert len(lines_of_paths([])) == 0


@given(st.integers(1, 300), st.integers(1, 100))
@settings(deadline=None)
def test_a_sample_is_evenly_spaced(count, limit):
    sample = list(evenly_spaced(count, limit))
    gaps = np.diff(sample)
    assert len(sample) == min(count, limit) and sample[0] == 0
    assert limit == 1 or sample[-1] == count - 1
    assert not len(gaps) or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


@pytest.mark.parametrize(('busy', 'threads'), [(0.9, 1), (0.1, 4)])
def test_files_are_read_in_threads_only_where_that_helps(busy, threads):
    def read(path):
        time.sleep(1e-4)
        return path, threading.get_ident()

    paths = [f'{number}.jpg' for number in range(450)]
    clock = SimpleNamespace(perf_counter=Mock(side_effect=[0, 1]), thread_time=Mock(side_effect=[0, busy]))
    with patch.object(file_checks, 'time', clock):
        results = map_files(read, paths)
    assert [path for path, _ in results] == paths
    assert len({thread for _, thread in results[100:]}) == threads


def test_many_files_are_looked_up(tmp_path):
    files = SimpleNamespace(isfile=lambda path: path != 'away')
    assert find_bad_files(['here', 'away', 'here'], files) == (['away'], [])
    names = [f'{number}.jpg' for number in range(2500)]
    for name in names:
        (tmp_path / name).write_bytes(b'' if name == '7.jpg' else b'x')
    (tmp_path / 'folder').mkdir()
    paths = [str(tmp_path / name) for name in [*names, 'folder', 'nul\0', '2500.jpg']]
    assert find_bad_files(paths, get_file_backend('.')) == (paths[-3:], [str(tmp_path / '7.jpg')])


@pytest.fixture
def pool(tmp_path, stored):
    """A list of 40 images of which the first, some and the last are files, and a labeled list."""
    (tmp_path / 'images').mkdir()
    (tmp_path / 'link').symlink_to('images')
    for number in range(40):
        (tmp_path / 'images' / f'{number}.jpg').write_bytes(b'x')
    write(tmp_path / 'pool.txt', ''.join(f'link/{number}.jpg\n' for number in range(40)))
    write(tmp_path / 'labeled.txt', 'images/3.jpg images/3.jpg\nimages/5.jpg images/5.jpg')
    return tmp_path


def unlabeled(root, **options):
    return ImageListDataset(data_root=str(root), ann_file='pool.txt', labeled=False, metainfo=META, **options)


def test_items_are_made_when_they_are_read(pool):
    dataset = unlabeled(pool, serialize_data=True)
    assert len(dataset) == 40
    assert dataset.get_data_info(7) == {
        'img_path': f'{pool}/link/7.jpg',
        'label_map': None,
        'reduce_zero_label': False,
        'seg_fields': [],
        'sample_idx': 7,
    }
    assert dataset.get_data_info(-1)['img_path'] == f'{pool}/link/39.jpg'
    part = pickle.loads(pickle.dumps(dataset.get_subset(10)))
    assert len(part) == 10 and part.get_data_info(9)['img_path'] == f'{pool}/link/9.jpg'


def test_above_the_limit_a_sample_is_looked_up(pool):
    (pool / 'images' / '1.jpg').unlink()
    assert len(unlabeled(pool, max_checked=4)) == 40
    with pytest.raises(FileNotFoundError, match=r'expected 40 images, found that 1 of them do not exist'):
        unlabeled(pool)
    (pool / 'images' / '39.jpg').unlink()
    message = (
        r'expected 4 images \(a sample of 40; max_checked=4\), found that 1 of them do not exist:\n.*/39'
    )
    with pytest.raises(FileNotFoundError, match=message):
        unlabeled(pool, max_checked=4)


@pytest.mark.parametrize('limit', [10, 100])
def test_an_overlap_is_found_at_every_size(pool, limit):
    def build(**options):
        return SemiDataset(
            {'ann_file': 'labeled.txt'},
            {'ann_file': 'pool.txt', 'max_checked': limit, **options},
            data_root=str(pool),
            metainfo=META,
        )

    with pytest.raises(ValueError, match='2 of 2 labeled images are also unlabeled') as error:
        build()
    assert f'{pool}/images/3.jpg' in str(error.value)
    with pytest.raises(ValueError, match='1 of 2 labeled images are also unlabeled'):
        build(indices=-36)
    assert len(build(indices=-34)) == 36


def old_order(count, size, generator):
    """The order of earlier versions, which compare all images at the end of each permutation."""
    waiting = np.empty(0, np.int64)
    while True:
        if len(waiting) < size:
            order = generator.permutation(count)
            head = order[~np.isin(order, waiting)][: size - len(waiting)]
            waiting = np.concatenate([waiting, head, order[~np.isin(order, head)]])
        yield waiting[:size].tolist()
        waiting = waiting[size:]


@given(st.integers(1, 6), st.integers(0, 20), st.integers(0, 2**31), st.integers(0, 30))
@settings(deadline=None)
def test_the_order_is_that_of_earlier_versions(unlabeled_images, more, seed, first):
    count = unlabeled_images + more
    built = sampler((1, count), 1, unlabeled_images, seed=seed, epoch_length=40)
    built.first_step = first
    indices = np.array(list(built)).reshape(-1, 1 + unlabeled_images)[:, 1:] - 1
    steps = old_order(count, unlabeled_images, np.random.default_rng((seed, 0, 1)))
    assert indices.tolist() == list(itertools.islice(steps, first, 40))


def test_a_million_images_take_four_bytes_each():
    built = sampler((100, 1_000_000), 2, 2)
    built.set_position(built.iterations - 1)
    tracemalloc.start()
    try:
        assert sum(1 for _ in built) == 4
        assert tracemalloc.get_traced_memory()[1] < 4.5e6
    finally:
        tracemalloc.stop()


def fail():
    raise ValueError('the list is empty')


def test_one_process_decides_for_all():
    def gather(outcome):
        return [outcome, (None, None)] if outcome != (None, None) else [('of the first', None), outcome]

    with (
        patch('allspark_mmseg.utils.all_gather_object', gather),
        patch('allspark_mmseg.utils.get_dist_info') as info,
        patch.dict(os.environ, LOCAL_RANK='0'),
    ):
        info.return_value = (0, 2)
        assert on_one_process(lambda: 'mine') == 'mine'
        with pytest.raises(ValueError, match='the list is empty'):
            on_one_process(fail)
        info.return_value = (1, 2)
        assert on_one_process(fail) == 'of the first'
        with pytest.raises(ValueError, match='the list is empty'):
            on_one_process(fail, of_each_machine=True)


def test_the_folder_of_indexes(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '')
    monkeypatch.setattr(Path, 'home', lambda: tmp_path)
    monkeypatch.setattr(list_index, 'STORED_BYTES', 0)
    read_lines(write(tmp_path / 'list.txt', 'a.jpg'), 'list.txt')
    assert len(list((tmp_path / '.cache/allspark_mmseg/lists').iterdir())) == 1
