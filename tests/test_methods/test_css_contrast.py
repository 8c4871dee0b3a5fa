"""The contrast of CSS against its formula, in double precision."""

import math

import pytest
import torch

from allspark_mmseg.methods.css import contrastive_loss, draw_pixels, negative_classes


def naive_contrast(z, prototypes, label, queries, negatives, temperature) -> torch.Tensor:
    """One query and one negative at a time, from the paper's equation."""

    def cosine(a, b):
        return (a @ b) / (a.norm() * b.norm())

    present = sorted({int(c) for c in label if c != 255})
    total = z.sum() * 0
    for c in present:
        if queries[c, 0] < 0:
            continue
        terms = []
        for q, others in zip(queries[c], negatives[c], strict=True):
            up = (cosine(z[q], prototypes[c]) / temperature).exp()
            down = sum((cosine(z[q], z[n].detach()) / temperature).exp() for n in others)
            terms.append(-(up / (up + down)).log())
        total = total + sum(terms) / len(terms)
    return total / max(len(present), 1)


def contrast_case(seed: int, classes: int = 4, pixels: int = 40):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(pixels, 5, generator=generator, dtype=torch.float64)
    label = torch.randint(classes + 1, (pixels,), generator=generator)
    label[label == classes] = 255
    if seed % 3 == 0:
        label[label == 1] = 255  # an absent class
    hard = torch.rand(pixels, generator=generator) < 0.5
    if seed % 2:
        hard &= label != 2  # a class of easy pixels
    prototypes = torch.randn(classes, 5, generator=generator, dtype=torch.float64)
    present = torch.stack([(label == c).any() for c in range(classes)])
    return z, label, hard, prototypes, present


@pytest.mark.parametrize('seed', range(4))
def test_the_contrast_is_the_formula(seed):
    z, label, hard, prototypes, present = contrast_case(seed)
    temperature = 0.3
    probability = negative_classes(prototypes, present, temperature)
    torch.manual_seed(seed)
    queries, negatives = draw_pixels(label, hard, probability, 6, 7)
    results = []
    for function in (
        lambda z: contrastive_loss(z, prototypes, present, queries, negatives, temperature),
        lambda z: naive_contrast(z, prototypes, label, queries, negatives, temperature),
    ):
        leaf = z.clone().requires_grad_()
        loss = function(leaf)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)
    moved = results[0][1].abs().sum(1) > 0
    assert set(moved.nonzero().flatten().tolist()) == set(queries[queries >= 0].tolist()), (
        'queries alone move'
    )


@pytest.mark.parametrize('seed', range(4))
def test_queries_are_hard_and_negatives_follow_the_distribution(seed):
    _, label, hard, prototypes, present = contrast_case(seed)
    probability = negative_classes(prototypes, present, 0.5)
    unit = prototypes / prototypes.norm(dim=1, keepdim=True)
    queries, negatives = draw_pixels(label, hard, probability, 200, 400)
    assert queries.shape == (4, 200) and negatives.shape == (4, 200, 400)
    for c in range(4):
        candidates = ((label == c) & hard).nonzero().flatten()
        if not len(candidates):
            assert (queries[c] == -1).all() and (negatives[c] == -1).all()
            continue
        assert set(queries[c].tolist()) == set(candidates.tolist()), 'every hard pixel, and no other'
        others = [j for j in range(4) if j != c and present[j]]
        weights = [math.exp(unit[c] @ unit[j] / 0.5) for j in others]
        drawn = label[negatives[c]].flatten()
        assert set(negatives[c].flatten().tolist()) == {
            i for j in others for i in (label == j).nonzero().flatten().tolist()
        }
        for j, weight in zip(others, weights, strict=True):
            expected = weight / sum(weights)
            deviation = math.sqrt(expected * (1 - expected) / drawn.numel())
            assert (drawn == j).double().mean() == pytest.approx(expected, abs=5 * deviation + 1e-9)
            of_class = negatives[c].flatten()[drawn == j]
            _, counts = of_class.unique(return_counts=True)
            average = len(of_class) / len(counts)
            chi_square = ((counts - average) ** 2 / average).sum()
            assert chi_square < len(counts) + 5 * math.sqrt(2 * len(counts)), 'pixels are not alike'


@pytest.mark.parametrize('classes_left', [[], [2]])
def test_nothing_is_drawn_without_two_classes(classes_left):
    z, label, _, prototypes, _ = contrast_case(1)
    label[~torch.isin(label, torch.tensor(classes_left, dtype=torch.long))] = 255
    present = torch.stack([(label == c).any() for c in range(4)])
    probability = negative_classes(prototypes, present, 0.5)
    assert probability.isfinite().all()
    queries, negatives = draw_pixels(label, torch.ones_like(label, dtype=torch.bool), probability, 3, 5)
    assert (queries == -1).all() and (negatives == -1).all()
    z.requires_grad_()
    loss = contrastive_loss(z, prototypes, present, queries, negatives, 0.5)
    loss.backward()
    assert loss == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_drawing_and_the_contrast_never_synchronize_with_the_device():
    """Meta tensors have no data, so that asking for a value or for a number of pixels raises."""
    label = torch.empty(500, dtype=torch.long, device='meta')
    z = torch.empty(500, 8, device='meta', requires_grad=True)
    hard = torch.empty(500, dtype=torch.bool, device='meta')
    prototypes, present = torch.empty(4, 8, device='meta'), torch.empty(4, dtype=torch.bool, device='meta')
    probability = negative_classes(prototypes, present, 0.5)
    queries, negatives = draw_pixels(label, hard, probability, 6, 7)
    contrastive_loss(z, prototypes, present, queries, negatives, 0.5).backward()
    assert z.grad.shape == z.shape
