"""Which images are found, and the names of their results."""

from pathlib import PurePosixPath

import pytest

from allspark_mmseg.prediction import find_images, output_names


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_of(*images):
    return list(output_names([PurePosixPath(image) for image in images]).values())


def test_sub_folders_are_searched_and_the_results_are_not(tmp_path):
    touch(
        tmp_path,
        'b.JPG',
        'a/c.tiff',
        'a/notes.txt',
        'pred/overlays/b.jpg',
        'predicted/d.png',
        '.hidden/e.png',
    )
    found = [str(image) for image in find_images(tmp_path, tmp_path / 'pred')]
    assert found == ['a/c.tiff', 'b.JPG', 'predicted/d.png']
    everywhere = [str(image) for image in find_images(tmp_path, tmp_path.parent / 'elsewhere')]
    assert 'pred/overlays/b.jpg' in everywhere


def test_one_image(tmp_path):
    touch(tmp_path, 'a/c.png')
    assert find_images(tmp_path / 'a' / 'c.png', tmp_path) == [PurePosixPath('c.png')]


def test_errors(tmp_path):
    touch(tmp_path, 'notes.txt')
    with pytest.raises(FileNotFoundError, match='absent does not exist'):
        find_images(tmp_path / 'absent', tmp_path / 'out')
    with pytest.raises(ValueError, match=r'notes\.txt is no image; expected a folder or a file'):
        find_images(tmp_path / 'notes.txt', tmp_path / 'out')
    with pytest.raises(ValueError, match=r'contains no image; expected files that end with \.jpg'):
        find_images(tmp_path, tmp_path / 'out')


def test_names():
    assert names_of('a.jpg', 'x/a.jpg', 'v1.2.png') == ['a', 'x/a', 'v1.2']
    assert names_of('x/a.jpg', 'x/a.png', 'b.png') == ['x/a.jpg', 'x/a.png', 'b']
    assert names_of('a.jpg', 'A.png') == ['a.jpg', 'A.png']  # one file on some file systems


def test_names_never_clash():
    images = ['a.jpg', 'a.png', 'a.jpg.png', 'b.png']
    assert len(set(names_of(*images))) == 4
