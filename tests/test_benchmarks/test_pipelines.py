"""The plain pipeline against the package's own, for the same draws, and both as the benchmark runs them."""

import random

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from allspark_mmseg.datasets import pillow_ops
from allspark_mmseg.datasets.transforms import RandomScaleCropFlip
from benchmarks import pipelines, plain_pipeline

GRAY_LEVEL = 1 / 255 / 0.224  # in units of the smallest deviation


@pytest.fixture
def files(tmp_path):
    """Two images and masks; their mask repeats the image's red channel modulo 7."""
    paths = []
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate([(40, 60), (60, 40)]):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        paths.append((str(tmp_path / f'{index}.png'), str(tmp_path / f'{index}_mask.png')))
        Image.fromarray(image).save(paths[-1][0])
        Image.fromarray(image[..., 0] % 7).save(paths[-1][1])
    return paths


@pytest.mark.parametrize('crop', [30, 75])
def test_same_geometry_for_the_same_draws(files, crop):
    for seed in range(20):
        image_path, mask_path = files[seed % 2]
        image = Image.open(image_path)
        results = {
            'img': np.array(image)[..., ::-1].copy(),
            'gt_seg_map': np.array(Image.open(mask_path)),
            'seg_fields': ['gt_seg_map'],
        }
        np.random.seed(seed)
        out = RandomScaleCropFlip((crop, crop))(results)

        width, height = out['scale']
        np.random.seed(seed)
        np.random.randint(30, 121)
        top, left = (np.random.randint(max(length - crop, 0) + 1) for length in (height, width))
        draws = plain_pipeline.Geometry(width, height, left, top, out['flip'])
        expected, mask = plain_pipeline.shape(image, Image.open(mask_path), draws, crop)
        assert np.abs(out['img'][..., ::-1].astype(int) - np.array(expected)).max() <= 1
        assert (out['gt_seg_map'] == np.array(mask)).all()


@pytest.mark.parametrize(
    ('name', 'amount'),
    [
        ('brightness', 0.6), ('brightness', 1.4), ('contrast', 0.6), ('contrast', 1.4), ('saturation', 0.6),
        ('saturation', 1.4), ('hue', -0.2), ('hue', 0.2), ('grayscale', 1.0), ('blur', 0.7), ('blur', 1.9),
    ],
)  # fmt: skip
def test_same_colors_for_the_same_draws(files, name, amount):
    image = Image.open(files[0][0])
    ours = getattr(pillow_ops, 'gaussian_blur' if name == 'blur' else name)
    arguments = [] if name == 'grayscale' else [amount]
    out = ours(np.array(image)[..., ::-1].copy(), *arguments)[..., ::-1]
    expected = np.array(plain_pipeline.COLOR[name](image, amount))
    assert np.abs(out.astype(int) - expected).max() <= 1
    assert np.abs(expected.astype(int) - np.array(image)).max() > 1


def test_the_plain_side_draws_with_the_published_probabilities():
    rng = random.Random(0)
    draws = [dict(plain_pipeline.draw_color(rng)) for _ in range(3000)]
    for name, share in (('hue', 0.8), ('contrast', 0.8), ('grayscale', 0.2), ('blur', 0.5)):
        assert abs(np.mean([name in draw for draw in draws]) - share) < 0.04
    geometry = [plain_pipeline.draw_geometry(rng, 60, 40, 50) for _ in range(3000)]
    assert {draw.width for draw in geometry} == set(range(30, 121))
    assert all(draw.height == int(40 * draw.width / 60 + 0.5) for draw in geometry)
    assert all(draw.left + 50 <= max(draw.width, 50) for draw in geometry)
    assert abs(np.mean([draw.flip for draw in geometry]) - 0.5) < 0.04


@pytest.mark.parametrize('labeled', [True, False])
def test_both_sides_yield_the_same_shapes_and_types(files, labeled):
    paths = files * 3
    masks = paths if labeled else [(image, None) for image, _ in paths]
    sides = [
        pipelines.reference_images(masks, 48, seed=0, labeled=labeled),
        pipelines.our_images(paths, 48, seed=0, labeled=labeled),
    ]
    for samples in map(list, sides):
        assert len(samples) == 6
        for image, mask in samples:
            assert image.shape == (3, 48, 48) and image.dtype == torch.float32
            assert mask.shape == (48, 48) and mask.dtype == torch.int64
            assert set(mask.unique().tolist()) <= ({*range(7), 255} if labeled else {0, 255})


def test_both_sides_normalize_equally(files, monkeypatch):
    # without scaling, cropping, flipping and color the two sides have nothing left to draw
    draws = plain_pipeline.Geometry(60, 40, 0, 0, False)
    monkeypatch.setattr(plain_pipeline, 'draw_geometry', lambda *arguments: draws)
    fixed = RandomScaleCropFlip((60, 60), ratio_range=(1.0, 1.0), flip_prob=0.0)
    build = pipelines.our_pipeline

    def without_draws(crop, labeled):
        pipeline = build(crop, labeled)
        pipeline.transforms[2] = fixed
        return pipeline

    monkeypatch.setattr(pipelines, 'our_pipeline', without_draws)
    (expected, _), (out, mask) = (
        next(iter(side(files[:1], 60, seed=0, labeled=False)))
        for side in (pipelines.reference_images, pipelines.our_images)
    )
    assert (out - expected).abs().max() < 1e-4 * GRAY_LEVEL + 1e-5
    assert (mask[:40] == 0).all() and (mask[40:] == 255).all()
