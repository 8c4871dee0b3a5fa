"""Headers of image files against what the files were written as."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from allspark_mmseg.datasets.image_headers import read_header, read_headers, write_cache

from ..helpers.odd_images import cut, write

KINDS = {  # format, mode of Pillow, bands, bits, alpha
    'jpg RGB': ('JPEG', 'RGB', 3, 8, False),
    'jpg L': ('JPEG', 'L', 1, 8, False),
    'jpg CMYK': ('JPEG', 'CMYK', 4, 8, False),
    'png RGB': ('PNG', 'RGB', 3, 8, False),
    'png P': ('PNG', 'P', 1, 8, False),
    'png 1': ('PNG', '1', 1, 1, False),
    'png L16': ('PNG', 'I;16', 1, 16, False),
    'png RGB16': ('PNG', 'RGB', 3, 16, False),
    'png RGBA': ('PNG', 'RGBA', 4, 8, True),
    'png LA': ('PNG', 'LA', 2, 8, True),
    'webp RGB': ('WEBP', 'RGB', 3, 8, False),
    'bmp RGB': ('BMP', 'RGB', 3, 8, False),
    'tif RGB': ('TIFF', '', 3, 8, False),
    'tif P': ('TIFF', 'P', 1, 8, False),
    'tif RGBA': ('TIFF', '', 4, 8, True),
    'tif L16': ('TIFF', '', 1, 16, False),
    'tif F': ('TIFF', '', 1, 32, False),
    'tif 4x8': ('TIFF', '', 4, 8, False),
    'tif 7x16': ('TIFF', '', 7, 16, False),
}


@pytest.mark.parametrize('kind', KINDS)
def test_the_header_of_each_kind(kind, tmp_path):
    path = write(kind, tmp_path / 'a')
    header = read_header(str(path))
    assert (header.problem, header.suspicious) == ('', False)
    assert (header.format, header.mode, header.bands, header.bits, header.alpha) == KINDS[kind]
    assert header.size(use_exif=True) == (30, 20)


def test_the_orientation_of_phones(tmp_path):
    header = read_header(str(write('jpg rotated', tmp_path / 'a')))
    assert header.size(use_exif=False) == (30, 20) and header.size(use_exif=True) == (20, 30)


@pytest.mark.parametrize('kind', ['jpg RGB', 'png RGB', 'webp RGB', 'tif RGB', 'tif 7x16'])
@pytest.mark.parametrize('keep', [0.02, 0.6])
def test_a_truncated_file_is_noticed_without_decoding(kind, keep, tmp_path):
    header = read_header(str(cut(write(kind, tmp_path / 'a'), keep)))
    assert header.problem or header.suspicious


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        (b'\n<!DOCTYPE html><html>not found', 'is a web page (HTML), not an image'),
        (b'<HTML><head>', 'is a web page (HTML), not an image'),
        (b'version https://git-lfs.github.com/spec/v1', 'is a pointer of Git LFS'),
        (b'{"error": 404}', 'is a JSON or text file'),
        (b'\0\1\2\3', 'is not an image that Pillow knows'),
        (b'', 'is an empty file'),
        (b'II*\0', 'is damaged'),
    ],
)
def test_files_that_are_no_images(content, problem, tmp_path):
    (tmp_path / 'a.jpg').write_bytes(content)
    assert problem in read_header(str(tmp_path / 'a.jpg')).problem


def test_a_file_that_does_not_exist():
    assert 'cannot be read' in read_header('nowhere.jpg').problem


def test_only_changed_files_are_read_again(tmp_path):
    paths = [str(write('png RGB', tmp_path / name)) for name in 'abc']
    cache = tmp_path / 'folder' / 'headers.json'
    headers, count = read_headers(paths, cache)
    assert count == 3
    write_cache(cache, headers)
    assert read_headers(paths, cache) == (headers, 0)
    write_cache(cache, read_headers([str(write('png RGB', tmp_path / 'd'))])[0])
    assert read_headers(paths, cache) == (headers, 0), 'the headers of other images are lost'
    write('png L', tmp_path / 'b')
    os.utime(paths[1], ns=(1, 1))
    again, count = read_headers(paths[::-1], cache)
    assert (count, [header.mode for header in again]) == (1, ['RGB', 'L', 'RGB'])


def test_relative_paths_are_found_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write('png RGB', Path('a'))
    headers, _ = read_headers(['a.png'])
    write_cache(Path('headers.json'), headers)
    assert read_headers(['a.png'], Path('headers.json')) == (headers, 0)
    absolute = str(tmp_path / 'a.png')
    assert read_headers([absolute], Path('headers.json')) == ([headers[0]._replace(path=absolute)], 0)


def test_a_file_with_a_problem_is_read_again(tmp_path):
    (tmp_path / 'a.jpg').write_text('<html>')
    headers, _ = read_headers([str(tmp_path / 'a.jpg')])
    write_cache(tmp_path / 'headers.json', headers)
    assert read_headers([str(tmp_path / 'a.jpg')], tmp_path / 'headers.json') == (headers, 1)


@pytest.mark.parametrize(
    'content', ['', 'no json', '[]', json.dumps(dict(format=0, headers={})), '{"format": 1}']
)
def test_a_damaged_cache_is_no_error(content, tmp_path):
    path = str(write('png RGB', tmp_path / 'a'))
    (tmp_path / 'headers.json').write_text(content)
    assert read_headers([path], tmp_path / 'headers.json')[1] == 1


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / 'file').write_text('')
    write_cache(tmp_path / 'file' / 'headers.json', [])
    assert (tmp_path / 'file').read_text() == ''


def test_very_large_images_are_no_attack(tmp_path, monkeypatch):
    path = str(write('png RGB', tmp_path / 'a'))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert 'more than 179 million pixels' in read_header(path).problem
    (header,), _ = read_headers([path])
    assert header.size(use_exif=False) == (30, 20)
    assert Image.MAX_IMAGE_PIXELS == 100
