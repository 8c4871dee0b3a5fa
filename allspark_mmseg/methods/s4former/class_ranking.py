"""Negative class ranking: the student rates the wrong classes as the teacher does."""

import torch
from torch import Tensor

from ...pseudo_label import IGNORE_INDEX

_EPSILON = 1e-6  # of the released distance: it keeps the gradient of the norm finite


def negative_class_ranking(logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
    r"""Distance of student and teacher on all classes but the pseudo-label's (S4Former, CVPR 2024).

    .. code-block:: text

        s, t = softmax over the K - 1 other classes of the student's and of the teacher's logits
        loss = sum over pixels with a label of || s - t + 1e-6 ||_2 / number of all pixels

    Args:
        logits: (N, K, H, W), the student's.
        teacher_logits: (N, K, H, W); no gradient goes to them.
        target: (N, H, W) int64, 0..K-1 or 255.

    Returns:
        Tensor: scalar; 0 (with a zero gradient) when no pixel has a label.
    """
    labeled = target != IGNORE_INDEX
    own = torch.zeros_like(logits, dtype=torch.bool)
    own.scatter_(1, target.masked_fill(~labeled, 0)[:, None], True)
    student, teacher = (
        each.masked_fill(own, float('-inf')).softmax(dim=1) for each in (logits, teacher_logits.detach())
    )
    distance = (student - teacher + _EPSILON).masked_fill(own, 0).norm(dim=1)
    return distance.masked_fill(~labeled, 0).mean()
