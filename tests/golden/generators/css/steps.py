"""Vectors of whole training steps of CSS."""

from typing import Any

import torch
from torch import Tensor

from .record import Draws, Vectors
from .reference import Reference
from .step_inputs import CLASSES, DIM, OutputDraws, Step, draw_basis
from .step_run import OHEM_MIN_KEPT, UN_THRESHOLD, WEAK_THRESHOLD, StepRunner
from .tracing import ContrastTrace


def pseudo_labels(step: Step, variables: dict, forward: dict) -> dict[str, Tensor]:
    """Return labels and confidences before (``pseudo``) and after (``strong``) the augmentation, by key."""
    if step.is_baseline:
        return {
            'pseudo.label_cls': forward['pseudo_labels'],
            'pseudo.conf_cls': forward['pseudo_logits'],
            'strong.label_cls': variables['train_u_aug_label'],
            'strong.conf_cls': variables['train_u_aug_logits'],
        }
    entries = {
        'pseudo.label_cls': forward['pseudo_labels_cls'],
        'pseudo.conf_cls': forward['pseudo_logits_cls'],
        'pseudo.label_rep': forward['pseudo_labels_rep'],
        'pseudo.conf_rep': forward['pseudo_logits_rep'],
        'strong.conf_cls': variables['train_u_aug_logits_cls'],
        'strong.conf_rep': variables['train_u_aug_logits_rep'],
    }
    if step.variant == 'mix':
        fused = forward['pseudo_labels'].long()
        entries['pseudo.label_mix'] = torch.where(fused == 255, -1, fused)
        entries['strong.label_mix'] = variables['train_u_aug_label']
    else:
        entries['strong.label_cls'] = variables['train_u_aug_label_cls']
        entries['strong.label_rep'] = variables['train_u_aug_label_rep']
    return entries


def step_entries(runner: StepRunner) -> tuple[dict[str, Any], ContrastTrace, Tensor]:
    """Run a step; return its vectors, the draws of the contrast and the representations that it received."""
    step, outputs, prototypes = runner.step, runner.outputs, runner.prototypes
    entries: dict[str, Any] = {'prototypes_before': prototypes.clone()}
    variables, forward, unsup, trace = runner.run()
    if step.settles_disputes:
        label, conf = variables['train_u_aug_label'], variables['train_u_aug_logits_cls']
        assert not ((label < 0) & (conf >= UN_THRESHOLD)).any()
    entries.update(epoch=step.epoch, strong_threshold=step.strong_threshold, label=outputs.label)
    entries['teacher.pred'] = outputs.teacher_pred
    if not step.is_baseline:
        entries.update({'teacher.rep': outputs.teacher_rep, 'tau_s': step.tau_s})
    if step.dataset != 'VOC':
        entries['ohem_min_kept'] = OHEM_MIN_KEPT
    entries.update({f'student.{name}': output for name, output in outputs.student.items()})
    entries.update(pseudo_labels(step, variables, forward))
    entries.update(
        {
            'indicator': variables['prob_all' if step.is_baseline else 'pred_all'],
            'contrast.onehot': variables['label_all'].to(torch.uint8),
            'contrast.mask': variables['mask_all'].to(torch.uint8),
            'image_weight': unsup['weighting'],
            'loss_sup': variables['sup_loss'].item(),
            'loss_unsup': variables['unsup_loss'].item(),
            'loss_contrast': variables['contrast_loss'].item(),
            'contrast_weight': 1.0 if step.is_baseline else float(runner.ramp.value),
            'loss': variables['total_loss'].item(),
            'prototypes_after': prototypes.clone(),
        }
    )
    entries.update({f'grad.{name}': output.grad for name, output in outputs.student.items()})
    return entries, trace, variables['rep_all']


def record_step(
    reference: Reference, vectors: Vectors, source: OutputDraws, step: Step, prototypes: Tensor
) -> None:
    """Run a step and store the keys that it keeps."""
    runner = StepRunner(reference, step, source.outputs(step), prototypes)
    entries, trace, rep = step_entries(runner)
    recorded = Vectors()
    recorded.put_all(step.name, **entries)
    trace.store(recorded, f'{step.name}.contrast', rep, prototypes)
    for key, value in recorded.items():
        if step.keep is None or key.removeprefix(f'{step.name}.').startswith(step.keep):
            vectors.put_exact(key, value)


def record_released_quirks(
    reference: Reference, vectors: Vectors, source: OutputDraws, start: Tensor
) -> None:
    """Record the temperature as released, the first iteration, and a class without a prototype."""
    inputs = ('teacher', 'student', 'tau_s', 'strong', 'pseudo', 'indicator', 'image_weight')
    step = Step(
        'as_released.cross_tau_half',
        'cross',
        epoch=3,
        tau_s=0.5,
        keep=(
            *inputs,
            'prototypes_before',
            'loss_unsup',
            'contrast.onehot',
            'contrast.mask',
            'grad.pred_unlabeled',
        ),
    )
    record_step(reference, vectors, source, step, start.clone())
    step = Step(
        'as_released.mix_first_iteration',
        'mix',
        epoch=0,
        tau_s=0.5,
        allow_confident_disputes=True,
        keep=(*inputs, 'prototypes', 'label', 'loss', 'contrast'),
    )
    record_step(reference, vectors, source, step, torch.zeros(CLASSES, DIM))
    step = Step(
        'as_released.mix_unseen_class',
        'mix',
        epoch=1,
        tau_s=0.5,
        allow_confident_disputes=True,
        keep=('prototypes_before', 'teacher', 'tau_s', 'pseudo'),
    )
    prototypes = start.clone()
    prototypes[3] = 0
    record_step(reference, vectors, source, step, prototypes)


def record_group(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record the steps of the three variants."""
    basis = draw_basis(draws)
    source = OutputDraws(draws, basis)
    vectors.put_all(
        'steps',
        weak_threshold=WEAK_THRESHOLD,
        un_threshold=UN_THRESHOLD,
        tau_c=0.5,
        alpha=0.99,
        ohem_thresh=0.7,
        cross_warmup=8,
        ramp_max_epoch=200,
    )
    start = torch.round(1024 * (3 * basis + 0.3 * draws.normal(CLASSES, DIM))) / 1024
    chains = (
        [Step('mix.0', 'mix', epoch=0), Step('mix.1', 'mix', epoch=50, dataset='CityScapes')],
        [Step('cross.0', 'cross', epoch=7, warmup=8), Step('cross.1', 'cross', epoch=8, warmup=8)],
        [Step('baseline.0', 'baseline', epoch=0, strong_threshold=UN_THRESHOLD, disputed=0.1)],
    )
    for chain in chains:
        prototypes = start.clone()
        for step in chain:
            record_step(reference, vectors, source, step, prototypes)
    record_released_quirks(reference, vectors, source, start)
