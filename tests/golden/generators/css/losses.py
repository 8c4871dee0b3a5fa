"""Vectors of CSS's unsupervised loss and OHEM cross-entropy (``generalframeworks/loss/loss.py``)."""

import contextlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .record import Draws, Vectors
from .reference import Reference
from .tracing import local_values

# threshold, min_kept of the batch, share of ignored pixels, whether min_kept is the number of valid pixels
OHEM_CASES = [
    (0.7, 20, 0.1, False),
    (0.05, 70, 0.1, False),
    (0.7, 90, 0.2, False),
    (0.3, 1, 0.0, False),
    (0.7, 30, 0.3, True),
]


def record_loss(
    reference: Reference,
    vectors: Vectors,
    name: str,
    inputs: tuple[Tensor, Tensor, Tensor],
    with_logits: bool = False,
) -> None:
    """Run the released loss on logits (N, C, H, W), label (N, H, W) and confidence (N, H, W)."""
    logits, label, conf = inputs
    loss_class = reference.losses.Attention_Threshold_Loss
    logits = logits.clone().requires_grad_(True)
    with local_values(loss_class.forward) as seen:
        loss = loss_class(strong_threshold=0.97)(logits, label, conf)
    loss.backward()
    if with_logits:
        vectors.put(f'{name}.pred', logits)
    vectors.put_all(
        name,
        label=label,
        conf=conf,
        image_weight=seen[loss_class.forward.__qualname__][0]['weighting'],
        loss=loss.item(),
        grad=logits.grad,
    )


def saturate(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Make the cross-entropy of some pixels exactly zero; return the new logits and label."""
    logits, label = logits.clone(), label.clone()
    logits[0] = -60
    logits[0, 2] = 60
    label[0, 3] = 2
    label[2, 0] = label[2, 0].clamp(min=0)
    logits[2, :, 0] = -60
    index = label[2:3].clamp(min=0)
    first_row = torch.arange(7)[:, None] == 0
    values = torch.where(first_row, torch.tensor(60.0), logits[2].gather(0, index)[0])[None]
    logits[2].scatter_(0, index, values)
    return logits, label


def record_unsupervised_loss(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record a common case and the cases in which the released loss is special."""
    logits, label = draws.grid(3, 4, 7, 8, scale=2.0), draws.integers(0, 4, 3, 7, 8)
    conf = torch.round(256 * (1 - 0.5 * draws.uniform(3, 7, 8) ** 3)) / 256
    label[0, :3] = -1
    conf[0, :3] = 0.5
    label[2, :, 6:] = -1
    conf[2, :, 6:] = 0
    conf[1, 0, :5] = np.float32(0.97).item()
    conf[1, 4:] = 0.875
    record_loss(reference, vectors, 'unsup', (logits, label, conf), with_logits=True)

    conf = torch.full((3, 7, 8), 0.984375)  # confident pixels without a label
    conf[1, 3:] = 0.5
    label[0, 4:] = -1
    record_loss(reference, vectors, 'as_released.unsup_weight_over_one', (logits, label, conf))
    saturated = (*saturate(logits, label), conf)
    record_loss(reference, vectors, 'as_released.unsup_zero_losses', saturated, with_logits=True)
    ignored = label.clone()
    ignored[1] = -1
    record_loss(reference, vectors, 'as_released.unsup_image_all_ignored', (logits, ignored, conf))
    ignored = torch.full_like(label, -1)
    record_loss(reference, vectors, 'as_released.unsup_all_ignored', (logits, ignored, conf))


def record_ohem(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record OHEM cross-entropy; ``min_kept`` is passed as the number for the whole batch."""
    loss_class = reference.losses.ProbOhemCrossEntropy2d
    for k, (threshold, min_kept, ignored, keeps_all_valid) in enumerate(OHEM_CASES):
        logits, label = draws.grid(2, 5, 6, 8, scale=2.0), draws.integers(0, 5, 2, 6, 8)
        label[draws.uniform(2, 6, 8) < ignored] = -1
        if keeps_all_valid:
            min_kept = int((label >= 0).sum())
            logits = logits * 2 + 4 * F.one_hot(label.clamp(min=0), 5).permute(0, 3, 1, 2)
        logits.requires_grad_(True)
        with local_values(loss_class.forward) as seen, contextlib.redirect_stdout(None):
            loss = loss_class(-1, thresh=threshold, min_kept=min_kept)(logits, label.clone())
        loss.backward()
        kept = seen[loss_class.forward.__qualname__][0]['target'] >= 0
        vectors.put_all(
            f'ohem.{k}',
            thresh=threshold,
            min_kept=min_kept,
            logits=logits,
            label=label,
            kept=kept,
            loss=loss.item(),
            grad=logits.grad,
        )
