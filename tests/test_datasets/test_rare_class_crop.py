"""Crops of rare classes: their content, their distribution, and what stays as in RandomScaleCropFlip."""

import numpy as np
import pytest
from mmseg.registry import TRANSFORMS as MMSEG_TRANSFORMS

from allspark_mmseg.datasets.transforms import LoadEmptyAnnotations, RandomScaleCropFlip, RareClassCrop

PLAIN = np.zeros((30, 44), np.uint8)
FIXED = dict(ratio_range=(1.0, 1.0), flip_prob=0.0)


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(0)


def with_labels(*places):
    """A mask of zeros with squares; each place is (label, row, column, length of a side)."""
    mask = PLAIN.copy()
    for label, row, column, side in places:
        mask[row : row + side, column : column + side] = label
    return mask


def sample(mask, image=None):
    image = np.repeat(mask[..., None], 3, axis=2) if image is None else image
    return {'img': image, 'gt_seg_map': mask, 'seg_fields': ['gt_seg_map']}


def positions(shape):
    """An image whose channels are row, column and 1: padding is 0."""
    rows, columns = np.indices(shape)
    return np.stack([rows, columns, np.ones_like(rows)], axis=2).astype(np.uint8)


def corners(step, mask, draws):
    images = [step(sample(mask, positions(mask.shape)))['img'] for _ in range(draws)]
    return np.array([image[0, 0, :2] for image in images])


def is_uniform(counts, quantile):
    """Chi-squared test; ``quantile`` is the 99.9 % quantile for ``len(counts) - 1`` degrees of freedom."""
    expected = np.sum(counts) / len(counts)
    return ((np.array(counts) - expected) ** 2 / expected).sum() < quantile


@pytest.mark.parametrize('crop', [(8, 8), (7, 20), (40, 12), (12, 60), (100, 100)])
@pytest.mark.parametrize('place', [(0, 0), (29, 43), (0, 43), (17, 5)])
def test_the_crop_contains_the_class(crop, place):
    mask = with_labels((3, *place, 1))
    mask[10:20, 20:30] = 255
    step = RareClassCrop(crop, rare_prob=1.0, rare_power=50.0, ratio_range=(1.0, 1.7))
    for _ in range(40):
        out = step(sample(mask))
        assert out['img'].shape == (*crop, 3) and out['gt_seg_map'].shape == crop
        assert (out['gt_seg_map'] == 3).any()


def test_a_class_that_the_resizing_removes_is_not_drawn():
    mask = with_labels((3, 6, 6, 1), (4, 20, 20, 6))
    step = RareClassCrop((6, 6), rare_prob=1.0, rare_power=50.0, ratio_range=(0.5, 0.5))
    labels = [set(np.unique(step(sample(mask))['gt_seg_map'])) for _ in range(40)]
    kept = RandomScaleCropFlip((30, 44), ratio_range=(0.5, 0.5))(sample(mask))['gt_seg_map']
    assert not (kept == 3).any()
    assert all(4 in found for found in labels)


@pytest.mark.parametrize('crop', [(9, 16), (40, 50)])
def test_image_and_mask_stay_aligned(crop):
    mask = np.random.randint(0, 5, PLAIN.shape).astype(np.uint8)
    step = RareClassCrop(crop, rare_prob=1.0, ratio_range=(1.0, 1.0), flip_prob=0.5)
    flipped = 0
    for _ in range(30):
        out = step(sample(mask, positions(mask.shape)))
        rows, columns, inside = (out['img'][..., channel].astype(int) for channel in range(3))
        assert (out['gt_seg_map'][inside == 0] == 255).all()
        assert (out['gt_seg_map'][inside == 1] == mask[rows, columns][inside == 1]).all()
        # a crop covers as much of the image as possible
        assert inside.sum() == min(crop[0], 30) * min(crop[1], 44)
        flipped += out['flip']
    assert 0 < flipped < 30


@pytest.mark.parametrize(
    ('power', 'share'), [(0.0, [1 / 3, 1 / 3, 1 / 3]), (1.0, [0.2, 0.8, 1]), (2.0, [0.04, 0.64, 1])]
)
def test_classes_are_drawn_with_the_power_of_the_inverse_count(power, share):
    mask = np.full(PLAIN.shape, 255, np.uint8)
    mask[:2, :10], mask[14, :5], mask[28, :4] = 0, 1, 2  # 20, 5 and 4 pixels, never in one crop
    step = RareClassCrop((6, 10), rare_prob=1.0, rare_power=power, **FIXED)
    drawn = [set(np.unique(step(sample(mask))['gt_seg_map'])) - {255} for _ in range(3000)]
    assert all(len(found) == 1 for found in drawn)
    counts = np.array([drawn.count({label}) for label in range(3)])
    expected = 3000 * np.array(share) / sum(share)
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # 2 degrees of freedom, p = 0.001


def test_pixels_and_positions_are_uniform():
    mask = np.full(PLAIN.shape, 255, np.uint8)
    mask[12, 10], mask[12, 30] = 2, 2
    found = corners(RareClassCrop((4, 5), rare_prob=1.0, **FIXED), mask, 4000)
    places = [(row, column) for row in range(9, 13) for column in [*range(6, 11), *range(26, 31)]]
    counts = [(found == place).all(axis=1).sum() for place in places]
    assert sum(counts) == 4000 and is_uniform(counts, 72.1)


def test_positions_are_uniform_at_the_border():
    mask = with_labels((2, 1, 42, 1))
    found = corners(RareClassCrop((4, 5), rare_prob=1.0, rare_power=50.0, **FIXED), mask, 2000)
    places = [(row, column) for row in (0, 1) for column in (38, 39)]
    counts = [(found == place).all(axis=1).sum() for place in places]
    assert sum(counts) == 2000 and is_uniform(counts, 16.3)


def test_probability_of_a_rare_crop():
    step = RareClassCrop((4, 4), rare_prob=0.3, rare_power=50.0, **FIXED)
    mask = with_labels((2, 15, 15, 1))
    hits = sum((step(sample(mask))['gt_seg_map'] == 2).any() for _ in range(3000))
    expected = 3000 * (0.3 + 0.7 * 16 / (27 * 41))
    assert abs(hits - expected) < 4 * (3000 * 0.3 * 0.7) ** 0.5


def equal_runs(mine, sample_of, count=20):
    """Whether a transform and RandomScaleCropFlip give the same outputs and draw the same random numbers."""
    states, outputs = [], []
    for step in (mine, RandomScaleCropFlip(mine.crop_size)):
        np.random.seed(5)
        outputs.append([step(sample_of()) for _ in range(count)])
        states.append(np.random.random_sample())
    for ours, theirs in zip(*outputs, strict=True):
        if ours.keys() != theirs.keys() or not all(np.array_equal(ours[k], theirs[k]) for k in ours):
            return False
    return states[0] == states[1]


def test_without_rare_crops_it_is_the_other_transform():
    mask = np.random.randint(0, 5, PLAIN.shape).astype(np.uint8)
    image = np.random.randint(0, 256, (*PLAIN.shape, 3)).astype(np.uint8)
    assert equal_runs(RareClassCrop((20, 20), rare_prob=0.0), lambda: sample(mask, image))
    assert not equal_runs(RareClassCrop((20, 20), rare_prob=0.5), lambda: sample(mask, image))


@pytest.mark.parametrize('kind', ['no map', 'LoadEmptyAnnotations', 'other map', 'one class', 'all ignored'])
def test_images_without_classes_are_cropped_as_before(kind):
    image = np.random.randint(0, 256, (*PLAIN.shape, 3)).astype(np.uint8)
    make = {
        'no map': lambda: {'img': image},
        'LoadEmptyAnnotations': lambda: LoadEmptyAnnotations()({'img': image}),
        'other map': lambda: {'img': image, 'depth': image[..., 0], 'seg_fields': ['depth']},
        'one class': lambda: sample(PLAIN + 1, image),
        'all ignored': lambda: sample(PLAIN + 255, image),
    }
    assert equal_runs(RareClassCrop((20, 20), rare_prob=1.0), make[kind])


def test_a_class_that_is_gone_after_resizing_leaves_the_usual_crop():
    mask = np.full((30, 44), 255, np.uint8)
    mask[0, 0] = 1
    step = RareClassCrop((10, 10), rare_prob=1.0, ratio_range=(0.5, 0.5), flip_prob=0.0)
    assert (step(sample(mask))['gt_seg_map'] == 255).all()


def test_config_name_and_text():
    arguments = dict(crop_size=(8, 9), ratio_range=(0.5, 2.0), flip_prob=0.5, rare_prob=0.25, rare_power=0.5)
    step = MMSEG_TRANSFORMS.build(dict(type='allspark_mmseg.RareClassCrop', **arguments))
    text = ', '.join(f'{name}={value}' for name, value in arguments.items())
    assert repr(step) == f'RareClassCrop({text})'


@pytest.mark.parametrize(
    'arguments', [dict(rare_prob=1.1), dict(rare_prob=-0.1), dict(rare_power=-1.0), dict(flip_prob=2)]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=rf'RareClassCrop: {next(iter(arguments))} is .* expected'):
        RareClassCrop((4, 4), **arguments)
