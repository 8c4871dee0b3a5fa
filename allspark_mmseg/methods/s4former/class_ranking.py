"""Negative class ranking: the student learns how the teacher ranks all classes except the pseudo-label."""

import torch
from torch import Tensor

from ...pseudo_label import IGNORE_INDEX

_EPS = 1e-6  # part of the released formula; it keeps the gradient of the norm finite


def negative_class_ranking(logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
    r"""Compute the distance between student and teacher on all classes except the pseudo-label (S4Former).

    .. code-block:: text

        s, t = softmax over the K - 1 other classes of the student's and of the teacher's logits
        loss = sum over pixels with a target of || s - t + 1e-6 ||_2 / number of all pixels

    Args:
        logits (Tensor): (N, K, H, W) float, from the student.
        teacher_logits (Tensor): (N, K, H, W) float; they get no gradient.
        target (Tensor): (N, H, W) int64, in 0..K-1, or 255 for pixels without a target.

    Returns:
        Tensor: Scalar; 0 with a zero gradient when no pixel has a target.
    """
    has_target = target != IGNORE_INDEX
    is_target = torch.zeros_like(logits, dtype=torch.bool)
    is_target.scatter_(1, target.masked_fill(~has_target, 0)[:, None], True)
    student, teacher = (
        each.masked_fill(is_target, float('-inf')).softmax(dim=1)
        for each in (logits, teacher_logits.detach())
    )
    distance = (student - teacher + _EPS).masked_fill(is_target, 0).norm(dim=1)
    return distance.masked_fill(~has_target, 0).mean()
