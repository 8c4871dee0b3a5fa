"""Images of any number of bands and of 8, 16 and 32 bits: each band is treated as an image of one band."""

import random

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from allspark_mmseg.datasets import (
    ColorJitter,
    GaussianBlur,
    RandomGrayscale,
    RandomResizeLongSide,
    RandomScaleCropFlip,
    RareClassCrop,
    ScaleIntensity,
    pillow_ops,
)

TOLERANCE = dict(uint8=0, uint16=1, float32=1e-4)
DTYPES = tuple(TOLERANCE)
ALIKE = {
    'RandomResizeLongSide': lambda: RandomResizeLongSide((0.4, 1.6)),
    'RandomResizeLongSide cv2': lambda: RandomResizeLongSide((0.4, 1.6), backend='cv2'),
    'RandomScaleCropFlip': lambda: RandomScaleCropFlip((17, 14), (0.4, 1.6)),
    'RareClassCrop': lambda: RareClassCrop((17, 14)),
    'GaussianBlur': lambda: GaussianBlur((0.1, 3.0)),
    'brightness': lambda: ColorJitter(brightness=0.6),
    'ScaleIntensity': lambda: ScaleIntensity(7, 150),
}


def picture(seed: int, dtype: str, bands: tuple[int, ...], size=(21, 30)) -> np.ndarray:
    top = np.iinfo(dtype).max if dtype.startswith('u') else 255
    return np.random.default_rng(seed).uniform(0, top, (*size, *bands)).astype(dtype)


def run(make, img: np.ndarray, seed: int) -> np.ndarray:
    np.random.seed(seed)
    random.seed(seed)
    mask = (np.arange(img.shape[0] * img.shape[1]).reshape(img.shape[:2]) % 3).astype(np.uint8)
    results = make()({'img': img.copy(), 'gt_seg_map': mask, 'seg_fields': ['gt_seg_map']})
    return results['img']


@pytest.mark.parametrize('name', ALIKE)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES), bands=st.sampled_from([(1,), (3,), (4,), (7,)])
)
def test_each_band_is_treated_as_an_image_of_one_band(name, seed, dtype, bands):
    img = picture(seed, dtype, bands)
    out = run(ALIKE[name], img, seed)
    assert out.ndim == 3 and out.shape[2:] == bands and out.flags.c_contiguous
    assert out.dtype == ('float32' if name == 'ScaleIntensity' else dtype)
    for band in range(bands[0]):
        alone = run(ALIKE[name], np.ascontiguousarray(img[..., band]), seed)
        # OpenCV adds floats in another order, depending on the number of bands
        np.testing.assert_allclose(
            out[..., band], alone, rtol=0 if dtype == 'uint8' else 1e-5, atol=TOLERANCE[dtype]
        )


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('bands', [(1,), (4,), (7,)])
def test_contrast_of_other_than_three_bands_is_that_of_each_band(dtype, bands):
    img = picture(0, dtype, bands)
    out = pillow_ops.contrast(img, 0.3)
    for band in range(bands[0]):
        np.testing.assert_array_equal(out[..., band], pillow_ops.contrast(img[..., band].copy(), 0.3))
    flat = np.full((4, 5, 4), 77, dtype)
    np.testing.assert_array_equal(pillow_ops.contrast(flat, 0.3), flat)


def test_three_bands_of_one_byte_are_those_of_pil_and_opencv():
    """Bit for bit, as before other bands were possible."""
    img = picture(3, 'uint8', (3,))
    pil = Image.fromarray(img)
    for height, width in [(9, 30), (21, 12), (11, 15), (40, 12)]:
        expected = np.array(pil.resize((width, height), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(pillow_ops.resize(img, height, width), expected)
    np.testing.assert_array_equal(pillow_ops.resize(img, 40, 50), cv2.resize(img, (50, 40)))
    for sigma in (0.3, 0.9, 1.3, 1.7, 2.4):
        expected = np.array(pil.filter(ImageFilter.GaussianBlur(sigma)))
        np.testing.assert_array_equal(pillow_ops.gaussian_blur(img, sigma), expected)


@pytest.mark.parametrize('dtype', ['uint16', 'float32'])
@pytest.mark.parametrize(
    'operation',
    [
        lambda img: pillow_ops.resize(img, 9, 13),
        lambda img: pillow_ops.resize(img, 30, 44),
        lambda img: pillow_ops.brightness(img, 0.7),
        lambda img: pillow_ops.contrast(img, 1.2),
        lambda img: pillow_ops.saturation(img, 0.4),
        lambda img: pillow_ops.grayscale(img),
        lambda img: pillow_ops.hue(img, 0.21),
        lambda img: pillow_ops.gaussian_blur(img, 0.8),
        lambda img: pillow_ops.gaussian_blur(img, 1.9),
    ],
    ids=['shrink', 'enlarge', 'brightness', 'contrast', 'saturation', 'gray', 'hue', 'blur', 'wide blur'],
)
def test_more_bits_give_the_same_image(dtype, operation):
    """The formulas are those of one byte: the results differ by rounding only, and by PIL's 8-bit hue."""
    small = picture(1, 'uint8', (3,))
    small = cv2.GaussianBlur(small, (0, 0), 2)
    scale = 256 if dtype == 'uint16' else 1
    out = operation(small.astype(dtype) * np.array(scale, dtype)).astype(np.float64) / scale
    assert np.abs(out - operation(small)).max() < 3.5


@pytest.mark.parametrize('operation', ['saturation', 'hue', 'grayscale'])
@pytest.mark.parametrize('bands', [(), (1,)])
def test_one_band_has_no_color(operation, bands):
    img = picture(2, 'uint8', bands)
    arguments = () if operation == 'grayscale' else (0.2,)
    np.testing.assert_array_equal(getattr(pillow_ops, operation)(img, *arguments), img)
    three = np.repeat(img.reshape(21, 30, 1), 3, axis=2)  # what PIL does with a gray image in three bands
    expected = getattr(pillow_ops, operation)(three, *arguments)
    assert np.abs(expected.astype(int) - three).max() <= 1


@pytest.mark.parametrize(
    'transform', [ColorJitter(hue=0.2), ColorJitter(saturation=0.2), RandomGrayscale(0.5)], ids=repr
)
def test_transforms_of_color_refuse_four_bands(transform):
    name = type(transform).__name__
    with pytest.raises(ValueError, match=rf'^{name}: the image a\.tif has 4 bands, expected 1 or 3'):
        transform({'img': picture(0, 'uint8', (4,)), 'img_path': 'a.tif'})


@pytest.mark.parametrize('name', [name for name in ALIKE if name != 'ScaleIntensity'])
def test_other_types_are_refused_by_name(name):
    owner = {'brightness': 'ColorJitter'}.get(name, name.split()[0])
    with pytest.raises(ValueError, match=rf'^{owner}: .* the type float64, expected .* uint16'):
        run(ALIKE[name], np.zeros((21, 30, 3)), 0)


def test_a_band_of_zeros_does_not_darken_the_others():
    """Pillow takes four bands for RGBA, and weights the first three by the fourth."""
    img = np.full((40, 40, 4), 200, np.uint8)
    img[..., 3] = 0
    out = run(lambda: RandomScaleCropFlip((10, 10), (0.5, 0.5)), img, 0)
    assert (out[..., :3] == 200).all() and (out[..., 3] == 0).all()


def test_scaled_intensity_is_the_formula():
    img = np.array([[0, 100, 2047, 4095, 5000]], np.uint16)
    out = ScaleIntensity(100, 4095)({'img': img})['img']
    np.testing.assert_allclose(out, [[0, 0, 255 * 1947 / 3995, 255, 255]], rtol=1e-6)
    assert len(np.unique(ScaleIntensity(0, 4095)({'img': np.arange(4096)[None]})['img'])) == 4096
    three = ScaleIntensity(100, 4095, bands=3)({'img': img})['img']
    assert three.shape == (1, 5, 3) and (three == out[..., None]).all()
    holes = ScaleIntensity(0.0, 1.0)({'img': np.array([[np.nan, 0.5]])})['img']
    np.testing.assert_array_equal(holes, np.float32([[0, 127.5]]))


def test_each_band_can_have_its_range():
    out = ScaleIntensity((0, 100), (10, 200))({'img': np.array([[[5, 150]]])})['img']
    np.testing.assert_array_equal(out, np.float32([[[127.5, 127.5]]]))
    with pytest.raises(ValueError, match=r'has 3 bands, but low and high have 2'):
        ScaleIntensity((0, 100), (10, 200))({'img': np.zeros((1, 1, 3))})
    with pytest.raises(ValueError, match=r'only an image of one band can be repeated'):
        ScaleIntensity(0, 1, bands=3)({'img': np.zeros((1, 1, 4))})


@pytest.mark.parametrize('arguments', [dict(low=1, high=1), dict(low=0, high=1, bands=0)])
def test_scale_intensity_rejects(arguments):
    with pytest.raises(ValueError, match=r'ScaleIntensity: .* expected'):
        ScaleIntensity(**arguments)
