"""Counts, precision and coverage of pseudo-labels against a loop over pixels."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from allspark_mmseg.engine.label_quality import PseudoLabelQuality, check_mask, pseudo_label_matrix

C = 3
NAMES = ['sky', 'road', 'car']


def quality_of(labeled, correct, true, confident=1.0) -> PseudoLabelQuality:
    return PseudoLabelQuality(*map(np.asarray, (labeled, correct, true)), confident)


def brute_force(logits, truth, thresholds) -> tuple[list, list, float]:
    """Precision, coverage and the share of confident pixels, pixel by pixel."""
    _, height, width = logits.shape
    pixels = []
    for y, x in itertools.product(range(height), range(width)):
        probability = torch.softmax(logits[:, y, x].double(), 0)
        label = int(probability.argmax())
        pixels.append((int(truth[y, x]), label if probability[label] >= thresholds[label] else None))
    known = [(true, label) for true, label in pixels if true != 255]
    precision, coverage = [], []
    for c in range(C):
        correct = sum(true == label == c for true, label in known)
        for values, whole in (
            (precision, sum(label == c for _, label in known)),
            (coverage, sum(true == c for true, _ in known)),
        ):
            values.append(correct / whole if whole else float('nan'))
    return precision, coverage, sum(label is not None for _, label in pixels) / len(pixels)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.sampled_from([0.0, 0.4, 0.7, 0.95]), min_size=C, max_size=C),
    st.booleans(),
)
def test_values_are_those_of_a_loop_over_pixels(seed, thresholds, absent):
    generator = torch.Generator().manual_seed(seed)
    images = []
    for size in ((5, 7), (4, 3)):
        truth = torch.randint(C - absent, size, generator=generator)  # the last class may be absent
        truth[torch.rand(size, generator=generator) < 0.2] = 255
        images.append((2 * torch.randn(C, *size, generator=generator), truth))
    matrix = sum(pseudo_label_matrix(*image, torch.tensor(thresholds)) for image in images)
    quality = PseudoLabelQuality.from_matrix(matrix)
    # two images count as one image with the pixels of both
    logits = torch.cat([logits.flatten(1) for logits, _ in images], 1)[:, None]
    truth = torch.cat([truth.flatten() for _, truth in images])[None]
    precision, coverage, confident = brute_force(logits, truth, thresholds)
    np.testing.assert_allclose(quality.precision, precision)
    np.testing.assert_allclose(quality.coverage, coverage)
    assert quality.confident == pytest.approx(confident)
    for mean, values in ((quality.mean_precision, precision), (quality.mean_coverage, coverage)):
        known = [value for value in values if value == value]
        assert mean == pytest.approx(sum(known) / len(known) if known else float('nan'), nan_ok=True)


def test_half_precision_and_other_integers_count_the_same():
    logits = torch.tensor([[[8.0, 0.0, 0.0, 0.0]], [[0.0, 8.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 8.0]]])
    truth = torch.tensor([[0, 0, 1, 255]])
    expected = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]])
    for low, mask in ((logits, truth), (logits.bfloat16(), truth.to(torch.uint8))):
        assert torch.equal(pseudo_label_matrix(low, mask, torch.full((3,), 0.9)), expected)


def test_classes_without_pixels_have_no_value_and_do_not_change_the_means():
    quality = quality_of([10, 0, 4], [8, 0, 0], [20, 5, 0], 0.5)
    np.testing.assert_array_equal(quality.precision, [0.8, np.nan, 0.0])
    np.testing.assert_array_equal(quality.coverage, [0.4, 0.0, np.nan])
    assert (quality.mean_precision, quality.mean_coverage) == (0.4, 0.2)
    assert quality.scalars(NAMES) == {
        'pseudo_quality/precision.sky': 0.8,
        'pseudo_quality/precision.car': 0.0,
        'pseudo_quality/coverage.sky': 0.4,
        'pseudo_quality/coverage.road': 0.0,
        'pseudo_quality/mean_precision': 0.4,
        'pseudo_quality/mean_coverage': 0.2,
        'pseudo_quality/confident': 0.5,
    }
    rows = [line.strip('|').split('|') for line in quality.table(NAMES).splitlines() if '|' in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ['class', 'precision', 'coverage'],
        ['sky', '80.0%', '40.0%'],
        ['road', '-', '0.0%'],
        ['car', '0.0%', '-'],
    ]
    last = quality.table(NAMES).splitlines()[-1]
    assert last == 'mean precision 40.0%, mean coverage 20.0%; 50.0% of the pixels have a pseudo-label'


@pytest.mark.filterwarnings('error')
def test_without_pseudo_labels_there_is_nothing_to_describe():
    quality = quality_of([0, 0, 0], [0, 0, 0], [0, 0, 0], 0.0)
    assert np.isnan(quality.mean_precision) and np.isnan(quality.mean_coverage)
    assert quality.scalars(NAMES) == {'pseudo_quality/confident': 0.0}
    assert quality.find_drop(0.9, 0.1) is quality.find_sink(NAMES, 0.5) is None
    assert quality.find_unlearnable(NAMES) is None
    assert 'mean precision -, mean coverage -' in quality.table(NAMES)


@pytest.mark.parametrize('best, found', [(0.5, False), (0.59, False), (0.61, True)])
def test_a_drop_is_described_beyond_the_limit(best, found):
    quality = quality_of([10, 10, 0], [4, 6, 0], [10, 10, 10])
    text = quality.find_drop(best, 0.1)
    assert (text is not None) == found
    assert not found or 'from 61.0% to 50.0%' in text


@pytest.mark.parametrize(
    'labeled, true, found',
    [
        ([1, 998, 1], [30, 960, 10], True),
        ([1, 998, 1], [15, 980, 5], False),  # the class has almost all pixels
        ([10, 980, 10], [300, 600, 100], False),  # the share is at most the limit
        ([995, 3, 2], [500, 400, 100], True),
    ],
)
def test_a_sink_is_described_if_its_share_is_not_the_true_one(labeled, true, found):
    quality = quality_of(labeled, np.minimum(labeled, true), true)
    text = quality.find_sink(NAMES, 0.99)
    assert (text is not None) == found
    if found:
        name = NAMES[int(np.argmax(labeled))]
        assert text.startswith(f'{max(labeled) / 1000:.1%} of the pseudo-labels are {name}, but only ')
        assert f'{true[NAMES.index(name)] / 1000:.1%} of the pixels' in text


def test_classes_that_never_get_their_pseudo_label_are_named():
    text = quality_of([10, 3, 0], [8, 0, 0], [20, 5, 7]).find_unlearnable(NAMES)
    assert 'their pseudo-label: road, car.' in text
    # a class without pixels is not named
    assert 'pseudo-label: road.' in quality_of([9, 1, 3], [8, 0, 0], [20, 5, 0]).find_unlearnable(NAMES)
    assert quality_of([9, 1, 3], [8, 1, 0], [20, 5, 0]).find_unlearnable(NAMES) is None


@pytest.mark.parametrize(
    'truth, complaint',
    [
        (None, r'a\.png of dataloader has no mask'),
        (torch.zeros(1, 4, 6, dtype=torch.int64), r'is \(4, 5\) \(height, width\), but its mask is \(4, 6\)'),
        (torch.tensor([1, 7, 255, 3, 7]).expand(1, 4, 5), r'labels \[3, 7\]\. .* 0\.\.2, or 255'),
        (torch.tensor([0, 1, 2, 255, 0]).expand(1, 4, 5), None),
    ],
)
def test_masks_that_do_not_fit_are_refused(truth, complaint):
    sample = SegDataSample(seg_logits=PixelData(data=torch.zeros(C, 4, 5)), metainfo=dict(img_path='a.png'))
    if truth is not None:
        sample.gt_sem_seg = PixelData(data=truth)
    if complaint is None:
        check_mask(sample, C)
    else:
        with pytest.raises(ValueError, match=complaint):
            check_mask(sample, C)
