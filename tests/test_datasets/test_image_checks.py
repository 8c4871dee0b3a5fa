"""Which images are refused before a run, and which are reported."""

import re

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from allspark_mmseg.datasets import ImageListDataset
from allspark_mmseg.datasets.image_checks import check_images

from ..helpers.odd_images import cut, noise, write

METAINFO = dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 0, 0]])


def folder_of(root, loader=None, **arguments) -> ImageListDataset:
    pipeline = [dict(type='LoadImageFromFile') | (loader or {})]
    settings = dict(labeled=False, metainfo=METAINFO, data_prefix=dict(img_path=str(root)))
    return ImageListDataset(pipeline=pipeline, **(settings | arguments))


def check(dataset, **arguments):
    return check_images([('train_dataloader', dataset)], **arguments)


@pytest.fixture
def log(monkeypatch):
    """Messages of the log, each with its level."""
    messages = []

    def keep(message, logger=None, level=20):
        messages.append((level, message))

    monkeypatch.setattr('allspark_mmseg.datasets.image_checks.print_log', keep)
    return messages


UNCHANGED = dict(color_type='unchanged')
REFUSED = {
    'twelve bits': (
        'png L16',
        {},
        r"1 image\(s\) have more than 8 bits per band, of which color_type='color' keeps only the highest 8: "
        r'\S+/z\.png has 16 bits per band\. .*ScaleIntensity., low=0, high=4095\)',
    ),
    'deep colors': ('png RGB16', {}, r'high=65535'),
    'deep gray': ('png L16', dict(color_type='grayscale'), "color_type='grayscale' keeps only"),
    'floats': ('tif F', {}, r'has 32 bits per band.*low=0, high=255'),
    'four bands': (
        'tif 4x8',
        {},
        r"more bands than the 3 that color_type='color' keeps: \S+/z\.tif has 4 bands",
    ),
    'other bands': ('png L', UNCHANGED, r'which differ: 2 of 3 bands and 8 bits, 1 of 1 bands and 8 bits'),
    'other bits': ('png RGB16', UNCHANGED, r'1 of 3 bands and 16 bits'),
    'opacity': ('png RGBA', UNCHANGED, r'1 of 4 bands and 8 bits'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_images_that_would_lose_something(case, tmp_path, log):
    kind, loader, message = REFUSED[case]
    for name in 'ab':
        write('jpg RGB', tmp_path / name)
    write(kind, tmp_path / 'z')
    with pytest.raises(ValueError) as error:
        check(folder_of(tmp_path, loader))
    assert str(error.value).startswith('train_dataloader: ')
    assert re.search(message, str(error.value)), error.value
    assert 'StartupCheckHook(images=False) skips this check.' in str(error.value)


@pytest.mark.parametrize(
    ('kind', 'backend', 'message'),
    [
        ('tif 4x8', 'cv2', r'a\.tif is loaded as \(20, 30, 1\), expected \(20, 30, 4\)'),
        ('tif 7x16', 'cv2', r'a\.tif \(failed to load image'),
    ],
)
def test_bands_that_opencv_does_not_read(kind, backend, message, tmp_path, log):
    write(kind, tmp_path / 'a')
    message = rf"not loaded completely with imdecode_backend='{backend}': \S+{message}.*pip install tifffile"
    with pytest.raises(ValueError, match=message):
        check(folder_of(tmp_path, dict(UNCHANGED, imdecode_backend=backend)))


ACCEPTED = [
    ('png RGB', {}),
    ('png P', {}),
    ('png L', {}),
    ('png RGBA', {}),
    ('jpg CMYK', {}),
    ('tif RGBA', {}),
    ('webp RGB', {}),
    ('png P', UNCHANGED),
    ('png L16', UNCHANGED),
    ('tif F', UNCHANGED),
]


@pytest.mark.parametrize(('kind', 'loader'), ACCEPTED, ids=str)
def test_images_that_lose_nothing(kind, loader, tmp_path, log):
    beside = kind if kind in ('png L16', 'tif F') else 'jpg RGB'
    path, other = write(kind, tmp_path / 'a'), write(beside, tmp_path / 'b')
    assert set(check(folder_of(tmp_path, loader))) == {str(path), str(other)}


def test_a_web_page_and_a_truncated_file_are_named_together(tmp_path, log):
    for name in 'abcd':
        write('jpg RGB', tmp_path / name)
    (tmp_path / 'b.jpg').write_text('<!doctype html>')
    cut(tmp_path / 'c.jpg')
    with pytest.raises(
        ValueError, match=r'2 image\(s\) cannot be used: \S+b\.jpg is a web page .*c\.jpg is trunc'
    ):
        check(folder_of(tmp_path))


def test_the_end_of_every_file_is_looked_at(tmp_path, log):
    """Few images are decoded; the truncated one is not among those."""
    for number in range(40):
        write('jpg RGB', tmp_path / f'{number:02}')
    cut(tmp_path / '01.jpg', 0.9)
    with pytest.raises(ValueError, match=r'01\.jpg is truncated or damaged'):
        check(folder_of(tmp_path))


def mask(path, mode='L') -> None:
    Image.fromarray(noise(high=1)).convert(mode).save(path)


BESIDE = {
    'gray': lambda root, name: mask(root / f'{name}.png'),
    'palette': lambda root, name: mask(root / f'{name}.png', 'P'),
    'suffix': lambda root, name: mask(root / f'{name}_mask.png'),
    'colored': lambda root, name: mask(root / f'{name}.png', 'RGB'),
}


@pytest.mark.parametrize('case', BESIDE)
def test_masks_among_the_images_are_recognized(case, tmp_path, log):
    for name in 'abc':
        write('jpg RGB', tmp_path / name)
        BESIDE[case](tmp_path, name)
    with pytest.raises(
        ValueError, match=r'3 image\(s\) (look like masks: \S+png, beside a\.jpg|exist twice)'
    ):
        check(folder_of(tmp_path))
    check(folder_of(tmp_path, img_suffix='.jpg'))


def test_images_that_are_their_own_masks(tmp_path, log):
    for name in 'ab':
        mask(tmp_path / f'{name}.png')
    prefix = dict(img_path=str(tmp_path), seg_map_path=str(tmp_path))
    with pytest.raises(ValueError, match=r'paired with themselves: \S+a\.png is also its own mask'):
        check(folder_of(tmp_path, labeled=True, data_prefix=prefix))


def test_pictures_of_one_name_in_two_folders_are_no_masks(tmp_path, log):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
        write('jpg RGB', tmp_path / name / 'a')
    write('png L', tmp_path / 'two' / 'b')
    assert len(check(folder_of(tmp_path))) == 3


WARNINGS = {
    'opacity': (['png RGBA', 'png RGBA'], '2 of 2 sampled images have opacity, which is dropped.'),
    'mixture': (['png L', 'jpg RGB'], '1 of 2 images are gray, the others have colors.'),
    'masks': (['masks', 'masks'], 'all 2 sampled images have only the values 0..1 and 255, like masks.'),
}


@pytest.mark.parametrize('case', WARNINGS)
def test_images_that_are_probably_not_meant(case, tmp_path, log):
    kinds, message = WARNINGS[case]
    for name, kind in zip('ab', kinds, strict=True):
        if kind == 'masks':
            mask(tmp_path / f'{name}.png')
        else:
            write(kind, tmp_path / name)
    check(folder_of(tmp_path))
    warnings = [text for level, text in log if level == 30]
    assert len(warnings) == 1 and warnings[0].startswith(f'train_dataloader: {message}')


def test_an_image_that_a_list_names_twice_is_no_mask(tmp_path, log):
    path = write('jpg RGB', tmp_path / 'a')
    (tmp_path / 'list.txt').write_text(f'{path}\n{path}')
    assert set(check(folder_of(tmp_path, ann_file=str(tmp_path / 'list.txt')))) == {str(path)}


def test_what_was_found_is_logged(tmp_path, log):
    for name in 'abc':
        write('jpg RGB', tmp_path / name)
    Image.fromarray(np.zeros((7, 9, 3), np.uint8)).save(tmp_path / 'd.png')
    check(folder_of(tmp_path), cache=tmp_path / 'headers.json')
    check(folder_of(tmp_path), cache=tmp_path / 'headers.json')
    texts = [text for _, text in log]
    assert (
        'train_dataloader: 4 images (3 JPEG RGB 8 bits, 1 PNG RGB 8 bits), 9 x 7 to 30 x 20 pixels.' in texts
    )
    assert re.match(r'Images: read 4 headers, took 0 from the cache, in \d', texts[1])
    assert re.match(r'Images: read 0 headers, took 4 from the cache, in \d', texts[3])


def test_of_many_images_a_sample_is_read(tmp_path, log):
    for number in range(9):
        write('jpg RGB', tmp_path / str(number))
    assert len(check(folder_of(tmp_path), limit=3)) == 3
    assert 'Images: 3 of 9 headers are read (max_images=3).' in [text for _, text in log]


def test_files_for_another_loader_are_not_opened(tmp_path, log):
    (tmp_path / 'a.png').write_text('something else')
    dataset = folder_of(tmp_path)
    dataset.pipeline.transforms[0] = lambda results: results
    assert check(dataset) == {}
    assert 'train_dataloader: another loader than LoadImageFromFile, not checked.' in log[-1][1]


def test_the_log_is_that_of_the_run(tmp_path):
    write('jpg RGB', tmp_path / 'a')
    MMLogger.get_instance('images', log_file=str(tmp_path / 'log.txt'))
    check(folder_of(tmp_path))
    assert 'train_dataloader: 1 images' in (tmp_path / 'log.txt').read_text()
