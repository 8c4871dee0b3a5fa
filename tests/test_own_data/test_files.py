"""Results of reading are kept, also after an interrupt; damaged files are named."""

import json

import pytest
from PIL import Image

from allspark_mmseg.own_data.files import Cache
from allspark_mmseg.own_data.scan import read_facts, unusable

from ..helpers import odd_images
from ..helpers.folders import photo


def test_only_new_and_changed_files_are_read(tmp_path):
    for name in 'ab':
        (tmp_path / name).write_text(name)
    read = []

    def function(path: str) -> dict:
        read.append(path)
        return {'text': (tmp_path / path).read_text()}

    def run() -> dict:
        cache = Cache(tmp_path / 'cache.json')
        result = cache.map(function, tmp_path, ['a', 'b'], 'text', 'reading')
        cache.save()
        return result

    assert run() == run() == {'a': {'text': 'a'}, 'b': {'text': 'b'}}
    assert sorted(read) == ['a', 'b']
    (tmp_path / 'b').write_text('longer')
    assert run()['b'] == {'text': 'longer'} and read[2:] == ['b']
    content = json.loads((tmp_path / 'cache.json').read_text())
    (tmp_path / 'cache.json').write_text(json.dumps(content | {'version': -1}))
    run()
    assert len(read) == 5, 'the cache of another version is not used'


def test_an_interrupt_keeps_what_was_read(tmp_path):
    for name in 'ab':
        (tmp_path / name).touch()
    cache = Cache(tmp_path / 'cache.json')

    def function(path: str) -> dict:
        if path == 'b':
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        cache.map(function, tmp_path, ['a', 'b'], 'kind', 'reading')
    assert list(cache.entries) == ['kind a']


def test_facts_of_images(tmp_path):
    path = photo(tmp_path / 'a.jpg')
    facts = read_facts(path, True)
    assert facts['size'] == [48, 40] and (facts['mode'], facts['bits'], facts['bands']) == ('RGB', 8, 3)
    assert len(facts['hash']) == 16 and unusable(facts) is None
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'b.jpg', exif=exif)
    assert read_facts(tmp_path / 'b.jpg', False)['size'] == [40, 48]


@pytest.mark.parametrize(
    ('mode', 'name', 'reason'),
    [
        ('I;16', 'a.png', 'has 16 bits per channel'),
        ('F', 'a.tif', 'has 32 bits per channel'),
        ('RGBA', 'a.png', None),
        ('L', 'a.png', None),
        ('CMYK', 'a.jpg', None),
    ],
)
def test_what_can_be_trained_on(mode, name, reason, tmp_path):
    Image.new(mode, (9, 9)).save(tmp_path / name)
    found = unusable(read_facts(tmp_path / name, False))
    assert found is None if reason is None else found.startswith(reason)


@pytest.mark.parametrize(
    ('kind', 'reason'),
    [
        ('tif RGB', None),
        ('tif 4x8', 'has 4 bands, expected 1 or 3'),
        ('tif 7x16', 'has 16 bits per channel'),
        ('png RGB16', 'has 16 bits per channel'),
    ],
)
def test_images_that_pillow_reads_in_part_or_not_at_all(kind, reason, tmp_path):
    found = unusable(read_facts(odd_images.write(kind, tmp_path / 'a'), False))
    assert found is None if reason is None else found.startswith(reason)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'is an empty file'),
        (b' <HTML>', 'is a web page (HTML), not an image'),
        (b'version https://git-lfs.github.com/spec/v1', 'is a pointer of Git LFS'),
        (b'x', 'is not an image'),
    ],
)
def test_what_is_no_image(content, reason, tmp_path):
    (tmp_path / 'a.jpg').write_bytes(content)
    assert unusable(read_facts(tmp_path / 'a.jpg', False)).startswith(reason)
