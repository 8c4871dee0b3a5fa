"""Cross-entropy with class weights, against PyTorch, and median frequency balancing against its formula."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.models.losses import CrossEntropyLoss as PlainCrossEntropyLoss
from mmseg.registry import MODELS

from allspark_mmseg.losses import CrossEntropyLoss, balanced_weights

WEIGHTS = [0.5, 2.0, 7.0]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(3, (2, 6, 5), generator=generator)
    label[0, :2] = 255
    return torch.randn(2, 3, 6, 5, generator=generator, requires_grad=True), label


def test_class_weights_are_those_of_pytorch(batch):
    logits, label = batch
    loss = CrossEntropyLoss(class_weight=WEIGHTS, loss_weight=0.4)(logits, label, ignore_index=255)
    expected = 0.4 * F.cross_entropy(logits, label, torch.tensor(WEIGHTS), ignore_index=255)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_weights_have_full_precision_after_a_step_in_half(batch):
    logits, label = batch
    loss = CrossEntropyLoss(class_weight=[0.1, 0.7, 3.3])
    assert loss(logits.bfloat16(), label, ignore_index=255).dtype == torch.float32
    fresh = CrossEntropyLoss(class_weight=[0.1, 0.7, 3.3])
    assert torch.equal(loss(logits, label, ignore_index=255), fresh(logits, label, ignore_index=255))


@pytest.mark.parametrize(
    'settings', [{}, dict(loss_weight=0.4), dict(use_sigmoid=True), dict(reduction='sum')]
)
def test_without_class_weights_it_is_the_loss_of_mmsegmentation(batch, settings):
    logits, label = batch
    plain = PlainCrossEntropyLoss(avg_non_ignore=True, **settings)(logits, label, ignore_index=255)
    own = CrossEntropyLoss(**settings)(logits, label, ignore_index=255)
    assert torch.equal(own, plain)
    assert CrossEntropyLoss(loss_name='loss_other').loss_name == 'loss_other'


def test_equal_weights_change_nothing(batch):
    logits, label = batch
    weighted = CrossEntropyLoss(class_weight=[3.0] * 3)(logits, label, ignore_index=255)
    torch.testing.assert_close(weighted, CrossEntropyLoss()(logits, label, ignore_index=255))


def test_without_valid_pixels_it_is_zero(batch):
    logits, label = batch
    loss = CrossEntropyLoss(class_weight=WEIGHTS)(logits, label.fill_(255), ignore_index=255)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_reductions_and_pixel_weights(batch):
    logits, label = batch
    pixel = torch.rand(label.shape)
    loss = CrossEntropyLoss(class_weight=WEIGHTS, loss_weight=2.0)
    each = F.cross_entropy(logits, label, torch.tensor(WEIGHTS), ignore_index=255, reduction='none') * pixel
    call = dict(weight=pixel, ignore_index=255)
    torch.testing.assert_close(loss(logits, label, reduction_override='none', **call), 2 * each)
    torch.testing.assert_close(loss(logits, label, reduction_override='sum', **call), 2 * each.sum())
    torch.testing.assert_close(loss(logits, label, avg_factor=7.0, **call), 2 * each.sum() / 7)


@pytest.mark.parametrize(
    'settings', [dict(use_sigmoid=True), dict(use_mask=True), dict(avg_non_ignore=False)]
)
@pytest.mark.parametrize('weights', [WEIGHTS, 'balanced'])
def test_settings_without_class_weights(settings, weights):
    with pytest.raises(ValueError, match=r'CrossEntropyLoss: \w+ is .* expected'):
        CrossEntropyLoss(class_weight=weights, **settings)


def test_balanced_weights_need_the_hook(batch):
    loss = MODELS.build(dict(type='allspark_mmseg.CrossEntropyLoss', class_weight='balanced'))
    with pytest.raises(RuntimeError, match=r"class_weights=dict\(type='allspark_mmseg\.ClassWeightHook'\)"):
        loss(*batch, ignore_index=255)


def test_median_frequency_balancing():
    """Two masks of 100 valid pixels: 90 + 10 of classes 0 and 1; 60 + 40 of classes 0 and 2."""
    weights = balanced_weights(np.array([150, 10, 40, 0]), np.array([200, 100, 100, 0]))
    frequency = np.array([0.75, 0.1, 0.4])  # the median is 0.4
    np.testing.assert_allclose(weights, [*(0.4 / frequency), 1], rtol=1e-3)
    roots = balanced_weights(np.array([150, 10, 40, 0]), np.array([200, 100, 100, 0]), 0.5)
    np.testing.assert_allclose(roots, [*(0.4 / frequency) ** 0.5, 1], rtol=1e-3)
    assert balanced_weights(np.zeros(2), np.zeros(2)) == [1, 1]
