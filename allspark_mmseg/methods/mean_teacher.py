"""Mean Teacher for segmentation."""

import torch
from torch import Tensor

from ..pseudo_label import PseudoLabel, masked_cross_entropy
from ..registry import MODELS
from .self_training import SelfTraining


@MODELS.register_module()
class MeanTeacher(SelfTraining):
    r"""Mean Teacher (Tarvainen and Valpola, NeurIPS 2017, arXiv 1703.01780), with hard labels.

    .. code-block:: text

        pseudo-label = teacher(weak view), where it is confident
        loss         = w_l CE(student(labeled), mask) + r(t) w_u CE(student(strong view), pseudo-label)
        teacher     <- average of student and teacher, after the step
        r(t)         = exp(-5 (1 - t / ramp_up)^2), 1 from step ``ramp_up`` on

    Args:
        segmentor: config of the student.
        teacher: arguments of ``Teacher``.
        unlabeled_view: the view that the student learns from.
        threshold: the teacher's confidence from which a pixel counts, in [0, 1].
        average_over: which pixels the loss on pseudo-labels is averaged over: the ``'confident'`` ones that
            it sums, or ``'all'``, so that few confident ones make a small loss, as in S4Former.
        ramp_up: steps t over which the unsupervised weight rises; 0 for none. The teacher's counter counts.
        kwargs: as in ``SelfTraining``.

    Raises:
        ValueError: ``ramp_up`` is negative, or ``average_over`` is unknown.
    """

    def __init__(
        self,
        segmentor: dict,
        *,
        teacher: dict | None = None,
        unlabeled_view: str = 'strong_1',
        threshold: float = 0.95,
        average_over: str = 'confident',
        ramp_up: int = 0,
        **kwargs,
    ):
        if ramp_up < 0:
            raise ValueError(f'MeanTeacher: ramp_up is {ramp_up} steps, expected at least 0.')
        if average_over not in ('confident', 'all'):
            raise ValueError(f"MeanTeacher: average_over is {average_over!r}, expected 'confident' or 'all'.")
        super().__init__(
            segmentor, teacher=teacher or {}, unlabeled_view=unlabeled_view, threshold=threshold, **kwargs
        )
        self.average_over = average_over
        self.ramp_up = ramp_up

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One training step; adds ``pseudo.weight``, r in [0, 1], to what self-training returns."""
        losses = super().loss(inputs, data_samples)
        losses['pseudo.weight'] = self.weight()
        losses['unsup.loss_ce'] = losses['unsup.loss_ce'] * losses['pseudo.weight']
        return losses

    def unsupervised_loss(self, logits: Tensor, pseudo: PseudoLabel) -> Tensor:
        """Cross-entropy, a scalar, of logits (N, K, H, W), averaged over the pixels of ``average_over``."""
        counted = torch.ones_like(pseudo.valid) if self.average_over == 'all' else None
        return masked_cross_entropy(logits, pseudo.target, counted)

    def weight(self) -> Tensor:
        """Scalar in [e^-5, 1]: r of the step to come."""
        left = 1 - (self.teacher.steps / max(self.ramp_up, 1)).clamp(max=1)
        return torch.exp(-5 * left**2) if self.ramp_up else torch.ones_like(left)
