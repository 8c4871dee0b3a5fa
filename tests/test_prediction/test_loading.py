"""Images are loaded as the test data are, and incomplete files are refused."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from allspark_mmseg.engine.plain_checkpoint import plain_config
from allspark_mmseg.prediction import ImageLoader, find_test_pipeline, find_tta
from allspark_mmseg.prediction.loading import as_picture
from allspark_mmseg.prediction.pipelines import loads_rgb, reduces_zero_label, without_masks

from ..helpers.checkpoints import TEST_PIPELINE, model_config, write_image

PACK = dict(type='PackSegInputs')
NOISE = np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def exif_rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(path, NOISE, exif=exif)


KINDS = {
    'color': (lambda root: save(root / 'a.jpg', NOISE), {}),
    'gray as color': (lambda root: save(root / 'a.png', NOISE[..., 0]), {}),
    'gray': (lambda root: save(root / 'a.png', NOISE[..., 0]), dict(color_type='grayscale')),
    '16 bit': (
        lambda root: save(root / 'a.png', NOISE[..., 0] * np.uint16(16)),
        dict(color_type='unchanged'),
    ),
    'four bands': (
        lambda root: save(root / 'a.png', NOISE.repeat(2, 2)[..., :4]),
        dict(color_type='unchanged'),
    ),
    'rotated': (lambda root: exif_rotated(root / 'a.jpg'), {}),
    'not rotated': (lambda root: exif_rotated(root / 'a.jpg'), dict(color_type='color_ignore_orientation')),
}


@pytest.mark.parametrize('kind', KINDS)
def test_inputs_equal_those_of_the_test_data(tmp_path, kind):
    make, options = KINDS[kind]
    path = make(tmp_path)
    load = dict(type='LoadImageFromFile', **options)
    dataset = DATASETS.build(
        dict(
            type='allspark_mmseg.ImageListDataset',
            labeled=False,
            data_root=str(tmp_path),
            data_prefix=dict(img_path=''),
            metainfo=dict(classes=('a', 'b'), palette=[[0, 0, 0], [1, 1, 1]]),
            pipeline=[load, PACK],
        )
    )
    expected = dataset[0]
    config = Config(model_config(pipeline=[load, dict(type='LoadAnnotations'), PACK]))
    image = ImageLoader(config)(path)
    assert torch.equal(image.inputs[0], expected['inputs'])
    assert image.data_samples[0].ori_shape == expected['data_samples'].ori_shape == image.size
    assert image.picture.shape == (*image.size, 3) and image.picture.dtype == np.uint8


def test_bits_that_the_loader_drops_are_refused(tmp_path):
    path = save(tmp_path / 'a.png', NOISE[..., 0] * np.uint16(16))
    with pytest.raises(ValueError, match=r"^has 16 bits per band, and color_type='color' keeps only"):
        ImageLoader(Config(model_config()))(path)


def test_a_page_is_no_image(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'<html></html>')
    with pytest.raises(ValueError, match=r'^is a web page'):
        ImageLoader(Config(model_config()))(tmp_path / 'a.jpg')


def test_the_pipeline_of_the_test_data_comes_first():
    other = [dict(type='LoadImageFromFile', color_type='grayscale'), PACK]
    config = Config(model_config() | dict(test_pipeline=other))
    assert find_test_pipeline(config) == TEST_PIPELINE
    config.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=dict(pipeline=other))]
    )
    assert find_test_pipeline(config) == other
    config.pop('test_dataloader')
    assert find_test_pipeline(config) == other
    config.pop('test_pipeline')
    with pytest.raises(ValueError, match='no test_dataloader, no val_dataloader and no test_pipeline'):
        find_test_pipeline(config)


@pytest.mark.parametrize(
    ('data', 'expected'),
    [
        (dict(type='ADE20KDataset'), True),
        (dict(type='mmseg.LoveDADataset', reduce_zero_label=False), False),
        (dict(type='BaseSegDataset'), False),
        (dict(type='allspark_mmseg.ImageListDataset', reduce_zero_label=True), True),
        (dict(pipeline=[]), False),
    ],
)
def test_a_class_of_data_sets_can_reduce_zero_label_by_default(data, expected):
    assert reduces_zero_label(data) is expected


def test_masks_are_not_read():
    augmented = dict(type='TestTimeAug', transforms=[[dict(type='mmseg.LoadAnnotations')], [PACK]])
    empty = dict(type='allspark_mmseg.LoadEmptyAnnotations')
    assert without_masks([*TEST_PIPELINE, empty, augmented]) == [
        TEST_PIPELINE[0],
        PACK,
        dict(type='TestTimeAug', transforms=[[PACK]]),
    ]


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_truncated_files_are_refused(tmp_path, suffix):
    load = ImageLoader(Config(model_config()))
    path = write_image(tmp_path / f'a{suffix}', (200, 300))
    assert load(path).size == (200, 300)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r'^is truncated or damaged \('):
        load(path)


def test_data_after_the_end_of_a_jpeg_is_accepted(tmp_path):
    path = write_image(tmp_path / 'a.jpg', (30, 44))
    path.write_bytes(path.read_bytes() + b'maker notes' * 20)
    assert ImageLoader(Config(model_config()))(path).size == (30, 44)


@pytest.mark.parametrize('converts', [True, False])
@pytest.mark.parametrize('kind', ['LoadImageFromFile', 'mmcv.LoadImageFromFile'])
def test_the_picture_has_the_colors_of_the_file(tmp_path, converts, kind):
    """Also for a network that takes BGR."""
    config = model_config(pipeline=[dict(type=kind), PACK])
    config['model']['data_preprocessor'].update(bgr_to_rgb=converts)
    picture = ImageLoader(Config(config))(save(tmp_path / 'a.png', NOISE)).picture
    assert np.array_equal(picture, NOISE[..., ::-1])


def test_other_loaders_give_what_the_network_takes():
    own = [dict(type='LoadRaster')]
    assert loads_rgb(own, dict(bgr_to_rgb=False)) and not loads_rgb(own, dict(bgr_to_rgb=True))
    assert loads_rgb([dict(type='LoadImageFromFile', imdecode_backend='tifffile')], dict(bgr_to_rgb=True))


def test_pictures_of_all_kinds():
    assert as_picture(NOISE) is NOISE
    assert np.array_equal(as_picture(NOISE, is_rgb=True), NOISE[..., ::-1])
    assert np.array_equal(as_picture(NOISE[..., 0])[..., 2], NOISE[..., 0])
    assert np.array_equal(as_picture(NOISE[..., :2])[..., 1], NOISE[..., 0])
    assert np.array_equal(as_picture(NOISE.repeat(2, 2)), NOISE.repeat(2, 2)[..., :3])
    deep = np.linspace(100, 4000, 1000).reshape(20, 50)
    for image in (deep.astype(np.uint16), deep):
        picture = as_picture(image)
        assert picture[0, 0, 0] == 0 and picture[-1, -1, 0] == 255
        assert (np.diff(picture[..., 0].ravel().astype(int)) >= 0).all()


def test_default_augmentation_mirrors_only_what_the_training_mirrors():
    crop = dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(9, 9))
    for steps, mirrored in (
        ([crop], True),
        ([crop | dict(flip_prob=0)], False),
        ([dict(type='RandomCrop', crop_size=(9, 9))], False),
        ([dict(type='RandomFlip', prob=0.5)], True),
    ):
        config = Config(model_config() | dict(train_dataloader=dict(dataset=dict(pipeline=steps))))
        model, pipeline = find_tta(config)
        assert model == dict(type='SegTTAModel')
        types = [step[0]['type'] for step in pipeline[-1]['transforms']]
        flip = ['RandomFlip'] if mirrored else []
        assert types == ['Resize', *flip, 'LoadAnnotations', 'PackSegInputs']


def test_the_chosen_network_keeps_the_augmentation_of_its_training():
    crop = dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(9, 9), flip_prob=0)
    config = Config(model_config() | dict(train_dataloader=dict(dataset=dict(pipeline=[crop]))))
    expected = find_tta(config)
    config.model = dict(type='allspark_mmseg.FixMatch', segmentor=config.model)
    plain = plain_config(config)
    assert 'train_dataloader' not in plain and find_tta(plain) == expected


def test_own_augmentation_loads_as_the_test_pipeline():
    gray = dict(type='LoadImageFromFile', color_type='grayscale')
    config = Config(model_config(pipeline=[gray, *TEST_PIPELINE[1:]]))
    config.tta_pipeline = [TEST_PIPELINE[0], dict(type='TestTimeAug', transforms=[[PACK]])]
    assert find_tta(config)[1] == [gray, config.tta_pipeline[1]]
