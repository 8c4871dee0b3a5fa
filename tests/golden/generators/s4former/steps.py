"""Vectors of S4Former's training iterations."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .network import SIZE, THRESHOLD, Setup
from .record import Vectors, seed_global_generators
from .training import LEARNING_RATE, MOMENTUM, Iteration, Run, Trainer, is_decided, is_suitable

FULL_GRADS = (
    'backbone.cls_token',
    'backbone.pos_embed',
    'backbone.layers.3.attn.attn.in_proj_weight',
    'decode_head.conv_seg.weight',
    'auxiliary_head.0.conv_seg.weight',
)
STEPS = 3
WITHOUT_CUTMIX: dict[str, Any] = dict(unsup_weight=1.0, strong_aug_prob=0.0)
WITH_CUTMIX: dict[str, Any] = dict(unsup_weight=2.0, strong_aug_prob=1.0)
MEAN_TEACHER: dict[str, Any] = dict(
    unsup_weight=1.0,
    attn_mask_seperate_head=False,
    adaptive_attn_mask=False,
    use_PatchShuffle_w_Cutmix=False,
    negative_class_ranking=False,
    attn_mask_weight=50,
)


def dot(tensor: Tensor) -> float:
    """Return the sum of x_i cos(i) over the flat tensor, which depends on every value and on its place."""
    weights = torch.cos(torch.arange(tensor.numel(), dtype=torch.double))
    return float((tensor.detach().double().reshape(-1) * weights).sum())


def store_iteration(vectors: Vectors, prefix: str, iteration: Iteration, params: list[str]) -> None:
    """Store draws, losses and the norms and dots of the gradients of ``params``."""
    vectors.put_all(
        prefix,
        perm=torch.stack(iteration.permutations),
        mask=iteration.mask,
        unconfident=iteration.unconfident[1],
        label=iteration.labels[0],
        losses=list(iteration.losses.values()),
        total=iteration.total,
        grad_norm=[float(iteration.grads[name].norm()) for name in params],
        grad_dot=[dot(iteration.grads[name]) for name in params],
    )
    if iteration.boxes:
        vectors.put_all(prefix, boxes=iteration.boxes, label_mixed=iteration.labels[1])


def store_outputs(vectors: Vectors, prefix: str, iteration: Iteration) -> None:
    """Store the perturbed images, some gradients, and samples of the logits."""
    vectors.put(f'{prefix}.image_perturbed', iteration.images[1])
    for name in FULL_GRADS:
        vectors.put(f'{prefix}.grad.{name}', iteration.grads[name])
    logits = dict(
        teacher=iteration.teacher_logits,
        sup=iteration.sup_logits,
        pasa=iteration.student_logits[0],
        perturbed=iteration.student_logits[1],
    )
    for name, value in logits.items():
        vectors.put(f'{prefix}.logits_{name}_every_16th', value[..., 5::16, 9::16])


def choose_weak_view(setup: Setup) -> None:
    """Draw weak views until the first iteration, whose teacher sees only this view, is decided."""

    def run() -> Run:
        side = SIZE // 16
        noise = torch.round(torch.randn(3, 3, side, side) * 16).div(64)
        setup.weak = setup.strong + noise.repeat_interleave(16, 2).repeat_interleave(16, 3)
        return Trainer(setup, **WITHOUT_CUTMIX).run(1)

    setup.draws.first(run, lambda result: is_decided(result[0][0]), 'the weak view')


def record_training(vectors: Vectors, setup: Setup) -> list[str]:
    """Record three iterations; return the names of the parameters that have gradients."""
    choose_weak_view(setup)
    iterations, final = setup.draws.first(
        lambda: Trainer(setup, **WITHOUT_CUTMIX).run(STEPS), is_suitable, 'training'
    )
    params = list(iterations[0].grads)
    teacher = {key: value for key, value in iterations[0].teacher.items() if 'num_batches' not in key}
    state = {key: value for key, value in final.items() if 'num_batches' not in key}
    vectors.put_all(
        'train',
        sup_image=setup.labeled,
        sup_label=setup.label,
        student_image=setup.strong,
        teacher_image=setup.weak,
        loss_names=list(iterations[0].losses),
        params=params,
        states=list(state),
        lr=LEARNING_RATE,
        head_lr=10 * LEARNING_RATE,
        momentum=MOMENTUM,
        ema=0.98,
        tau=THRESHOLD,
        beta=1.0,
        block_tokens=2,
        teacher_states=list(teacher),
        final_norm=[float(value.norm()) for value in state.values()],
        final_dot=[dot(value) for value in state.values()],
    )
    for t, iteration in enumerate(iterations):
        store_iteration(vectors, f'train.{t}', iteration, params)
    store_outputs(vectors, 'train.0', iterations[0])
    vectors.put('train.0.teacher_dot', [dot(value) for value in teacher.values()])
    return params


def record_cutmix(vectors: Vectors, setup: Setup, params: list[str]) -> None:
    """Record an iteration with CutMix, as released and with the teacher's logits mixed like the labels."""
    state: list[Any] = []

    def run() -> Run:
        state[:] = torch.get_rng_state(), np.random.get_state()
        return Trainer(setup, **WITH_CUTMIX).run(1)

    (mixed,), _ = setup.draws.first(run, is_suitable, 'training with CutMix')
    store_iteration(vectors, 'as_released.train_cutmix', mixed, params)
    vectors.put('as_released.train_cutmix.beta', WITH_CUTMIX['unsup_weight'])

    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    (again,), _ = Trainer(setup, mix_teacher=True, **WITH_CUTMIX).run(1)
    assert again.boxes == mixed.boxes
    assert again.losses['loss_seg_unsup'] == mixed.losses['loss_seg_unsup']
    vectors.put_all('teacher_mixed.train_cutmix', losses=list(again.losses.values()), total=again.total)


def record_mean_teacher(vectors: Vectors, setup: Setup) -> None:
    """Record an iteration of the released Mean Teacher."""
    seed_global_generators(setup.draws.seed)
    (iteration,), _ = Trainer(setup, **MEAN_TEACHER).run(1)
    vectors.put_all(
        'as_released.mean_teacher',
        loss_names=list(iteration.losses),
        losses=list(iteration.losses.values()),
        total=iteration.total,
    )


def record_group(vectors: Vectors, setup: Setup) -> None:
    """Record all iterations."""
    params = record_training(vectors, setup)
    record_cutmix(vectors, setup, params)
    record_mean_teacher(vectors, setup)
