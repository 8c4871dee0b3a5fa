"""Mean Teacher for segmentation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..pseudo_label import pseudo_label_loss
from ..registry import MODELS
from ..teacher import Teacher
from ..thresholds import build_threshold
from ..utils import require
from .loss_weights import rampup_weight
from .semi_segmentor import SemiSegmentor
from .views import Samples, Views


@MODELS.register_module()
class MeanTeacher(SemiSegmentor):
    r"""Mean Teacher (Tarvainen and Valpola, NeurIPS 2017, arXiv 1703.01780), with hard pseudo-labels.

    .. code-block:: text

        pseudo   = argmax teacher(weak), where its probability >= threshold
        loss     = w_l CE(student(labeled), mask) + w_u r(t) CE(student(unlabeled), pseudo)
        teacher <- exponential moving average of the student, after the step (MeanTeacherHook)
        r(t)     = exp(-5 (1 - t / ramp_up)^2) for t < ramp_up, else 1

    The paper's consistency loss is the mean squared error between the predicted probabilities; this method
    uses hard pseudo-labels instead.

    Args:
        segmentor (dict): Config of the student.
        teacher (dict, optional): Arguments of ``Teacher``.
        labeled_weight (float): w_l.
        unlabeled_weight (float): w_u.
        unlabeled_view (str): The view on which the student learns.
        threshold (float or dict): Minimum confidence of a valid pixel, in [0, 1]; or the config of an
            adaptive threshold, see ``build_threshold``.
        ignore_padding (bool): Padding gets no pseudo-label. Needs ``LoadEmptyAnnotations`` in the unlabeled
            pipeline.
        average_over (str): The pixels over which the loss on pseudo-labels is averaged: the ``'confident'``
            ones, or ``'all'``.
        ramp_up (int): Steps of the ramp-up of the unsupervised weight; 0 for none. The teacher counts t.
        kwargs: As in ``SemiSegmentor``.

    Raises:
        ValueError: ``threshold`` is invalid, ``ramp_up`` is negative, or ``average_over`` is unknown.
    """

    teacher: Teacher

    def __init__(
        self,
        segmentor: dict,
        *,
        teacher: dict | None = None,
        labeled_weight: float = 0.5,
        unlabeled_weight: float = 0.5,
        unlabeled_view: str = 'strong_1',
        threshold: float | Mapping = 0.95,
        ignore_padding: bool = False,
        average_over: str = 'confident',
        ramp_up: int = 0,
        **kwargs: Any,
    ) -> None:
        require('MeanTeacher', 'ramp_up', ramp_up, ramp_up >= 0, 'a number of steps of at least 0')
        known = average_over in ('confident', 'all')
        require('MeanTeacher', 'average_over', average_over, known, "'confident' or 'all'")
        super().__init__(segmentor, teacher=teacher or {}, **kwargs)
        self.labeled_weight = labeled_weight
        self.unlabeled_weight = unlabeled_weight
        self.unlabeled_view = unlabeled_view
        self.threshold = build_threshold('MeanTeacher', threshold, self.num_classes)
        self.ignore_padding = ignore_padding
        self.average_over = average_over
        self.ramp_up = ramp_up

    @property
    def needed_views(self) -> tuple[str, ...]:
        """``labeled``, ``weak`` and ``unlabeled_view``."""
        return ('labeled', 'weak', self.unlabeled_view)

    def loss(self, inputs: Views, data_samples: Samples) -> dict[str, Tensor]:
        """Run one training step.

        Args:
            inputs (dict): {view: (N, 3, H, W)}, with the needed views.
            data_samples (dict): {view: N samples}. Samples of ``labeled`` have masks.
                If padding is ignored, samples of ``weak`` have the maps of ``LoadEmptyAnnotations``.

        Returns:
            dict[str, Tensor]: ``sup.*`` and ``unsup.loss_ce``, weighted; ``pseudo.weight``, which is r(t),
            and other ``pseudo.*`` for the log.
        """
        labeled, weak, unlabeled = self.select_views(inputs, *self.needed_views)

        # the teacher's pseudo-labels of the weak view
        pseudo = self.make_pseudo_labels(weak, self.threshold, self.padding_mask(data_samples, 'weak'))

        # the student's training pass
        features = self.extract_feat(torch.cat([labeled, unlabeled]))
        logits = self.decode_head(features)
        unlabeled_logits = self.resize_to_input(logits[len(labeled) :], unlabeled.shape[2:])

        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        rampup = rampup_weight(self.teacher.steps, self.ramp_up)
        consistency = pseudo_label_loss(unlabeled_logits, pseudo, self.average_over)
        losses['unsup.loss_ce'] = self.unlabeled_weight * consistency * rampup
        return losses | self.log_statistics(pseudo) | {'pseudo.weight': rampup}
