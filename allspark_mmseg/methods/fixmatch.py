"""FixMatch for segmentation, with CutMix, as UniMatch's authors describe it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..mixing import CutMix, cutmix_views
from ..pseudo_label import PseudoLabel, pseudo_label_loss
from ..registry import MODELS
from ..thresholds import build_threshold
from .mix_source import check_mix_source, label_mix_source, views_for
from .semi_segmentor import SemiSegmentor
from .views import Samples, Views

STRONG_VIEWS = ('strong_1',)


@MODELS.register_module()
class FixMatch(SemiSegmentor):
    r"""FixMatch (arXiv 2001.07685), as described by UniMatch (CVPR 2023, arXiv 2208.09910, section 3.1).

    .. code-block:: text

        pseudo, confidence = max softmax student(weak), in training mode; or teacher(weak), if there is one
        strong, pseudo'    = CutMix(strong, pseudo)
        loss               = w_l CE(student(labeled), mask)
                             + w_s sum_i [confidence'_i >= threshold] CE(student(strong)_i, pseudo'_i) / n

    n counts all pixels except padding, also the unconfident ones. So the loss is small if few pixels are
    confident. With a teacher, the method is the FixMatch of UniMatch V2 (arXiv 2410.10777).

    Args:
        segmentor (dict): Config of the student.
        threshold (float or dict): Minimum confidence of a valid pixel, in [0, 1]; or the config of an
            adaptive threshold, see ``build_threshold``.
        labeled_weight (float): w_l.
        strong_weight (float): w_s.
        cutmix (dict, optional): Arguments of ``CutMix``.
        mix_source (str): What CutMix pastes. ``'batch'``: the batch in reverse order (a batch of one image
            stays as it is). ``'same_image'``: another random crop of the same image, as released; it needs
            the views ``mix_weak`` and ``mix_strong_1``.
        ignore_padding (bool): Padding gets no pseudo-label, as released. Needs ``LoadEmptyAnnotations`` in
            the unlabeled pipeline.
        kwargs: As in ``SemiSegmentor``.

    Raises:
        ValueError: ``threshold`` is invalid, or ``mix_source`` is unknown.
    """

    def __init__(
        self,
        segmentor: dict,
        *,
        threshold: float | Mapping = 0.95,
        labeled_weight: float = 0.5,
        strong_weight: float = 0.5,
        cutmix: Mapping | None = None,
        mix_source: str = 'batch',
        ignore_padding: bool = True,
        **kwargs: Any,
    ) -> None:
        check_mix_source('FixMatch', mix_source)
        super().__init__(segmentor, **kwargs)
        self.threshold = build_threshold('FixMatch', threshold, self.num_classes)
        self.labeled_weight = labeled_weight
        self.strong_weight = strong_weight
        self.cutmix = CutMix(**(cutmix or {}))
        self.mix_source = mix_source
        self.ignore_padding = ignore_padding

    @property
    def needed_views(self) -> tuple[str, ...]:
        """``labeled``, ``weak`` and ``strong_1``; for ``'same_image'`` also ``mix_*`` views."""
        return views_for(self.mix_source, STRONG_VIEWS)

    def loss(self, inputs: Views, data_samples: Samples) -> dict[str, Tensor]:
        """Run one training step.

        Args:
            inputs (dict): {view: (N, 3, H, W)}, with the needed views.
            data_samples (dict): {view: N samples}. Samples of ``labeled`` have masks.
                If padding is ignored, samples of ``weak`` and ``mix_weak`` have the maps of
                ``LoadEmptyAnnotations``.

        Returns:
            dict[str, Tensor]: ``sup.*`` and ``unsup.loss_strong_1``, weighted, and ``pseudo.*`` for the log.
        """
        labeled, weak, strong, *_ = self.select_views(inputs, *self.needed_views)
        size, padding = strong.shape[2:], self.padding_mask(data_samples, 'weak')
        boxes = self.cutmix.draw(len(strong), size, strong.device)
        source = None
        if self.mix_source == 'same_image':
            source = label_mix_source(self, inputs, data_samples, STRONG_VIEWS, self.threshold)

        if self.teacher is None:  # the training pass of labeled and weak images also labels the weak ones
            features = self.extract_feat(torch.cat([labeled, weak]))
            logits = self.decode_head(features)
            weak_logits = self.resize_to_input(logits[len(labeled) :], size)
            pseudo = PseudoLabel.from_logits(weak_logits, self.threshold, padding)
        else:
            pseudo = self.make_pseudo_labels(weak, self.threshold, padding)

        (mixed,), (mixed_pseudo,) = cutmix_views([strong], pseudo, [boxes], source)
        if self.teacher is None:
            strong_logits = self.decode_head(self.extract_feat(mixed))
        else:  # one training pass of labeled and mixed strong images
            features = self.extract_feat(torch.cat([labeled, mixed]))
            logits = self.decode_head(features)
            strong_logits = logits[len(labeled) :]

        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        consistency = pseudo_label_loss(
            self.resize_to_input(strong_logits, size), mixed_pseudo, average_over='image'
        )
        losses['unsup.loss_strong_1'] = self.strong_weight * consistency
        return losses | self.log_statistics(pseudo)
