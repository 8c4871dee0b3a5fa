"""Self-training with online pseudo-labels: the semi-supervised baseline of AllSpark."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..pseudo_label import pseudo_label_loss
from ..registry import MODELS
from ..thresholds import build_threshold
from .semi_segmentor import SemiSegmentor
from .views import Samples, Views


@MODELS.register_module()
class SelfTraining(SemiSegmentor):
    r"""Self-training as the AllSpark paper uses it (Wang et al., CVPR 2024, arXiv 2403.01818, section 3.1).

    .. code-block:: text

        pseudo = argmax student(weak), in eval mode, where its probability >= threshold
        loss   = w_l CE(student(labeled), mask) + w_u CE(student(unlabeled), pseudo)

    In the paper, the pseudo-labels are learned on the weak view itself (``unlabeled_view='weak'``), and the
    threshold is 0.

    Args:
        segmentor (dict): Config of the student.
        labeled_weight (float): w_l; 0.5 in the paper.
        unlabeled_weight (float): w_u; 0.5 in the paper.
        unlabeled_view (str): The view on which the student learns the pseudo-labels of ``weak``.
        threshold (float or dict): Minimum confidence of a valid pixel, in [0, 1]; or the config of an
            adaptive threshold, see ``build_threshold``. The loss is the mean over the valid pixels.
        ignore_padding (bool): Exclude padding from the loss on pseudo-labels. The releases include it. Needs
            ``LoadEmptyAnnotations`` in the unlabeled pipeline.
        kwargs: As in ``SemiSegmentor``. With a teacher, the teacher makes the pseudo-labels.

    Raises:
        ValueError: ``threshold`` is invalid.
    """

    def __init__(
        self,
        segmentor: dict,
        *,
        labeled_weight: float = 0.5,
        unlabeled_weight: float = 0.5,
        unlabeled_view: str = 'weak',
        threshold: float | Mapping = 0.0,
        ignore_padding: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(segmentor, **kwargs)
        self.unlabeled_view = unlabeled_view
        self.threshold = build_threshold('SelfTraining', threshold, self.num_classes)
        self.labeled_weight = labeled_weight
        self.unlabeled_weight = unlabeled_weight
        self.ignore_padding = ignore_padding

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
            dict[str, Tensor]: ``sup.*`` and ``unsup.loss_ce``, weighted, and ``pseudo.*`` for the log.
        """
        labeled, weak, unlabeled = self.select_views(inputs, *self.needed_views)

        # pseudo-labels, before the training pass moves the running statistics
        pseudo = self.make_pseudo_labels(weak, self.threshold, self.padding_mask(data_samples, 'weak'))

        # one training pass of all images
        features = self.extract_feat(torch.cat([labeled, unlabeled]))
        logits = self.decode_head(features)
        unlabeled_logits = self.resize_to_input(logits[len(labeled) :], unlabeled.shape[2:])

        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        losses['unsup.loss_ce'] = self.unlabeled_weight * pseudo_label_loss(unlabeled_logits, pseudo)
        return losses | self.log_statistics(pseudo)
