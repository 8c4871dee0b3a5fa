"""Scores of images: formulas, limits, and that a rare class counts."""

import math

import pytest
import torch

from allspark_mmseg.suggestion.scores import (
    combine,
    image_scores,
    percentiles,
    pixel_divergence,
    pixel_entropy,
    pixel_margin,
    sum_classes,
)

CLASSES, SIZE = 4, (24, 32)


def random_probabilities(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(CLASSES, *SIZE, generator=generator)).softmax(0)


def certain(label: int = 0) -> torch.Tensor:
    probabilities = torch.zeros(CLASSES, *SIZE)
    probabilities[label] = 1
    return probabilities


def test_pixel_scores_are_between_certainty_and_uniform():
    uniform = torch.full((CLASSES, *SIZE), 1 / CLASSES)
    for score in (pixel_entropy, pixel_margin):
        assert score(certain()).abs().max() == 0
        torch.testing.assert_close(score(uniform), torch.ones(SIZE))
        assert 0 < score(random_probabilities()).mean() < 1


def test_divergence_is_that_of_jensen_and_shannon():
    first, second = random_probabilities(1), random_probabilities(2)
    middle = (first + second) / 2
    kl = [(each * (each / middle).log2()).sum(0) for each in (first, second)]
    torch.testing.assert_close(pixel_divergence(first, second), (kl[0] + kl[1]) / 2, rtol=1e-4, atol=1e-5)
    assert pixel_divergence(first, first).max() < 1e-6
    torch.testing.assert_close(pixel_divergence(certain(0), certain(1)), torch.ones(SIZE))


def test_image_score_is_the_weighted_mean_over_classes():
    probabilities, other = random_probabilities(3), random_probabilities(4)
    scores = image_scores(sum_classes(probabilities, other))
    pixels = SIZE[0] * SIZE[1]
    maps = {
        'uncertainty': -(probabilities * probabilities.log()).sum(0) / math.log(CLASSES),
        'disagreement': pixel_divergence(probabilities, other),
    }
    for name, values in maps.items():
        mass = probabilities.sum((1, 2))
        weights = mass / (mass + 0.001 * pixels)
        means = (probabilities * values).sum((1, 2)) / mass
        assert scores[name] == pytest.approx(((weights * means).sum() / weights.sum()).item(), abs=1e-5)
    assert scores['entropy'] == pytest.approx(maps['uncertainty'].mean().item(), abs=1e-5)


def test_an_uncertain_rare_class_outweighs_an_uncertain_corner_of_the_background():
    rare, corner = certain(), certain()
    # the same number of uncertain pixels: between the classes 0 and 2, or spread over all classes a little
    rare[:, 3:6, 3:6] = torch.tensor([0.5, 0, 0.5, 0])[:, None, None]
    corner[:, 3:6, 3:6] = torch.tensor([0.94, 0.02, 0.02, 0.02])[:, None, None]
    first, second = (image_scores(sum_classes(each)) for each in (rare, corner))
    assert first['unsure'][0] == 2
    assert first['uncertainty'] > 10 * first['entropy']
    assert first['uncertainty'] > 1.5 * second['uncertainty']


def test_windows_add_up_to_the_image():
    probabilities, other = random_probabilities(5), random_probabilities(6)
    whole = image_scores(sum_classes(probabilities, other))
    left, right = (
        sum_classes(probabilities[:, :, columns], other[:, :, columns])
        for columns in (slice(0, 10), slice(10, None))
    )
    parts = image_scores(left + right)
    assert parts['unsure'] == whole['unsure'] and parts['differ'] == whole['differ']
    for name in ('uncertainty', 'margin', 'disagreement', 'entropy'):
        assert parts[name] == pytest.approx(whole[name], abs=1e-5)


def test_without_a_second_network_there_is_no_disagreement():
    record = image_scores(sum_classes(random_probabilities()))
    assert record['disagreement'] is None and record['differ'] == []
    with pytest.raises(ValueError, match='needs two networks, found one'):
        combine([record], 'disagreement')
    assert combine([record, record], 'combined') == [0.5, 0.5]


def test_percentiles_are_ranks():
    assert percentiles([30.0, 10.0, 20.0]) == [1.0, 0.0, 0.5]
    assert percentiles([1.0, 2.0, 2.0, 9.0]) == pytest.approx([0, 0.5, 0.5, 1])
    assert percentiles([7.0]) == [1.0]


def test_combined_is_the_mean_of_two_ranks():
    records = [dict(uncertainty=u, disagreement=d, margin=0.0) for u, d in ((1, 30), (2, 10), (3, 20))]
    assert combine(records, 'combined') == [0.5, 0.25, 0.75]
    assert combine(records, 'uncertainty') == [0, 0.5, 1]
    assert combine(records, 'random') == [1, 1, 1]
