"""The command ``look``: sheets of training and validation data, and their numbers."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from allspark_mmseg.cli import look
from allspark_mmseg.preview import build_preprocessor, find_streams, measure

from ..helpers.checkpoints import META, TEST_PIPELINE
from ..helpers.tiny_models import tiny_segmentor

PACK = dict(type='PackSegInputs')
LOAD = dict(type='LoadImageFromFile')
CROP = dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(64, 48), ratio_range=(1.0, 2.0))
COLOR = [
    dict(type='allspark_mmseg.ColorJitter', brightness=0.5, hue=0.1),
    dict(type='allspark_mmseg.RandomGrayscale', prob=1.0),
    dict(type='allspark_mmseg.GaussianBlur', sigma_range=(1.0, 2.0)),
]


@pytest.fixture
def config(tmp_path):
    """FixMatch on five images of 50 x 40 pixels whose masks are half class 1 and half ignored."""
    rng = np.random.default_rng(0)
    for index in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f'{index}.png')
        mask = np.full((40, 50), 255, np.uint8)
        mask[:, :25] = 1
        Image.fromarray(mask).save(tmp_path / f'{index}_mask.png')
    lines = [f'{index}.png {index}_mask.png' for index in range(5)]
    (tmp_path / 'labeled.txt').write_text('\n'.join(lines[:2]))
    (tmp_path / 'unlabeled.txt').write_text('\n'.join(lines[2:]))
    steps = [LOAD, dict(type='LoadAnnotations'), CROP, dict(type='allspark_mmseg.MultiView', labeled=[PACK])]
    views = dict(type='allspark_mmseg.MultiView', strong_1=[*COLOR, PACK], weak=[PACK])
    empty = dict(type='allspark_mmseg.LoadEmptyAnnotations')
    segmentor = tiny_segmentor()
    segmentor['data_preprocessor'] = segmentor['data_preprocessor'] | dict(size=(64, 48))
    root = dict(data_root=str(tmp_path), metainfo=META)
    config = dict(
        model=dict(type='allspark_mmseg.FixMatch', segmentor=segmentor),
        train_dataloader=dict(
            dataset=dict(
                type='allspark_mmseg.SemiDataset',
                split='.',
                labeled=dict(pipeline=steps),
                unlabeled=dict(pipeline=[LOAD, empty, CROP, views]),
                **root,
            )
        ),
        val_dataloader=dict(
            dataset=dict(
                type='allspark_mmseg.ImageListDataset', ann_file='labeled.txt', pipeline=TEST_PIPELINE, **root
            )
        ),
    )
    return Config(config)


def run(config, tmp_path, *options):
    path = tmp_path / 'config.py'
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in config.to_dict().items()))
    return look.main([str(path), '--out', str(tmp_path / 'out'), '--num', '2', *options])


def test_the_sheet_shows_all_streams_and_views(config, tmp_path):
    assert run(config, tmp_path) == 0
    page = (tmp_path / 'out/look.html').read_text()
    for text in (
        'labeled: 2 images',
        'unlabeled: 3 images',
        'validation: 2 images',
        'strong_1',
        'labeled, mask',
    ):
        assert text in page
    for text in ('scaled x ', 'crop at x ', 'brightness ', 'hue ', 'gray', 'blur ', 'flipped', 'CutMix'):
        assert text in page
    assert page.count('<img ') == 2 * (3 + 3 + 3)
    assert 'http' not in page and 'src="data:image/jpeg;base64,' in page
    with Image.open(tmp_path / 'out/look.png') as sheet:
        colors = {color for _, color in sheet.getcolors(10**7)}
        assert sheet.width > 800 and {tuple(color) for color in META['palette']} <= colors


def test_the_seed_determines_the_draws(config, tmp_path):
    pages = []
    for seed in ('1', '1', '2'):
        run(config, tmp_path, '--seed', seed)
        pages.append((tmp_path / 'out/look.html').read_text().replace(f'Seed {seed}', ''))
    assert pages[0] == pages[1] != pages[2]


def test_the_numbers_are_those_of_the_batches(config):
    preprocessor = build_preprocessor(config)
    _, unlabeled, validation = find_streams(config)
    numbers = {}
    draws = list(validation.draw(2, seed=0))
    for draw in draws:
        measure(numbers, draw, False, preprocessor, 4)
    entry = numbers['validation']
    images = np.stack([draw.bare[..., ::-1] for draw in draws])
    normal = (images - np.array([120.0, 110.0, 100.0])) / np.array([60.0, 55.0, 50.0])
    expected = (normal.min(), normal.max(), normal.mean(), normal.std())
    assert (entry.low, entry.high, entry.mean, entry.std) == pytest.approx(expected, abs=1e-4)
    assert entry.ignored_share == 50 and entry.class_share.tolist() == [0, 100, 0, 0]
    assert entry.sizes == {(40, 50)}
    numbers = {}
    for draw in unlabeled.draw(4, seed=0):
        measure(numbers, draw, True, preprocessor, 4)
    assert list(numbers) == ['weak', 'strong_1']
    assert numbers['weak'].sizes == {(64, 48)} and numbers['strong_1'].mean != numbers['weak'].mean


def test_the_recorded_crop_gives_the_pixels_of_the_view(config):
    config.train_dataloader.dataset.unlabeled.pipeline[2].ratio_range = (1.0, 1.0)
    config.model.segmentor.data_preprocessor.bgr_to_rgb = False  # the colors of the sheet stay
    unlabeled = find_streams(config)[1]
    for draw in unlabeled.draw(3, seed=0):
        weak, strong = draw.views
        file = np.asarray(Image.open(f'{config.train_dataloader.dataset.data_root}/{draw.name}'))
        assert np.array_equal(draw.bare, file[..., ::-1])
        top, left, height, width = weak.sample.crop_box
        assert (height, width) == (64, 48) and weak.sample.crop_box == strong.sample.crop_box
        crop = draw.bare[top : top + height, left : left + width]
        shown = weak.picture[:, ::-1] if weak.sample.flip else weak.picture
        assert np.array_equal(crop, shown[: len(crop)])
        assert [name for name, _ in strong.sample.colors][2:] == ['gray', 'blur']
        assert 'colors' not in weak.sample


def test_each_image_is_drawn_before_one_is_drawn_again(config):
    names = [draw.name for draw in find_streams(config)[1].draw(6, seed=3)]
    assert sorted(names[:3]) == sorted(names[3:]) == ['2.png', '3.png', '4.png']


def test_supervised_configs(config, tmp_path):
    config.model = config.model.segmentor
    steps = [LOAD, dict(type='LoadAnnotations'), CROP, PACK]
    config.train_dataloader.dataset = config.val_dataloader.dataset | dict(pipeline=steps)
    assert run(config, tmp_path) == 0
    page = (tmp_path / 'out/look.html').read_text()
    assert 'training: 2 images' in page and 'CutMix' not in page


def test_the_work_dir_of_a_run(config, tmp_path, capsys):
    work = tmp_path / 'work'
    work.mkdir()
    assert look.main([str(work)]) == 2
    assert 'has no config with train_dataloader' in capsys.readouterr().err
    config.dump(work / 'fixmatch.py')
    assert look.main([str(work), '--num', '1']) == 0
    assert (work / 'look.png').is_file() and (work / 'look.html').is_file()


def test_mistakes_are_one_sentence(config, tmp_path, capsys):
    assert run(config, tmp_path, '--num', '0') == 2
    assert '--num is 0; expected at least 1' in capsys.readouterr().err
    config.pop('train_dataloader')
    assert run(config, tmp_path) == 2
    assert 'no train_dataloader' in capsys.readouterr().err
    assert look.main([str(tmp_path / 'absent.py')]) == 2
    assert not (tmp_path / 'out').exists()
