"""The diverse selection: its rule, near-duplicates, and that it covers the groups."""

import numpy as np
import pytest

from allspark_mmseg.suggestion.selection import nearest_squared, preselect, select_diverse, standardize

NOTHING = np.zeros((0, 8), np.float32)


def groups(sizes: list[int], spread: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around random centers, and the group of each."""
    generator = np.random.default_rng(seed)
    centers = np.eye(8)[: len(sizes)]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    features = centers[labels] + spread / np.sqrt(8) * generator.normal(size=(len(labels), 8))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), labels


def test_each_group_gets_one_image():
    features, labels = groups([30, 20, 10, 5])
    chosen = select_diverse(features, [1.0] * len(features), NOTHING, 4)
    assert sorted(labels[choice.index] for choice in chosen) == [0, 1, 2, 3]
    assert chosen[0].distance is None and all(choice.distance > 0.5 for choice in chosen[1:])


def test_groups_with_labeled_images_come_last():
    features, labels = groups([20, 20, 20])
    chosen = select_diverse(features, [1.0] * 60, features[:1], 2)
    assert sorted(labels[choice.index] for choice in chosen) == [1, 2]


def test_the_scores_decide_between_equal_groups():
    features, labels = groups([20, 20])
    for high in (0, 1):
        scores = np.where(labels == high, 1.0, 0.1)
        assert labels[select_diverse(features, scores, NOTHING, 1)[0].index] == high


def test_a_choice_has_the_largest_gain():
    features, _ = groups([9, 7, 8], spread=1)
    scores = np.random.default_rng(1).uniform(size=len(features))
    (choice,) = select_diverse(features, scores, features[:3], 1)
    distances = ((features[:, None] - features[None]) ** 2).sum(-1)
    nearest = distances[:, :3].min(1)
    gains = [(scores * np.maximum(nearest - column, 0)).sum() for column in distances]
    assert choice.index == int(np.argmax(gains))


def test_near_duplicates_are_taken_last_and_named():
    features, _ = groups([6, 6], spread=0.6)
    features[7:10] = features[6]
    features[10] = features[0]
    chosen = select_diverse(features, [1.0] * 12, features[:1], 12)
    order = [choice.index for choice in chosen]
    assert sorted(order) == list(range(12))
    late = [choice for choice in chosen if choice.is_duplicate]
    # images 0 and 10 are labeled; of 6, 7, 8 and 9 one is not a duplicate
    assert {0, 10} <= {choice.index for choice in late} and len({6, 7, 8, 9} & {c.index for c in late}) == 3
    assert [choice.is_duplicate for choice in chosen] == sorted(choice.is_duplicate for choice in chosen)
    assert max(len(choice.duplicates) for choice in chosen) >= 3


def test_standardized_features_have_length_1_and_ignore_scale_and_constant_channels():
    features = np.random.default_rng(0).normal(size=(50, 6))
    features[:, 2] = 7
    scaled = standardize(features, features)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-5)
    assert (scaled[:, 2] == 0).all()
    mixed = np.concatenate([features, 100 + features])[::-1]
    rows = np.arange(99, 49, -1)  # those of features
    np.testing.assert_allclose(standardize(features, mixed, rows), scaled, atol=1e-6)
    other = features * [1, 5, 1, 0.1, 1, 3] + 4
    np.testing.assert_allclose(standardize(other, other), scaled, atol=1e-4)


def test_preselection_takes_the_highest_scores_in_order():
    assert preselect([0.2, 0.9, 0.9, 0.5], 3) == [1, 2, 3]


def test_nearest_distances():
    features, _ = groups([5, 5])
    expected = ((features[:, None] - features[None, :3]) ** 2).sum(-1).min(1)
    np.testing.assert_allclose(nearest_squared(features, features[:3]), expected, atol=1e-5)
    assert (nearest_squared(features, NOTHING) == 4).all()


@pytest.mark.parametrize('count', [1, 3, 10])
def test_there_are_never_more_choices_than_candidates(count):
    features, _ = groups([2, 1])
    assert len(select_diverse(features, [0.0] * 3, NOTHING, count)) == min(count, 3)
