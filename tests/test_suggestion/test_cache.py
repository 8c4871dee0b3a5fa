"""The cache of scores: it survives a crash at any byte, and forgets nothing that is complete."""

import os

import numpy as np
import pytest

from allspark_mmseg.suggestion.cache import ScoreCache, fingerprint, make_key


@pytest.fixture
def filled(tmp_path):
    with ScoreCache(tmp_path, 'k') as cache:
        for index in range(5):
            cache.add(f'image {index}', {'uncertainty': index / 10}, np.full(3, index + 0.5))
    return tmp_path


def test_records_and_features_come_back(filled):
    with ScoreCache(filled, 'k') as cache:
        assert [cache.get(f'image {index}')['uncertainty'] for index in range(5)] == [0, 0.1, 0.2, 0.3, 0.4]
        assert cache.get('image 5') is None
        assert cache.features(['image 3', 'image 0']).tolist() == [[3.5] * 3, [0.5] * 3]
        assert cache.features().shape == (5, 3) and cache.features().dtype == np.float16
    with ScoreCache(filled, 'other') as cache:
        assert not cache.records and cache.features().shape == (0, 1)


@pytest.mark.parametrize('cut', [1, 5, 40])
@pytest.mark.parametrize('name', ['k.jsonl', 'k.f16'])
def test_what_a_crash_leaves_is_dropped(filled, name, cut):
    size = (filled / name).stat().st_size
    os.truncate(filled / name, max(size - cut, 0))
    with ScoreCache(filled, 'k') as cache:
        count = len(cache.records)
        assert 0 <= count < 5
        cache.add('new', {'uncertainty': 1.0}, np.full(3, 9.0))
    with ScoreCache(filled, 'k') as cache:
        assert len(cache.records) == count + 1
        assert cache.features(['new']).tolist() == [[9.0] * 3]
        assert all(cache.features([f'image {index}'])[0, 0] == index + 0.5 for index in range(count))


def test_a_row_without_a_line_is_dropped(filled):
    with (filled / 'k.f16').open('ab') as file:
        file.write(b'\0' * 6)
    with ScoreCache(filled, 'k') as cache:
        cache.add('new', {}, np.full(3, 9.0))
        assert cache.features(['new', 'image 4']).tolist() == [[9.0] * 3, [4.5] * 3]


def test_large_features_stay_finite(tmp_path):
    with ScoreCache(tmp_path, 'k') as cache:
        cache.add('a', {}, np.array([1e9, -1e9]))
        assert np.isfinite(cache.features(['a'])).all()


def test_key_and_fingerprint_follow_the_files(tmp_path):
    first, second = tmp_path / 'a.pth', tmp_path / 'b.pth'
    first.write_bytes(b'weights')
    second.write_bytes(b'weights')
    assert make_key([first], 1) == make_key([second], 1) != make_key([first], 2)
    marks = {fingerprint(str(first)), fingerprint(str(second))}
    second.write_bytes(b'other weights')
    assert make_key([first], 1) != make_key([second], 1)
    assert len(marks | {fingerprint(str(second))}) == 3
