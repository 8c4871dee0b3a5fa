"""UniMatch: two strong views of the image and a perturbation of the features."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..mixing import CutMix, cutmix_views
from ..pseudo_label import PseudoLabel, pseudo_label_loss
from ..registry import MODELS
from ..thresholds import build_threshold
from ..utils import require
from .mix_source import check_mix_source, label_mix_source, views_for
from .semi_segmentor import SemiSegmentor
from .student import check_feature_maps, eval_mode
from .views import Samples, Views

STRONG_VIEWS = ('strong_1', 'strong_2')


@MODELS.register_module()
class UniMatch(SemiSegmentor):
    r"""UniMatch (Yang et al., CVPR 2023, arXiv 2208.09910, section 3 and algorithm 1).

    .. code-block:: text

        z_l, z_w           = decode(encode([labeled, weak]))
        z_p                = decode(channel dropout(encode(weak)))       in the same pass of the decoder
        pseudo, confidence = max softmax z_w; or teacher(weak), if there is one
        s_1, s_2           = CutMix of two strong views, with different boxes
        loss               = w_l CE(z_l, mask) + w_s (L(student(s_1)) + L(student(s_2))) + w_p L(z_p)
        L(z)               = sum_i [confidence_i >= threshold] CE(z_i, pseudo_i) / n

    n is the number of pixels that are not padding. In L, CutMix mixes pseudo-labels as it mixes the images.
    The perturbation drops channels of the features that enter the decode head, level by level. So it works
    with any decode head.

    Args:
        segmentor (dict): Config of the student.
        threshold (float or dict): Minimum confidence of a valid pixel, in [0, 1]; or the config of an
            adaptive threshold, see ``build_threshold``.
        labeled_weight (float): w_l.
        strong_weight (float): w_s, for each of the two strong views.
        perturbed_weight (float): w_p.
        drop_rate (float): Probability that a channel is dropped, in [0, 1).
        cutmix (dict, optional): Arguments of ``CutMix``.
        mix_source (str): What CutMix pastes. ``'batch'``: the batch in reverse order (a batch of one image
            stays as it is). ``'same_image'``: another random crop of the same image, as released; it needs
            the views ``mix_weak``, ``mix_strong_1`` and ``mix_strong_2``.
        ignore_padding (bool): Padding gets no pseudo-label, as released. Needs ``LoadEmptyAnnotations`` in
            the unlabeled pipeline.
        kwargs: As in ``SemiSegmentor``.

    Raises:
        ValueError: ``threshold`` or ``drop_rate`` is invalid, or ``mix_source`` is unknown.
    """

    def __init__(
        self,
        segmentor: dict,
        *,
        threshold: float | Mapping = 0.95,
        labeled_weight: float = 0.5,
        strong_weight: float = 0.125,
        perturbed_weight: float = 0.25,
        drop_rate: float = 0.5,
        cutmix: Mapping | None = None,
        mix_source: str = 'batch',
        ignore_padding: bool = True,
        **kwargs: Any,
    ) -> None:
        check_mix_source('UniMatch', mix_source)
        require('UniMatch', 'drop_rate', drop_rate, 0 <= drop_rate < 1, 'a probability in [0, 1)')
        super().__init__(segmentor, **kwargs)
        self.threshold = build_threshold('UniMatch', threshold, self.num_classes)
        self.labeled_weight = labeled_weight
        self.strong_weight = strong_weight
        self.perturbed_weight = perturbed_weight
        self.drop_rate = drop_rate
        self.cutmix = CutMix(**(cutmix or {}))
        self.mix_source = mix_source
        self.ignore_padding = ignore_padding

    @property
    def needed_views(self) -> tuple[str, ...]:
        """``labeled``, ``weak``, ``strong_1`` and ``strong_2``; for ``'same_image'`` also ``mix_*`` views."""
        return views_for(self.mix_source, STRONG_VIEWS)

    def loss(self, inputs: Views, data_samples: Samples) -> dict[str, Tensor]:
        """Run one training step.

        Args:
            inputs (dict): {view: (N, 3, H, W)}, with the needed views.
            data_samples (dict): {view: N samples}. Samples of ``labeled`` have masks.
                If padding is ignored, samples of ``weak`` and ``mix_weak`` have the maps of
                ``LoadEmptyAnnotations``.

        Returns:
            dict[str, Tensor]: ``sup.*``, ``unsup.loss_strong_1``, ``unsup.loss_strong_2`` and
            ``unsup.loss_perturbed``, weighted, and ``pseudo.*`` for the log.
        """
        labeled, weak, *views = self.select_views(inputs, *self.needed_views)
        strong, size = views[: len(STRONG_VIEWS)], weak.shape[2:]
        boxes = [self.cutmix.draw(len(weak), size, weak.device) for _ in strong]
        source = None
        if self.mix_source == 'same_image':
            source = label_mix_source(self, inputs, data_samples, STRONG_VIEWS, self.threshold)

        # labeled and weak images, without and with dropped channels. Only the weak half of the dropped ones
        # enters the loss, but the norm layers of the decoder see all of them, as released
        features = self.extract_feat(torch.cat([labeled, weak]))
        perturbed = [F.dropout2d(feature, self.drop_rate) for feature in features]
        logits = self.decode_head([torch.cat(pair) for pair in zip(features, perturbed, strict=True)])
        logits, perturbed_logits = logits.chunk(2)
        perturbed_logits = self.resize_to_input(perturbed_logits[len(labeled) :], size)

        padding = self.padding_mask(data_samples, 'weak')
        if self.teacher is None:
            weak_logits = self.resize_to_input(logits[len(labeled) :], size)
            pseudo = PseudoLabel.from_logits(weak_logits, self.threshold, padding)
        else:
            pseudo = self.make_pseudo_labels(weak, self.threshold, padding)

        # a second pass, of the mixed strong images
        mixed, mixed_pseudo = cutmix_views(strong, pseudo, boxes, source)
        strong_logits = self.decode_head(self.extract_feat(torch.cat(mixed))).chunk(2)

        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        for view, of_view, target in zip(STRONG_VIEWS, strong_logits, mixed_pseudo, strict=True):
            consistency = pseudo_label_loss(self.resize_to_input(of_view, size), target, average_over='image')
            losses[f'unsup.loss_{view}'] = self.strong_weight * consistency
        consistency = pseudo_label_loss(perturbed_logits, pseudo, average_over='image')
        losses['unsup.loss_perturbed'] = self.perturbed_weight * consistency
        return losses | self.log_statistics(pseudo)

    @torch.no_grad()
    def check_input_size(self, images: Tensor) -> None:
        """Check that the features of training images are maps, whose channels can be dropped.

        Args:
            images (Tensor): (N, 3, H, W).

        Raises:
            ValueError: A feature is not a map (N, C, h, w).
        """
        with eval_mode(self.student):
            check_feature_maps('UniMatch', self.extract_feat(images), self.decode_head)
