"""Losses of CSS against vectors of its release."""

import pytest
import torch

from allspark_mmseg.losses import OHEMCrossEntropyLoss
from allspark_mmseg.methods.css import (
    ClassPrototypes,
    classifier_loss,
    contrastive_loss,
    negative_classes,
    prototypes,
)
from allspark_mmseg.methods.css.contrast import class_counts
from allspark_mmseg.methods.loss_weights import rampdown_weight

from ..helpers.css_golden import assert_probability, close, flat_label, recorded_step, to_255
from ..helpers.golden import strip_prefix


def updated(vectors: dict, constants: dict, seen: torch.Tensor | None = None):
    """Representations (leaf), as pixels, their labels, and prototypes after the update."""
    label = flat_label(vectors['onehot'], vectors['mask'])
    kept = ClassPrototypes(*vectors['prototypes_before'].shape, momentum=1 - float(constants['alpha']))
    kept.value.copy_(vectors['prototypes_before'])
    kept.seen.copy_(kept.value.any(dim=1) if seen is None else seen)
    rep = vectors['rep'].clone().requires_grad_()
    pixels = rep.permute(0, 2, 3, 1).flatten(0, 2)
    kept.update(pixels.detach(), label)
    return rep, pixels, label, kept


def contrast(vectors: dict, constants: dict, seen: torch.Tensor | None = None):
    """The update and the loss on recorded draws: loss, its gradient, prototypes."""
    rep, pixels, label, kept = updated(vectors, constants, seen)
    classes = len(kept.seen)
    own = vectors['prob'].movedim(1, 0).flatten(1).gather(0, label.clamp(max=classes - 1)[None])[0]
    hard = label.masked_fill(own >= float(constants['strong_threshold']), 255)
    counts = class_counts(label, classes)
    temperature = float(constants['tau_c'])
    loss = contrastive_loss(
        pixels,
        kept.value,
        counts > 0,
        vectors['queries'].long(),
        vectors['negatives'].long(),
        temperature,
    )
    loss.backward()
    assert torch.equal(
        torch.stack([counts, class_counts(hard, classes)], 1), vectors['valid_and_hard'].long()
    )
    probability = negative_classes(kept.value, counts > 0, temperature)
    assert_probability(probability, vectors['negative_class_prob'])
    return loss, rep.grad, kept


def assert_contrast(vectors: dict, constants: dict, seen: torch.Tensor | None = None) -> None:
    loss, grad, kept = contrast(vectors, constants, seen)
    close(loss, vectors['loss'], 'loss')
    close(grad, vectors['grad_rep'], 'grad_rep')
    close(kept.value, vectors['prototypes_after'], 'prototypes_after')


def constants_of(everything: dict, name: str = 'contrast') -> dict:
    return {key: everything[f'{name}.{key}'] for key in ('alpha', 'tau_c', 'strong_threshold')}


@pytest.mark.parametrize('case', range(5))
def test_the_contrast_matches_the_release(golden, case):
    everything = golden('css')
    assert_contrast(strip_prefix(everything, f'contrast.{case}.'), constants_of(everything))


def test_the_contrast_with_other_constants_matches_the_release(golden):
    everything = golden('css')
    assert_contrast(strip_prefix(everything, 'contrast_b.'), constants_of(everything, 'contrast_b'))


def test_the_contrast_without_a_hard_pixel_keeps_its_graph(golden):
    """As released it has none, so that other processes would wait for its gradients for ever."""
    everything = golden('css')
    vectors = strip_prefix(everything, 'as_released.contrast_all_easy.')
    assert not vectors['loss_has_graph']
    assert_contrast(vectors, constants_of(everything))  # has called backward


def test_a_prototype_whose_sum_is_zero_is_kept(golden):
    everything = golden('css')
    vectors = strip_prefix(everything, 'as_released.contrast_sum_zero_prototype.')
    before = vectors['prototypes_before']
    zero_sum = before.sum(1) == 0
    assert_contrast(vectors, constants_of(everything), seen=~zero_sum)  # the release takes it for a fresh one
    *_, kept = contrast(vectors, constants_of(everything))
    remembered = zero_sum & before.any(1)
    assert remembered.any()
    fresh = vectors['prototypes_after'][remembered]
    alpha = everything['contrast.alpha'].float()
    close(kept.value[remembered], alpha * before[remembered] + (1 - alpha) * fresh)


@pytest.mark.parametrize('name', ['two_ranks', 'as_released.two_ranks_local_classes'])
def test_the_contrast_of_two_processes_matches_the_release(golden, name, monkeypatch):
    """The means are of both; as released, each process follows only classes that it has itself."""
    everything = golden('css')
    ranks = [
        strip_prefix(everything, f'{name}.rank{rank}.')
        | dict(prototypes_before=everything[f'{name}.prototypes_before'])
        for rank in (0, 1)
    ]
    shared = []
    monkeypatch.setattr(prototypes, 'all_reduce', lambda tensor: shared.append(tensor.clone()))
    for vectors in ranks:
        updated(vectors, constants_of(everything))
    monkeypatch.setattr(prototypes, 'all_reduce', lambda tensor: tensor.copy_(shared[0] + shared[1]))
    found = []
    for vectors in ranks:
        loss, grad, kept = contrast(vectors, constants_of(everything))
        close(loss, vectors['loss'], 'loss')
        close(grad, vectors['grad_rep'], 'grad_rep')
        local = vectors['valid_and_hard'][:, 0] > 0
        close(kept.value[local], vectors['prototypes_after'][local], 'prototypes_after')
        if name == 'two_ranks':
            close(kept.value, vectors['prototypes_after'], 'prototypes_after')
        found.append(kept.value)
    assert torch.equal(*found)


def loss_and_gradient(
    vectors: dict, everything: dict, average_over: str
) -> tuple[torch.Tensor, torch.Tensor]:
    pred = vectors.get('pred', everything['unsup.pred']).clone().requires_grad_()
    threshold = float(everything['steps.un_threshold'])
    loss = classifier_loss(pred, to_255(vectors['label']), vectors['conf'], threshold, average_over)
    loss.backward()
    return loss.detach(), pred.grad


def test_the_classifier_loss_matches_the_release(golden):
    everything = golden('css')
    vectors = strip_prefix(everything, 'unsup.')
    for average_over in ('positive', 'labeled'):  # no pixel is fitted perfectly
        loss, grad = loss_and_gradient(vectors, everything, average_over)
        close(loss, vectors['loss'])
        close(grad, vectors['grad'])


@pytest.mark.parametrize('case', ['weight_over_one', 'zero_losses', 'image_all_ignored'])
def test_the_classifier_loss_matches_the_release_in_special_cases(golden, case):
    everything = golden('css')
    vectors = strip_prefix(everything, f'as_released.unsup_{case}.')
    loss, grad = loss_and_gradient(vectors, everything, 'positive')
    close(loss, vectors['loss'])
    close(grad, vectors['grad'])
    over_labeled, _ = loss_and_gradient(vectors, everything, 'labeled')
    assert (over_labeled < loss * (1 - 1e-6)) == (case == 'zero_losses')


def test_the_classifier_loss_without_labels_is_zero_instead_of_nan(golden):
    everything = golden('css')
    vectors = strip_prefix(everything, 'as_released.unsup_all_ignored.')
    assert vectors['loss'].isnan()
    loss, grad = loss_and_gradient(vectors, everything, 'positive')
    assert loss == 0
    assert torch.equal(grad, vectors['grad'])


@pytest.mark.parametrize('case', range(5))
def test_ohem_matches_the_release(golden, case):
    vectors = strip_prefix(golden('css'), f'ohem.{case}.')
    logits = vectors['logits'].clone().requires_grad_()
    loss = OHEMCrossEntropyLoss(float(vectors['thresh']), int(vectors['min_kept']))
    value = loss(logits, to_255(vectors['label']))
    value.backward()
    close(value, vectors['loss'])
    close(logits.grad, vectors['grad'])
    assert torch.equal(logits.grad.abs().sum(1) > 0, vectors['kept'].bool())


def test_the_contrast_weight_matches_the_release(golden):
    everything = golden('css')
    vectors = strip_prefix(everything, 'ramp.')
    assert (vectors['begin_epoch'], vectors['min_value'], vectors['ramp_mult']) == (0, 0, -5)
    step = strip_prefix(everything, 'mix.0.')
    model, _ = recorded_step(
        step,
        'CSSMix',
        contrast_weight=float(vectors['max_value']),
        contrast_ramp_down=int(vectors['max_epoch']),
    )
    found = []
    for epoch in vectors['epochs'].tolist():
        model.teacher.steps.fill_(epoch)
        found.append(model.contrast_weight * rampdown_weight(model.teacher.steps, model.contrast_ramp_down))
    close(torch.stack(found), vectors['values'])
