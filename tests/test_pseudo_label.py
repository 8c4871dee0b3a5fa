"""Pseudo-labels and their loss on logits made by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from allspark_mmseg.pseudo_label import (
    PseudoLabel,
    masked_cross_entropy,
    padded_pixels,
    pseudo_label_loss,
)

SIZE = (4, 8)


def logits_of(label: torch.Tensor, confidence: torch.Tensor | float, classes: int = 3) -> torch.Tensor:
    """(N, K, H, W) float: class ``label`` has probability ``confidence``, the others share the rest."""
    confidence = torch.as_tensor(confidence).expand(label.shape)
    rest = ((1 - confidence) / (classes - 1))[:, None].expand(-1, classes, -1, -1)
    return rest.scatter(1, label[:, None], confidence[:, None]).log()


def striped(left: float, right: float) -> torch.Tensor:
    """(2, 4, 8): one confidence in the left half of each image, another in the right."""
    confidence = torch.full((2, *SIZE), left)
    confidence[..., SIZE[1] // 2 :] = right
    return confidence


def loss(student: torch.Tensor, pseudo: PseudoLabel) -> torch.Tensor:
    """The loss of FixMatch."""
    return pseudo_label_loss(student, pseudo, average_over='image')


@pytest.fixture
def label() -> torch.Tensor:
    return torch.randint(3, (2, *SIZE))


@pytest.fixture
def student() -> torch.Tensor:
    """Every pixel alike, so that pixels are counted alone: their loss is log 3 for every label."""
    return torch.full((2, 3, *SIZE), 7.0, requires_grad=True)


def test_half_the_pixels_confident_make_half_the_loss(label, student):
    whole = loss(student, PseudoLabel.from_logits(logits_of(label, 0.97), 0.95))
    half = loss(student, PseudoLabel.from_logits(logits_of(label, striped(0.97, 0.93)), 0.95))
    none = loss(student, PseudoLabel.from_logits(logits_of(label, 0.93), 0.95))
    assert whole.item() == pytest.approx(math.log(3), rel=1e-6)
    assert half.item() == pytest.approx(whole.item() / 2, rel=1e-6)
    assert none == 0
    # self-training divides by the confident ones alone
    pseudo = PseudoLabel.from_logits(logits_of(label, striped(0.97, 0.93)), 0.95)
    torch.testing.assert_close(pseudo_label_loss(student, pseudo), whole)


def test_padding_is_neither_valid_nor_averaged_over(label, student):
    padding = torch.zeros(2, *SIZE, dtype=torch.bool)
    padding[:, 2:] = True
    unpadded = loss(student, PseudoLabel.from_logits(logits_of(label, 0.97), 0.95))
    pseudo = PseudoLabel.from_logits(logits_of(label, 0.97), 0.95, padding)
    torch.testing.assert_close(loss(student, pseudo), unpadded)
    assert torch.equal(pseudo.image_mask, ~padding) and torch.equal(pseudo.valid, ~padding)
    assert pseudo.target[padding].eq(255).all()
    half = PseudoLabel.from_logits(logits_of(label, striped(0.97, 0.93)), 0.95, padding)
    torch.testing.assert_close(loss(student, half), unpadded / 2)
    assert half.confident_share == 0.5
    loss(student, half).backward()
    assert student.grad.movedim(1, -1)[padding].eq(0).all()
    assert student.grad.movedim(1, -1)[half.valid].ne(0).all()


def test_padding_alone_gives_zero_loss_and_gradient(label, student):
    pseudo = PseudoLabel.from_logits(logits_of(label, 0.97), 0.0, torch.ones(2, *SIZE, dtype=torch.bool))
    for total in (loss(student, pseudo), masked_cross_entropy(student, pseudo.target)):
        assert total == 0
        student.grad = None
        total.backward()
        assert torch.equal(student.grad, torch.zeros_like(student))
    assert pseudo.confident_share == 0


def test_a_confidence_equal_to_the_threshold_is_valid():
    """Two classes of equal logits: exactly 0.5."""
    logits = torch.zeros(1, 2, 1, 3)
    logits[0, 0] = torch.tensor([0.0, 1e-3, 30.0])
    assert PseudoLabel.from_logits(logits, 0.5).valid.flatten().tolist() == [True, True, True]
    above = math.nextafter(0.5, 1) + 1e-7
    assert PseudoLabel.from_logits(logits, above).valid.flatten().tolist() == [False, True, True]
    assert PseudoLabel.from_logits(logits, 1.0).valid.flatten().tolist() == [False, False, True]


def test_a_threshold_of_zero_makes_all_pixels_valid(label):
    pseudo = PseudoLabel.from_logits(torch.randn(2, 5, *SIZE))
    assert pseudo.valid.all() and pseudo.image_mask.all()
    assert pseudo.confident_share == 1
    assert torch.equal(pseudo.target, pseudo.label)


def test_shares_are_those_of_the_labels(label):
    pseudo = PseudoLabel.from_logits(logits_of(label, striped(0.97, 0.93)), 0.95)
    assert pseudo.confident_share == 0.5
    torch.testing.assert_close(pseudo.class_share(), label.flatten().bincount(minlength=3) / label.numel())
    assert torch.equal(PseudoLabel.from_logits(torch.zeros(1, 4, 2, 2)).class_share(), torch.eye(4)[0])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 6),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.1, 300),
    st.booleans(),
    st.integers(0, 99),
)
def test_labels_and_losses_equal_those_of_the_softmax(classes, threshold, padded, scale, all_counted, seed):
    torch.manual_seed(seed)
    logits = scale * torch.randn(2, classes, 3, 4)
    padding = torch.rand(2, 3, 4) < padded
    pseudo = PseudoLabel.from_logits(logits, threshold, padding)
    confidence = logits.double().softmax(1).amax(1)
    torch.testing.assert_close(pseudo.confidence.double(), confidence, rtol=1e-4, atol=0)
    assert pseudo.confidence.max() <= 1
    assert torch.equal(pseudo.label, logits.argmax(1))
    assert torch.equal(pseudo.valid, (pseudo.confidence >= threshold) & ~padding)

    student = torch.randn(2, classes, 3, 4, dtype=torch.float64)
    expected, counted = 0.0, 0
    for image in range(2):
        for row in range(3):
            for column in range(4):
                at = (image, row, column)
                counted += int(not padding[at]) if all_counted else int(pseudo.valid[at])
                if pseudo.valid[at]:
                    expected -= F.log_softmax(student[image, :, row, column], 0)[pseudo.label[at]].item()
    found = masked_cross_entropy(student, pseudo.target, pseudo.image_mask if all_counted else None)
    assert found.item() == pytest.approx(expected / max(counted, 1), rel=1e-9)


def test_labels_carry_no_gradient():
    pseudo = PseudoLabel.from_logits(torch.randn(1, 3, 2, 2, requires_grad=True))
    assert not pseudo.logits.requires_grad and not pseudo.confidence.requires_grad


def test_padding_is_read_from_the_maps():
    marks = torch.tensor([[0, 0, 255], [254, 1, 255]])
    made = [SegDataSample(gt_sem_seg=PixelData(data=of[None])) for of in (marks, marks.flip(1))]
    found = padded_pixels(made)
    assert found.shape == (2, 2, 3)
    assert torch.equal(found[0], marks == 255) and torch.equal(found[1], marks.flip(1) == 255)
    with pytest.raises(ValueError, match=r'ignore_padding=True.*LoadEmptyAnnotations'):
        padded_pixels([*made, SegDataSample()])


def test_pseudo_label_loss_averages_over_the_chosen_pixels(label, student):
    padding = torch.zeros(2, *SIZE, dtype=torch.bool)
    padding[:, 2:] = True
    pseudo = PseudoLabel.from_logits(logits_of(label, striped(0.97, 0.93)), 0.95, padding)
    shares = dict(confident=1, image=1 / 2, all=1 / 4)  # a quarter of all pixels is valid
    for average_over, share in shares.items():
        value = pseudo_label_loss(student, pseudo, average_over)
        assert value.item() == pytest.approx(share * math.log(3), rel=1e-6), average_over


def test_an_unknown_average_is_refused():
    logits = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ValueError, match="average_over is 'images', expected one of"):
        pseudo_label_loss(logits, PseudoLabel.from_logits(logits), 'images')
