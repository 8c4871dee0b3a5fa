"""OHEM cross-entropy: golden vectors, its definition, and the differences from MMSegmentation's losses."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.models.losses import CrossEntropyLoss, OhemCrossEntropy
from mmseg.registry import MODELS
from mmseg.structures import OHEMPixelSampler

from allspark_mmseg.losses import OHEMCrossEntropyLoss

from ..helpers.golden import strip_prefix
from ..helpers.tiny_models import CLASSES, batch, build_model, samples, tiny_head, tiny_segmentor


def with_gradient(loss, logits: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, label, weight=None, ignore_index=255)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def naive(logits: np.ndarray, label: np.ndarray, threshold: float, min_kept: int) -> tuple[float, np.ndarray]:
    """Loss and gradient from the definition, pixel by pixel: sort, cut, average over the kept pixels."""
    pixels = [pixel for pixel in np.ndindex(label.shape) if label[pixel] != 255]
    softmax, own = {}, {}
    for n, i, j in pixels:
        exponentials = np.exp(logits[n, :, i, j] - logits[n, :, i, j].max())
        softmax[n, i, j] = exponentials / exponentials.sum()
        own[n, i, j] = softmax[n, i, j][label[n, i, j]]
    kept = pixels
    if 0 < min_kept <= len(pixels):
        # the margin keeps rounding from separating equal probabilities
        highest = max(threshold, sorted(own.values())[min_kept - 1]) + 1e-12
        kept = [pixel for pixel in pixels if own[pixel] <= highest]
    gradient = np.zeros_like(logits)
    loss = 0.0
    for n, i, j in kept:
        loss -= np.log(own[n, i, j]) / len(kept)
        one_hot = np.arange(logits.shape[1]) == label[n, i, j]
        gradient[n, :, i, j] = (softmax[n, i, j] - one_hot) / len(kept)
    return loss, gradient


def of_probabilities(*true_class: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (1, 2, 1, n) with these probabilities of class 0, and the label (1, 1, n), which is class 0."""
    q = torch.tensor(true_class)
    return torch.stack([q, 1 - q]).log()[None, :, None], torch.zeros(1, 1, len(true_class), dtype=torch.long)


@pytest.mark.parametrize('case', range(8))
def test_golden(golden, case):
    vectors = strip_prefix(golden('ohem'), f'{case}.')
    loss = OHEMCrossEntropyLoss(float(vectors['thresh']), int(vectors['min_kept']))
    value, gradient = with_gradient(loss, vectors['logits'], vectors['target'].long())
    assert value.item() == pytest.approx(vectors['loss'].item(), rel=1e-6)
    error = (gradient - vectors['grad']).abs().max() / vectors['grad'].abs().max()
    assert error <= 1e-6
    assert torch.equal(gradient != 0, vectors['grad'] != 0), 'the kept pixels differ'


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 2), st.integers(2, 5), st.integers(1, 5), st.integers(1, 5)),
    threshold=st.floats(0, 1),
    min_kept=st.integers(0, 60),
    ignored=st.sampled_from([0.0, 0.3, 0.9]),
    spread=st.sampled_from([0.1, 1.0, 8.0]),
)
def test_equals_its_definition(seed, shape, threshold, min_kept, ignored, spread):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, shape)
    label = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    label[rng.random(label.shape) < ignored] = 255
    expected, expected_gradient = naive(logits, label, threshold, min_kept)
    value, gradient = with_gradient(
        OHEMCrossEntropyLoss(threshold, min_kept), torch.from_numpy(logits), torch.from_numpy(label)
    )
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(gradient.numpy(), expected_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    'threshold, min_kept, kept',
    [
        (0.25, 1, 2),  # the threshold decides
        (0.05, 3, 3),  # min_kept decides
        (0.05, 1, 1),
        (0.95, 1, 5),
        (0.05, 0, 5),  # as in the release, min_kept = 0 switches the threshold off
        (0.05, 5, 5),  # as many valid pixels as min_kept
        (0.05, 6, 5),  # fewer valid pixels than min_kept
        (0.05, 1000, 5),
    ],
)
def test_which_pixels_are_kept(threshold, min_kept, kept):
    logits, label = of_probabilities(0.4, 0.1, 0.8, 0.2, 0.6, 0.01)
    label[..., -1] = 255  # the hardest pixel is ignored
    value, gradient = with_gradient(OHEMCrossEntropyLoss(threshold, min_kept), logits, label)
    hardest = torch.tensor([0.1, 0.2, 0.4, 0.6, 0.8][:kept])
    assert value.item() == pytest.approx(-hardest.log().mean().item(), rel=1e-6)
    assert (gradient[0, 0, 0] != 0).sum() == kept


def test_ties_at_the_cut_are_kept():
    logits, label = of_probabilities(0.5, 0.2, 0.2, 0.2, 0.9)
    _, gradient = with_gradient(OHEMCrossEntropyLoss(0.1, 2), logits, label)
    assert (gradient[0, 0, 0] != 0).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize('min_kept', [0, 3, 10**6])
def test_no_valid_pixel_gives_zero_with_a_zero_gradient(min_kept):
    label = torch.full((2, 4, 5), 255)
    value, gradient = with_gradient(OHEMCrossEntropyLoss(0.7, min_kept), torch.randn(2, 3, 4, 5), label)
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_nan_logits_give_a_nan_loss():
    logits, label = of_probabilities(0.4, 0.1, 0.8)
    logits[..., 0] = torch.nan
    assert OHEMCrossEntropyLoss(0.05, 1)(logits, label).isnan()


def test_half_precision_is_computed_in_single():
    logits = (torch.randn(2, CLASSES, 20, 20) * 4).half()
    label = torch.randint(CLASSES, (2, 20, 20))
    loss = OHEMCrossEntropyLoss(0.3, 100)
    expected = loss(logits.float(), label)
    assert expected.dtype == torch.float32
    assert torch.equal(loss(logits, label), expected)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(loss(logits, label), expected)


def test_never_synchronizes_with_the_device():
    """On meta tensors, reading a value or a data-dependent shape raises."""
    logits = torch.empty(2, 5, 30, 30, device='meta', requires_grad=True)
    label = torch.empty(2, 30, 30, device='meta', dtype=torch.long)
    OHEMCrossEntropyLoss(0.7, 100)(logits, label).backward()
    assert logits.grad is not None and logits.grad.shape == logits.shape


def test_works_in_a_decode_head_with_a_second_loss():
    ohem = dict(type='allspark_mmseg.OHEMCrossEntropyLoss', threshold=0.4, min_kept=50, loss_weight=0.5)
    plain = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    head = MODELS.build(tiny_head() | dict(loss_decode=[ohem, plain]))
    data_samples = samples(2, (20, 24))
    logits = torch.randn(2, CLASSES, 20, 24)
    entries = head.loss_by_feat(logits, data_samples)
    label = torch.cat([sample.gt_sem_seg.data for sample in data_samples])
    expected, _ = naive(logits.double().numpy(), label.numpy(), 0.4, 50)
    assert entries['loss_ohem'].item() == pytest.approx(0.5 * expected, rel=1e-5)
    torch.testing.assert_close(entries['loss_ce'], F.cross_entropy(logits, label, ignore_index=255))


def test_semi_supervised_method_applies_it_to_labeled_images_only():
    loss = dict(type='allspark_mmseg.OHEMCrossEntropyLoss', min_kept=100)
    segmentor = tiny_segmentor(decode_head=tiny_head() | dict(loss_decode=loss))
    model = build_model(dict(type='allspark_mmseg.SelfTraining', segmentor=segmentor)).train()
    entries = model.loss(*batch())
    assert entries['sup.decode.loss_ohem'] > 0
    assert entries['unsup.loss_ce'] > 0
    assert [name for name in entries if 'ohem' in name] == ['sup.decode.loss_ohem']
    entries = model.loss(*batch(ignored=True))
    assert entries['sup.decode.loss_ohem'] == 0
    assert entries['unsup.loss_ce'] > 0


def test_mmsegmentations_loss_differs():
    logits, label = of_probabilities(0.1, 0.2, 0.3, 0.4)
    mean = [-torch.tensor([0.1, 0.2, 0.3, 0.4][:n]).log().mean().item() for n in range(1, 5)]
    for min_kept in (4, 100):  # at most min_kept valid pixels: MMSegmentation's loss drops the easiest
        assert OHEMCrossEntropyLoss(0.05, min_kept)(logits, label).item() == pytest.approx(mean[3])
        assert OhemCrossEntropy(thres=0.05, min_kept=min_kept)(logits, label).item() == pytest.approx(mean[2])
    tied, label = of_probabilities(0.1, 0.2, 0.2, 0.4)  # ties: MMSegmentation keeps fewer
    _, gradient = with_gradient(OHEMCrossEntropyLoss(0.05, 2), tied, label)
    assert (gradient[0, 0, 0] != 0).sum() == 3
    assert OhemCrossEntropy(thres=0.05, min_kept=2)(tied, label).item() == pytest.approx(mean[0])
    with pytest.raises(TypeError, match='weight'):  # a decode head passes this argument
        OhemCrossEntropy()(logits, label, weight=None, ignore_index=255)


def test_mmsegmentations_sampler_differs():
    logits, label = of_probabilities(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    logits, label = logits.reshape(1, 2, 2, 4).transpose(0, 2).reshape(2, 2, 1, 4), label.reshape(2, 1, 4)
    q = logits.softmax(1)[:, 0]
    value, gradient = with_gradient(OHEMCrossEntropyLoss(0.05, 2), logits, label)
    hardest = q.flatten().sort().values
    assert (gradient[:, 0] != 0).sum() == 2
    assert value.item() == pytest.approx(-hardest[:2].log().mean().item())
    sampler = OHEMPixelSampler(SimpleNamespace(ignore_index=255), thresh=0.05, min_kept=2)
    weight = sampler.sample(logits, label[:, None])
    assert weight.sum() == 2 * 2  # min_kept for each of two images
    sampled = CrossEntropyLoss()(logits, label, weight=weight, ignore_index=255)
    assert sampled.item() == pytest.approx(-hardest[:4].log().sum().item() / 8)  # the mean is over all pixels


def test_pixel_sampler_is_refused():
    with pytest.raises(ValueError, match=r'weight is given.*Remove decode_head\.sampler'):
        OHEMCrossEntropyLoss()(torch.randn(1, 2, 3, 3), torch.zeros(1, 3, 3).long(), torch.ones(1, 3, 3))


@pytest.mark.parametrize(
    'argument, value',
    [
        ('threshold', -0.1),
        ('threshold', 70),
        ('threshold', None),
        ('min_kept', -1),
        ('min_kept', 0.5),
        ('min_kept', True),
        ('loss_name', 'ohem'),
    ],
)
def test_bad_arguments_are_refused(argument, value):
    with pytest.raises(ValueError, match=f'{argument} is {value!r}'):
        MODELS.build(dict(type='allspark_mmseg.OHEMCrossEntropyLoss', **{argument: value}))


def test_name_and_weight_come_from_the_config():
    loss = MODELS.build(dict(type='allspark_mmseg.OHEMCrossEntropyLoss', loss_name='loss_x', loss_weight=3.0))
    assert loss.loss_name == 'loss_x'
    logits, label = of_probabilities(0.1, 0.9)
    torch.testing.assert_close(loss(logits, label), 3 * OHEMCrossEntropyLoss()(logits, label))
