"""Adaptive thresholds against the equations of the papers, computed with NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from allspark_mmseg.mixing import paste_labels
from allspark_mmseg.pseudo_label import PseudoLabel, pseudo_label_loss
from allspark_mmseg.thresholds import (
    ClassBalancedThreshold,
    FreeMatchThreshold,
    SoftMatchThreshold,
    build_threshold,
    check_threshold,
)

from .helpers.ranks import on_two_ranks
from .helpers.tiny_models import same

K = 5
KINDS = {
    'FreeMatch': FreeMatchThreshold,
    'SoftMatch': SoftMatchThreshold,
    'ClassBalanced': ClassBalancedThreshold,
}
EACH = pytest.mark.parametrize('kind', KINDS)


def batch(images: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with a preference for some classes, and a mask with padding."""
    return 2 * torch.randn(images, K, 4, 6) + torch.arange(K)[:, None, None], torch.rand(images, 4, 6) < 0.7


def probabilities(logits: torch.Tensor, image_mask: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Softmax of all pixels (N, H, W, K), and of those that are not padding (P, K)."""
    exp = np.exp(logits.double().numpy().transpose(0, 2, 3, 1))
    every = exp / exp.sum(axis=-1, keepdims=True)
    return every, every[image_mask.numpy()]


@pytest.mark.parametrize('momentum', [0.0, 0.5])
def test_freematch_is_the_papers(momentum):
    threshold = FreeMatchThreshold(K, momentum)
    tau, p = 1 / K, np.full(K, 1 / K)
    kept = []
    for _ in range(5):
        logits, image_mask = batch()
        every, samples = probabilities(logits, image_mask)
        tau = momentum * tau + (1 - momentum) * samples.max(axis=1).mean()
        p = momentum * p + (1 - momentum) * samples.mean(axis=0)
        valid = every.max(axis=-1) >= (p / p.max() * tau)[every.argmax(axis=-1)]
        found = threshold(logits, image_mask)
        assert found.dtype == torch.bool and (found.numpy() == valid).all()
        assert threshold.mean_confidence.item() == pytest.approx(tau, rel=1e-5)
        assert threshold.class_thresholds.numpy() == pytest.approx(p / p.max() * tau, rel=1e-5)
        logged = threshold.statistics()
        assert logged['pseudo.threshold'].item() == pytest.approx(tau, rel=1e-5)
        assert logged['pseudo.threshold_min'].item() == pytest.approx(p.min() / p.max() * tau, rel=1e-5)
        kept.append(valid.mean())
    assert 0.1 < np.mean(kept) < 0.99


@pytest.mark.parametrize('momentum', [0.0, 0.5])
@pytest.mark.parametrize('n_sigma', [1.0, 3.0])
def test_softmatch_is_the_papers(momentum, n_sigma):
    threshold = SoftMatchThreshold(K, momentum, n_sigma)
    mu, variance = 1 / K, 1.0
    for _ in range(5):
        logits, image_mask = batch()
        every, samples = probabilities(logits, image_mask)
        confidence = samples.max(axis=1)
        mu = momentum * mu + (1 - momentum) * confidence.mean()
        variance = momentum * variance + (1 - momentum) * confidence.var(ddof=1)
        weight = np.exp(-((every.max(axis=-1) - mu) ** 2) / (2 * variance / n_sigma**2))
        weight[every.max(axis=-1) >= mu] = 1
        assert threshold(logits, image_mask).numpy() == pytest.approx(weight, rel=1e-4)
        assert threshold.mean_confidence.item() == pytest.approx(mu, rel=1e-5)
        assert threshold.variance.item() == pytest.approx(variance, rel=1e-4)
        assert threshold.statistics()['pseudo.threshold'].item() == pytest.approx(mu, rel=1e-5)
    assert (weight == 1).any() and (weight < 0.9).any()


@pytest.mark.parametrize('momentum', [0.0, 0.5])
@pytest.mark.parametrize('exponent', [0.0, 0.5, 1.0])
def test_class_balanced_is_its_formula(momentum, exponent):
    """With the confidences of all samples, each with the weight that is left of its step."""
    proportion, limit, bins = 0.4123, 1.5, 50  # no share of a few pixels is equal to this proportion
    threshold = ClassBalancedThreshold(K, momentum, proportion, exponent, limit, bins)
    old: list[tuple[np.ndarray, np.ndarray]] = []  # of each step: labels and bins
    for _ in range(4):
        logits = 2 * torch.randn(6, K, 8, 8) + 0.4 * torch.arange(K)[:, None, None]
        image_mask = torch.rand(6, 8, 8) < 0.7
        every, samples = probabilities(logits, image_mask)
        old.append((samples.argmax(axis=1), np.floor(samples.max(axis=1) * bins) / bins))
        steps = range(len(old))
        left = [np.full(len(old[i][0]), momentum ** (steps[-1] - i) / len(old[i][0])) for i in steps]
        label, edge, mass = (np.concatenate(parts) for parts in (*zip(*old, strict=True), left))
        share = np.bincount(label, mass, K) / mass.sum()
        raw = np.minimum((np.sort(share[share > 0])[(sum(share > 0) - 1) // 2] / share) ** exponent, limit)
        weights = raw / (raw * share).sum()
        tau = [
            max(e for e in edge[label == c] if mass[(label == c) & (edge >= e)].sum()
                >= proportion * mass[label == c].sum() - 1e-9)
            for c in range(K)
        ]  # fmt: skip
        found = threshold(logits, image_mask)
        assert threshold.class_thresholds.numpy() == pytest.approx(np.array(tau), abs=1e-6)
        assert threshold.class_weights.numpy() == pytest.approx(weights, rel=1e-4)
        predicted = every.argmax(axis=-1)
        accepted = np.floor(every.max(axis=-1) * bins) / bins >= np.array(tau)[predicted] - 1e-9
        assert found.numpy() == pytest.approx(accepted * weights[predicted], rel=1e-4)
        kept = [np.mean(accepted[image_mask.numpy() & (predicted == c)]) for c in range(K)]
    if not momentum:
        assert min(kept) >= proportion and np.mean(kept) < 0.7


def test_class_balanced_thresholds_follow_the_confidence_of_their_class():
    """A class that is never confident keeps its share; one number for all classes would drop it."""
    logits = torch.zeros(1, 3, 2, 100)
    logits[:, 0, 0] = torch.linspace(4, 8, 100)  # common and confident
    logits[:, 1, 1, :10] = torch.linspace(0.5, 1.5, 10)  # rare, hardly more probable than the others
    image_mask = torch.ones(1, 2, 100, dtype=torch.bool)
    image_mask[:, 1, 10:] = False
    threshold = ClassBalancedThreshold(3, momentum=0.0)
    weight = threshold(logits, image_mask)
    assert (weight[0, 1, :10] > 0).sum() in (5, 6)
    common, rare, never = threshold.class_thresholds.tolist()
    assert common > 0.9 > 0.65 > rare and never == 0
    assert threshold.class_weights[1] / threshold.class_weights[0] == pytest.approx(10**0.5)
    logged = {name: float(value) for name, value in threshold.statistics().items()}
    # the class that was never predicted has no threshold
    assert logged == pytest.approx({'pseudo.threshold': (common + rare) / 2, 'pseudo.threshold_min': rare})


def test_initial_statistics():
    for kind in (FreeMatchThreshold, SoftMatchThreshold):
        assert kind(K).class_thresholds.tolist() == pytest.approx([1 / K] * K)
    assert SoftMatchThreshold(K).variance == 1
    balanced = ClassBalancedThreshold(K).eval()
    assert balanced(*batch()).eq(1).all() and balanced.class_thresholds.eq(0).all()
    assert all(value == 0 for value in balanced.statistics().values())


def test_classes_of_equal_probability_have_the_global_threshold():
    """Each class is predicted alike: FreeMatch has one threshold, the mean confidence."""
    logits = 3 * torch.eye(K)[None, :, :, None].repeat(2, 1, 1, 4)  # row k predicts class k
    threshold = FreeMatchThreshold(K, momentum=0.5)
    for _ in range(3):
        threshold(logits, torch.ones(2, K, 4, dtype=torch.bool))
    confidence = logits.softmax(1).max().item()
    expected = confidence + (1 / K - confidence) / 8
    assert threshold.class_thresholds.tolist() == pytest.approx([expected] * K, rel=1e-5)
    rare = logits.clone()
    rare[:, :, 0] = rare[:, :, 1]
    threshold(rare, torch.ones(2, K, 4, dtype=torch.bool))
    assert threshold.class_thresholds.argmin() == 0 and threshold.class_thresholds.argmax() == 1


@EACH
def test_constant_confidence_keeps_all_pixels(kind):
    """Also without any variance."""
    logits = torch.zeros(1, K, 3, 3)
    logits[:, 2] = 4.0
    threshold = KINDS[kind](K, momentum=0.0)
    for _ in range(2):
        judged = threshold(logits, torch.ones(1, 3, 3, dtype=torch.bool)).float()
    torch.testing.assert_close(judged, torch.ones(1, 3, 3), rtol=0, atol=1e-3)


@EACH
def test_there_is_no_gradient(kind):
    threshold = KINDS[kind](K)
    logits, image_mask = batch()
    before = logits.clone()
    assert not threshold(logits.requires_grad_(), image_mask).requires_grad
    assert torch.equal(logits, before)
    assert not list(threshold.parameters())
    assert not any(value.requires_grad for value in threshold.buffers())


@EACH
def test_only_pixels_in_training_mode_count(kind):
    threshold = KINDS[kind](K, momentum=0.5)
    threshold(*batch())
    before = {name: value.clone() for name, value in threshold.state_dict().items()}
    logits, image_mask = batch()
    judged = threshold.eval()(logits, image_mask)
    assert same(before, threshold.state_dict())
    assert torch.equal(judged, threshold.judge(logits.argmax(1), logits.softmax(1).amax(1)))
    threshold.train()(logits, torch.zeros_like(image_mask))
    assert same(before, threshold.state_dict()), 'a batch of padding changed the statistics'
    threshold(logits, image_mask)
    assert not any(torch.equal(value, before[name]) for name, value in threshold.state_dict().items())
    # what lies on padding does not matter
    again = KINDS[kind](K, momentum=0.5)
    again.load_state_dict(before)
    again(torch.where(image_mask[:, None], logits, 9 * torch.randn_like(logits)), image_mask)
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, threshold.state_dict()[name])


def images_of_rank(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(rank)
    return batch(1 + 2 * rank)


def _update_on_one_rank(rank: int) -> dict:
    made = {name: kind(K, momentum=0.5) for name, kind in KINDS.items()}
    for threshold in made.values():
        threshold(*images_of_rank(rank))
    return {name: threshold.state_dict() for name, threshold in made.items()}


def test_two_processes_share_the_statistics(tmp_path):
    """They equal those of one process with all images."""
    found = on_two_ranks(tmp_path, _update_on_one_rank)
    for name, kind in KINDS.items():
        assert same(found[0][name], found[1][name])
        alone = kind(K, momentum=0.5)
        alone(*(torch.cat(parts) for parts in zip(*map(images_of_rank, (0, 1)), strict=True)))
        for key, value in alone.state_dict().items():
            torch.testing.assert_close(found[0][name][key], value)


# pseudo-labels


def labels(kind: str, momentum: float = 0.0) -> PseudoLabel:
    logits, image_mask = batch()
    return PseudoLabel.from_logits(logits, KINDS[kind](K, momentum), ~image_mask)


def test_freematch_makes_valid_pixels():
    logits, image_mask = batch()
    threshold = FreeMatchThreshold(K, 0.0)
    pseudo = PseudoLabel.from_logits(logits, threshold, ~image_mask)
    confident = pseudo.confidence >= threshold.class_thresholds[pseudo.label]
    assert torch.equal(pseudo.valid, confident & image_mask) and pseudo.weight is None
    assert (confident & ~image_mask).any() and (~confident & image_mask).any()


@pytest.mark.parametrize('average_over', ['confident', 'image', 'all'])
def test_softmatch_weights_the_loss_of_every_pixel(average_over):
    pseudo = labels('SoftMatch')
    assert torch.equal(pseudo.valid, pseudo.image_mask)
    student = torch.randn(2, K, 4, 6, requires_grad=True)
    loss = pseudo_label_loss(student, pseudo, average_over)
    per_pixel = F.cross_entropy(student, pseudo.label, reduction='none') * pseudo.weight * pseudo.image_mask
    count = pseudo.label.numel() if average_over == 'all' else pseudo.image_mask.sum()
    torch.testing.assert_close(loss, per_pixel.sum() / count)
    loss.backward()
    assert student.grad.isfinite().all() and student.grad.any()
    expected = pseudo.weight[pseudo.image_mask].mean()
    torch.testing.assert_close(pseudo.confident_share, expected)
    assert 0.1 < expected < 0.95


def test_mixing_mixes_the_weights_if_there_are_some():
    mask = torch.rand(2, 4, 6) < 0.5
    pseudo, other = labels('SoftMatch'), labels('SoftMatch')
    mixed = paste_labels(pseudo, other, mask)
    assert torch.equal(mixed.weight, torch.where(mask, other.weight, pseudo.weight))
    assert not torch.equal(mixed.weight, pseudo.weight)
    assert paste_labels(labels('FreeMatch'), labels('FreeMatch'), mask).weight is None


# arguments


@pytest.mark.parametrize('threshold', [-0.1, 1.1, float('nan'), 'high', None])
def test_thresholds_outside_of_zero_to_one_are_refused(threshold):
    for check in (check_threshold, lambda *arguments: build_threshold(*arguments, K)):
        with pytest.raises(ValueError, match=f'Some: threshold is {threshold!r}, expected a confidence in'):
            check('Some', threshold)


def test_numbers_stay_numbers():
    for possible in (0.0, 0.5, 1):
        check_threshold('Some', possible)
        assert build_threshold('Some', possible, K) is possible


def test_dicts_become_modules():
    made = build_threshold('Some', dict(type='SoftMatch', momentum=0.9, n_sigma=1), K)
    assert isinstance(made, SoftMatchThreshold) and (made.momentum, made.n_sigma) == (0.9, 1)
    default = build_threshold('Some', dict(type='FreeMatch'), K)
    assert isinstance(default, FreeMatchThreshold) and default.momentum == 0.999
    assert default.mean_probability.shape == (K,)
    assert build_threshold('Some', dict(type='SoftMatch'), K).n_sigma == 2


@pytest.mark.parametrize(
    ('threshold', 'message'),
    [
        (dict(momentum=0.9), r"Some: threshold\.type is None, expected one of \('FreeMatch', 'Soft"),
        (dict(type='Free'), r"Some: threshold\.type is 'Free', expected one of"),
        (dict(type='FreeMatch', n_sigma=2), r"Some: a key of threshold is 'n_sigma', expected one of "),
        (dict(type='FreeMatch', num_classes=2), "a key of threshold is 'num_classes', expected one of "),
        (dict(type='FreeMatch', momentum=1.0), 'FreeMatchThreshold: momentum is 1.0, expected the share of'),
        (dict(type='SoftMatch', momentum=-0.1), 'SoftMatchThreshold: momentum is -0.1, expected'),
        (dict(type='SoftMatch', momentum='x'), "SoftMatchThreshold: momentum is 'x', expected"),
        (dict(type='SoftMatch', n_sigma=0), 'SoftMatchThreshold: n_sigma is 0, expected a number above 0'),
        (dict(type='ClassBalanced', proportion=0), r'Threshold: proportion is 0, expected a share in \(0, 1'),
        (dict(type='ClassBalanced', exponent=-1), 'Threshold: exponent is -1, expected a number from 0 on'),
        (dict(type='ClassBalanced', max_weight=0.5), 'max_weight is 0.5, expected a number from 1 on'),
        (dict(type='ClassBalanced', bins=1), 'bins is 1, expected an integer from 2 on'),
    ],
)
def test_bad_dicts_are_refused(threshold, message):
    with pytest.raises(ValueError, match=message):
        build_threshold('Some', threshold, K)
