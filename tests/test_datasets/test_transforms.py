"""The augmentation against formulas and PIL, and the recipe of the module's docstring as it stands there."""

import random
import warnings

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose, RandomApply
from mmcv.transforms import RandomGrayscale as MMCVRandomGrayscale
from mmengine.dataset import worker_init_fn
from mmseg.registry import TRANSFORMS as MMSEG_TRANSFORMS
from PIL import Image, ImageEnhance, ImageFilter

from allspark_mmseg.datasets import (
    ColorJitter,
    GaussianBlur,
    LoadEmptyAnnotations,
    RandomResizeLongSide,
    pillow_ops,
    transforms,
)
from allspark_mmseg.datasets.transforms import RandomGrayscale, RandomScaleCropFlip

NOISE = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
EXTREMES = np.random.default_rng(1).choice(np.array([0, 1, 254, 255], np.uint8), (40, 61, 3))
SMOOTH = cv2.resize(NOISE[:4, :5], (61, 40), interpolation=cv2.INTER_CUBIC)
IMAGES = pytest.mark.parametrize('image', [NOISE, SMOOTH], ids=['noise', 'smooth'])


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(0)
    random.seed(0)


def recipe(crop):
    """Run the code blocks of the module's docstring with another crop size."""
    lines = [line[4:] for line in transforms.__doc__.splitlines() if line.startswith('    ')]
    code = '\n'.join(lines).replace('crop = 321', f'crop = {crop}')
    names = {}
    exec(code, names)
    return names


def build(steps):
    return Compose([MMSEG_TRANSFORMS.build({'_scope_': 'mmseg', **step}) for step in steps])


def to_pil(image):
    return Image.fromarray(np.ascontiguousarray(image[..., ::-1]))


def from_pil(image):
    return np.array(image)[..., ::-1]


def difference(first, second):
    return np.abs(first.astype(int) - second.astype(int)).max()


# resizing


def sizes_drawn(height, width, draws=400, **kwargs):
    resize = RandomResizeLongSide(backend='cv2', **kwargs)
    return [resize({'img': np.zeros((height, width, 3), np.uint8)})['img'].shape[:2] for _ in range(draws)]


@pytest.mark.parametrize(('height', 'width'), [(7, 11), (11, 7), (9, 9)])
def test_resized_to_every_length_of_the_range(height, width):
    low, high = int(0.5 * max(height, width)), int(2.0 * max(height, width))
    sizes = sizes_drawn(height, width)
    assert {max(size) for size in sizes} == set(range(low, high + 1))
    for new_height, new_width in sizes:
        if height > width:
            assert new_width == int(width * new_height / height + 0.5)
        else:
            assert new_height == int(height * new_width / width + 0.5)


def test_length_is_uniform():
    lengths = [max(size) for size in sizes_drawn(2, 10, draws=4000)]
    counts = np.bincount(lengths)[5:21]
    expected = 4000 / 16
    assert ((counts - expected) ** 2 / expected).sum() < 37.7  # chi squared, 15 degrees of freedom, p = 0.001


def test_pillow_backend_is_pil_with_nearest_for_the_mask():
    mask = NOISE[..., 0].copy()
    results = {'img': NOISE.copy(), 'gt_seg_map': mask, 'seg_fields': ['gt_seg_map']}
    out = RandomResizeLongSide((0.6, 0.6))(results)
    width, height = 36, int(40 * 36 / 61 + 0.5)
    assert (out['img'] == from_pil(to_pil(NOISE).resize((width, height), Image.BILINEAR))).all()
    assert (out['gt_seg_map'] == np.array(Image.fromarray(mask).resize((width, height), Image.NEAREST))).all()
    assert (
        out['img_shape'] == (height, width) and out['scale'] == (width, height) and out['keep_ratio'] is True
    )
    assert out['scale_factor'] == pytest.approx((width / 61, height / 40))


@pytest.mark.parametrize(
    'arguments',
    [{'ratio_range': (0, 1)}, {'ratio_range': (2, 1)}, {'ratio_range': (1,)}, {'backend': 'torch'}],
)
def test_resize_rejects(arguments):
    with pytest.raises(ValueError, match=r'RandomResizeLongSide: .* expected'):
        RandomResizeLongSide(**arguments)


@pytest.mark.parametrize('image', [NOISE, EXTREMES, SMOOTH], ids=['noise', 'extremes', 'smooth'])
def test_fast_resize_is_pils(image):
    height, width = image.shape[:2]
    for factor in np.linspace(0.3, 3, 55):
        size = int(height * factor), int(width * factor)
        expected = np.array(Image.fromarray(image).resize(size[::-1], Image.BILINEAR))
        out = pillow_ops.resize(image, *size)
        assert out.shape == expected.shape and difference(out, expected) <= 1


def test_nearest_positions_are_pils():
    for old in (1, 7, 61, 375, 500, 1024):
        for new in [1, 2, *range(old // 2, 2 * old + 1, 5)]:
            if new:
                positions = Image.fromarray(np.arange(old, dtype=np.int32)[None])
                expected = np.array(positions.resize((new, 1), Image.NEAREST))[0]
                assert (pillow_ops.nearest(old, new) == expected).all(), (old, new)


# the four steps of the geometry in one


@pytest.mark.parametrize('crop', [24, 50, 70, 140])
@pytest.mark.parametrize('turned', [False, True], ids=['landscape', 'portrait'])
def test_the_one_step_is_the_four(crop, turned):
    image = np.ascontiguousarray(NOISE.transpose(1, 0, 2)) if turned else NOISE
    sample = {'img': image, 'gt_seg_map': image[..., 0], 'seg_fields': ['gt_seg_map'], 'img_path': 'a.png'}
    four = build(recipe(crop)['four_steps'])
    one = build(recipe(crop)['geometry'])
    pack = build([{'type': 'PackSegInputs'}])
    flipped = 0
    for trial in range(25):
        np.random.seed(trial)
        expected = four(dict(sample))
        after = np.random.random_sample()
        np.random.seed(trial)
        out = one(dict(sample))
        assert np.random.random_sample() == after
        assert out['img'].shape == (crop, crop, 3) and out['img'].flags.c_contiguous
        assert difference(out['img'], expected['img']) <= 1
        assert (out['gt_seg_map'] == expected['gt_seg_map']).all()
        metas = [pack(results)['data_samples'].metainfo for results in (out, expected)]
        assert metas[0].keys() == metas[1].keys()
        for key, value in metas[1].items():
            assert np.all(metas[0][key] == value) and type(metas[0][key]) is type(value), key
        flipped += out['flip']
    assert 0 < flipped < 25


def test_the_one_step_leaves_its_input_and_takes_other_shapes():
    image, mask = NOISE.copy(), NOISE[..., 0].copy()
    step = RandomScaleCropFlip((20, 90), ratio_range=(1.0, 1.0), flip_prob=1.0)
    out = step({'img': image, 'gt_seg_map': mask, 'seg_fields': ['gt_seg_map', 'gt_seg_map']})
    assert (image == NOISE).all() and (mask == NOISE[..., 0]).all()
    assert (out['img'][:, :29] == 0).all() and (out['gt_seg_map'][:, :29] == 255).all()
    # padding is right of the image before the flip, hence left of it now
    rows = [top for top in range(21) if (out['img'][:, 29:] == NOISE[top : top + 20, ::-1]).all()]
    assert len(rows) == 1
    assert (out['gt_seg_map'][:, 29:] == NOISE[rows[0] : rows[0] + 20, ::-1, 0]).all()


@pytest.mark.parametrize(
    'arguments',
    [
        {'crop_size': (0, 3)},
        {'crop_size': (3,)},
        {'crop_size': (3, 3), 'ratio_range': (0, 1)},
        {'crop_size': (3, 3), 'flip_prob': 1.1},
    ],
)
def test_the_one_step_rejects(arguments):
    with pytest.raises(ValueError, match=r'RandomScaleCropFlip: .* expected'):
        RandomScaleCropFlip(**arguments)


# color


def pil_hue(image, turn):
    hue, saturation, value = image.convert('HSV').split()
    turned = (np.array(hue).astype(int) + int(turn * 255)) % 256
    return Image.merge('HSV', (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert('RGB')


PIL = {
    'brightness': lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    'contrast': lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    'saturation': lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    'hue': pil_hue,
}


@IMAGES
@pytest.mark.parametrize(
    ('name', 'amount'),
    [(name, factor) for name in ('brightness', 'contrast', 'saturation') for factor in (0.5, 0.77, 1.3, 1.5)]
    + [('hue', turn) for turn in (-0.5, -0.25, -0.1, 0.1, 0.25, 0.5)],
)
def test_each_operation_is_pils(image, name, amount, monkeypatch):
    jitter = ColorJitter(**{name: 0.5})
    monkeypatch.setattr(jitter, '_draw_operations', lambda: [(name, amount)])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        out = jitter({'img': image.copy()})['img']
    assert out.dtype == np.uint8 and out.flags.c_contiguous
    assert difference(out, from_pil(PIL[name](to_pil(image), amount))) <= 1
    assert difference(out, image) > 5


@IMAGES
def test_a_chain_of_operations_stays_close_to_pil(image):
    jitter = ColorJitter(0.5, 0.5, 0.5, 0.25)
    for trial in range(10):
        np.random.seed(trial)
        operations = jitter._draw_operations()
        expected = to_pil(image)
        for name, amount in operations:
            expected = PIL[name](expected, amount)
        np.random.seed(trial)
        out = jitter({'img': image.copy()})['img']
        # One level less of saturation can change the rounded hue after it: hence the mean.
        assert np.abs(out.astype(int) - from_pil(expected)).mean() < 1.5


def test_draws_of_the_jitter():
    draws = [ColorJitter(0.5, 0.3, 1.5, 0.25)._draw_operations() for _ in range(3000)]
    bounds = {
        'brightness': (0.5, 1.5),
        'contrast': (0.7, 1.3),
        'saturation': (0.0, 2.5),
        'hue': (-0.25, 0.25),
    }
    for name, (low, high) in bounds.items():
        amounts = np.array([dict(draw)[name] for draw in draws])
        assert low <= amounts.min() and amounts.max() <= high
        deciles = np.quantile(amounts, np.linspace(0, 1, 11))
        assert np.allclose(deciles, np.linspace(low, high, 11), atol=0.04 * (high - low))
    orders = {tuple(name for name, _ in draw) for draw in draws}
    assert len(orders) == 24


def test_what_is_zero_is_left_out():
    assert {name for name, _ in ColorJitter(contrast=0.5)._draw_operations()} == {'contrast'}
    assert (ColorJitter()({'img': NOISE.copy()})['img'] == NOISE).all()


@pytest.mark.parametrize('arguments', [{'brightness': -0.1}, {'hue': 0.6}])
def test_jitter_rejects(arguments):
    with pytest.raises(ValueError, match=r'ColorJitter: .* expected a number in'):
        ColorJitter(**arguments)


@IMAGES
def test_grayscale_of_mmcv_is_pils_with_these_arguments(image):
    stock = MMCVRandomGrayscale(prob=1.0, keep_channels=True, channel_weights=(0.114, 0.587, 0.299))
    out = stock({'img': image.copy()})['img']
    expected = np.array(to_pil(image).convert('L'))[..., None].repeat(3, axis=2)
    assert out.shape == image.shape and difference(out, expected) <= 1


def test_hue_is_pils_of_every_color():
    red, green, blue = np.meshgrid(*[np.arange(0, 256, 3, dtype=np.uint8)] * 3, indexing='ij')
    colors = np.stack([red, green, blue], axis=-1).reshape(86, -1, 3)
    for turn in (-0.25, 0.0, 0.1):
        assert difference(pillow_ops.hue(colors, turn), from_pil(pil_hue(to_pil(colors), turn))) <= 1


@IMAGES
def test_own_grayscale_is_pils(image):
    out = RandomGrayscale(prob=1.0)({'img': image})['img']
    expected = np.array(to_pil(image).convert('L'))[..., None].repeat(3, axis=2)
    assert out.shape == image.shape and difference(out, expected) <= 1


def test_own_grayscale_has_the_probability_and_the_draws_of_mmcvs():
    stock = MMCVRandomGrayscale(prob=0.2, keep_channels=True, channel_weights=(0.114, 0.587, 0.299))
    gray = []
    for step in (stock, RandomGrayscale(prob=0.2)):
        random.seed(0)
        gray.append(
            [bool(np.ptp(step({'img': NOISE[:2, :2]})['img'], axis=2).max() == 0) for _ in range(2000)]
        )
    assert gray[0] == gray[1] and abs(sum(gray[1]) - 400) < 60
    with pytest.raises(ValueError, match=r'RandomGrayscale: prob is 2, expected a probability'):
        RandomGrayscale(prob=2)


@pytest.mark.parametrize(
    'operation', ['brightness', 'contrast', 'saturation', 'hue', 'grayscale', 'gaussian_blur']
)
def test_operations_leave_their_argument(operation):
    image = NOISE.copy()
    getattr(pillow_ops, operation)(image, *([] if operation == 'grayscale' else [0.6]))
    assert (image == NOISE).all()


def test_blur_is_pils_at_every_strength():
    # sqrt(3) / 2 means a weight of 1/8, whose multiples are halves
    strengths = [0.0, 3**0.5 / 2, 1.4142, 2**0.5, *np.linspace(0.05, 2.2, 44)]
    for sigma in strengths:
        expected = np.array(Image.fromarray(NOISE).filter(ImageFilter.GaussianBlur(float(sigma))))
        assert difference(pillow_ops.gaussian_blur(NOISE, float(sigma)), expected) == 0, sigma


@IMAGES
@pytest.mark.parametrize('sigma', [0.1, 0.5, 1.0, 2.0])
def test_blur_is_pils(image, sigma):
    out = GaussianBlur((sigma, sigma))({'img': image.copy()})['img']
    assert difference(out, from_pil(to_pil(image).filter(ImageFilter.GaussianBlur(sigma)))) == 0


def test_draws_of_the_blur():
    sigmas = [GaussianBlur((0.1, 2.0))._draw_sigma() for _ in range(2000)]
    assert min(sigmas) >= 0.1 and max(sigmas) <= 2.0
    assert np.allclose(np.quantile(sigmas, [0.25, 0.5, 0.75]), [0.575, 1.05, 1.525], atol=0.08)
    with pytest.raises(ValueError, match='GaussianBlur: sigma_range'):
        GaussianBlur((2.0, 0.1))


# the stock parts of the recipe


@pytest.mark.parametrize(('height', 'width'), [(10, 40), (40, 10), (10, 12), (40, 50)])
def test_pad_fills_on_the_right_and_below(height, width):
    pad = build([recipe(32)['four_steps'][1]])
    image, mask = np.full((height, width, 3), 9, np.uint8), np.full((height, width), 3, np.uint8)
    out = pad({'img': image, 'gt_seg_map': mask, 'seg_fields': ['gt_seg_map']})
    shape = max(height, 32), max(width, 32)
    expected_image, expected_mask = np.zeros((*shape, 3), np.uint8), np.full(shape, 255, np.uint8)
    expected_image[:height, :width], expected_mask[:height, :width] = 9, 3
    assert (out['img'] == expected_image).all() and (out['gt_seg_map'] == expected_mask).all()


def test_crop_takes_every_corner_and_flip_every_other():
    rows, columns = np.mgrid[:7, :9]
    position = np.stack([rows, columns, columns], axis=2).astype(np.uint8)
    steps = build(recipe(5)['four_steps'][2:])
    draws = [
        steps({'img': position.copy(), 'gt_seg_map': columns.astype(np.uint8), 'seg_fields': ['gt_seg_map']})
        for _ in range(1500)
    ]
    corners = [(int(d['img'][..., 0].min()), int(d['img'][..., 1].min())) for d in draws]
    counts = [corners.count((y, x)) for y in range(3) for x in range(5)]
    assert sum(counts) == 1500 and min(counts) > 60  # 100 each, uniform
    assert abs(sum(d['flip'] for d in draws) - 750) < 80
    assert all((d['img'][..., 1] == d['gt_seg_map']).all() for d in draws)
    assert all((d['img'][0, 0, 1] > d['img'][0, 1, 1]) == d['flip'] for d in draws)


def test_random_apply_has_the_probability_of_its_name():
    apply = RandomApply(transforms=[lambda results: {'done': True}], prob=0.8)
    assert abs(sum(apply({'done': False})['done'] for _ in range(2000)) - 1600) < 60


@pytest.mark.parametrize(
    'name', ['unimatch_labeled', 'unimatch_unlabeled', 'allspark_labeled', 'allspark_unlabeled']
)
def test_the_recipe_runs_and_marks_padding(name, tmp_path):
    image, mask = tmp_path / 'image.png', tmp_path / 'mask.png'
    cv2.imwrite(str(image), np.full((24, 40, 3), 200, np.uint8))
    cv2.imwrite(str(mask), np.full((24, 40), 1, np.uint8))
    pipeline = build(recipe(32)[name])
    sample = {'img_path': str(image), 'label_map': None, 'reduce_zero_label': False, 'seg_fields': []}
    if name.endswith('_labeled'):
        sample['seg_map_path'] = str(mask)
    padded = 0
    for _ in range(10):
        packed = pipeline(dict(sample))
        views = set(packed['inputs'].keys())
        assert (
            views
            == {
                'unimatch_labeled': {'labeled'},
                'unimatch_unlabeled': {'weak', 'strong_1', 'strong_2'},
                'allspark_labeled': {'labeled'},
                'allspark_unlabeled': {'weak'},
            }[name]
        )
        for view in views:
            assert packed['inputs'].get(view).shape == (3, 32, 32)
        if 'weak' in views:
            outside = packed['data_samples'].weak.gt_sem_seg.data[0] == 255
            assert (outside == (packed['inputs'].weak == 0).all(0)).all()
            assert set(packed['data_samples'].weak.gt_sem_seg.data.unique().tolist()) <= {0, 255}
            padded += int(outside.any())
    assert padded or 'weak' not in views


def test_blank_map_replaces_no_labels():
    with pytest.raises(
        ValueError, match='LoadEmptyAnnotations: gt_seg_map exists, expected an image without mask'
    ):
        LoadEmptyAnnotations()({'img': NOISE, 'gt_seg_map': NOISE[..., 0]})


@pytest.mark.parametrize('geometry', ['geometry', 'four_steps'])
def test_everything_follows_from_the_workers_seed(geometry):
    steps = build([*recipe(32)[geometry], *recipe(32)['color']])

    def run(worker):
        worker_init_fn(worker, num_workers=2, rank=0, seed=5)
        return [steps({'img': NOISE.copy(), 'seg_fields': []})['img'] for _ in range(4)]

    first, again, other = run(0), run(0), run(1)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))
