"""Training steps of CSS against vectors of its release."""

import pytest
import torch

from allspark_mmseg.methods.css import classifier_loss
from allspark_mmseg.methods.loss_weights import rampdown_weight

from ..helpers.css_golden import (
    METHODS,
    assert_contrast_inputs,
    close,
    expected_targets,
    recorded_step,
    run_step,
    step_arguments,
    teacher_targets,
    to_255,
)
from ..helpers.golden import strip_prefix
from ..helpers.tiny_models import losses_in

STEPS = ['mix.0', 'mix.1', 'cross.0', 'cross.1', 'baseline.0']


@pytest.mark.parametrize('name', STEPS)
def test_a_step_matches_the_release(golden, name):
    everything = golden('css')
    steps = strip_prefix(everything, 'steps.')
    method = METHODS[name.split('.')[0]]
    vectors = strip_prefix(everything, f'{name}.') | dict(ohem_thresh=steps['ohem_thresh'])
    model, outputs = recorded_step(vectors, method, **step_arguments(vectors, method, steps))
    epoch = int(vectors['epoch'])
    model.teacher.steps.fill_(epoch)
    warming = method == 'CSSCross' and epoch < model.warm_up

    expected = expected_targets(vectors, 'pseudo', method, warming)
    losses, given = run_step(vectors, method, model, warming)
    assert torch.equal(given['targets'].label, expected.label)
    ignored = (expected.label == 255) if method == 'CSSMix' else False  # ours gives them no confidence
    close(given['targets'].confidence, expected.confidence.masked_fill(torch.as_tensor(ignored), 0), 'q')
    assert_contrast_inputs(given, vectors, model.hard_threshold, model.contrast_temperature, model)

    (supervised,) = [value for key, value in losses.items() if key.startswith('sup.decode.loss')]
    close(supervised, vectors['loss_sup'], 'loss_sup')
    close(losses['unsup.loss_ce'], vectors['loss_unsup'], 'loss_unsup')
    weight = model.contrast_weight * rampdown_weight(model.teacher.steps, model.contrast_ramp_down)
    close(weight.double(), vectors['contrast_weight'], 'contrast_weight')
    close(losses['unsup.loss_contrast'], vectors['loss_contrast'] * vectors['contrast_weight'], 'contrast')
    close(losses_in(losses), vectors['loss'], 'loss')
    losses_in(losses).backward()
    for part, output in outputs.items():
        close(output.grad, vectors[f'grad.{part}'], part)
    close(model.prototypes.value, vectors['prototypes_after'], 'prototypes_after')


def first_iteration_model(vectors: dict, as_released: bool, **arguments):
    model, _ = recorded_step(vectors, 'CSSMix', similarity_temperature=float(vectors['tau_s']), **arguments)
    # the release does not know which classes it has seen: to it a prototype of zeros is one as any
    model.prototypes.seen.copy_(model.prototypes.value.any(1) | as_released)
    return model


@pytest.mark.parametrize('case', ['mix_first_iteration', 'mix_unseen_class'])
def test_classes_without_prototype_count_as_agreed(golden, case):
    vectors = strip_prefix(golden('css'), f'as_released.{case}.')
    model = first_iteration_model(vectors, True, count_ignored=True, hard_threshold=None)
    released = teacher_targets(model, vectors)
    assert torch.equal(released.label[:, 0], to_255(vectors['pseudo.label_mix']))
    close(released.confidence[:, 0], vectors['pseudo.conf_cls'])

    model = first_iteration_model(vectors, False, hard_threshold=None)
    seen = model.prototypes.seen
    found = teacher_targets(model, vectors)
    by_logit = to_255(vectors['pseudo.label_cls'])
    fallback = ~seen[by_logit]
    assert fallback.any()
    assert torch.equal(found.label[:, 0][fallback], by_logit[fallback])
    named = found.label[:, 0] != 255
    assert torch.equal(found.label[:, 0][named], by_logit[named])
    assert torch.equal(found.confidence[:, 0] > 0, named), 'no confidence where nothing is learned'


def test_the_first_iteration_matches_the_release(golden):
    everything = golden('css')
    vectors = strip_prefix(everything, 'as_released.mix_first_iteration.')
    steps = strip_prefix(everything, 'steps.')
    arguments = step_arguments(vectors, 'CSSMix', steps) | dict(count_ignored=True)
    arguments.pop('similarity_temperature')
    model = first_iteration_model(vectors, True, **arguments)
    update = model.prototypes.update
    # a prototype of zeros is known as one to the release's update, if not to its labels
    model.prototypes.update = lambda *args: (model.prototypes.seen.fill_(False), update(*args))
    losses, given = run_step(vectors, 'CSSMix', model)
    assert_contrast_inputs(given, vectors, model.hard_threshold, model.contrast_temperature, model)
    close(losses['unsup.loss_ce'], vectors['loss_unsup'], 'loss_unsup')
    close(losses['unsup.loss_contrast'], vectors['loss_contrast'], 'loss_contrast')
    close(losses_in(losses), vectors['loss'])
    close(model.prototypes.value, vectors['prototypes_after'])


def test_cross_is_refused_at_the_released_temperature(golden):
    """It teaches the classifier nothing, so it is refused."""
    everything = golden('css')
    vectors = strip_prefix(everything, 'as_released.cross_tau_half.')
    arguments = step_arguments(vectors, 'CSSCross', strip_prefix(everything, 'steps.')) | dict(warm_up=0)
    with pytest.raises(ValueError, match=r'threshold is 0\.97.*similarity_temperature=0\.5.*always be 0'):
        recorded_step(vectors, 'CSSCross', **arguments)
    model, _ = recorded_step(vectors, 'CSSCross', **arguments | dict(similarity_temperature=0.1))
    model.similarity_temperature = float(vectors['tau_s'])
    targets = teacher_targets(model, vectors)
    expected = expected_targets(vectors, 'pseudo', 'CSSCross', False)
    assert torch.equal(targets.label, expected.label)
    close(targets.confidence, expected.confidence)
    strong = expected_targets(vectors, 'strong', 'CSSCross', False)
    pred = vectors['student.pred_unlabeled'].clone().requires_grad_()
    loss = classifier_loss(
        model.resize_to_input(pred, strong.label.shape[2:]),
        strong.label[:, 0],
        strong.confidence[:, 0],
        model.threshold,
        model.average_over,
    )
    loss.backward()
    assert loss == vectors['loss_unsup'] == 0
    assert torch.equal(pred.grad, vectors['grad.pred_unlabeled'])
    similarity = model.class_probability(
        None, torch.cat([vectors['student.rep_labeled'], vectors['student.rep_unlabeled']])
    )
    close(similarity, vectors['indicator'])
