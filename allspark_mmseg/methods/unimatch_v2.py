"""UniMatch V2: a teacher, and two strong views whose dropped channels complement each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..mixing import CutMix, cutmix_views
from ..pseudo_label import pseudo_label_loss
from ..registry import MODELS
from ..teacher import Teacher
from ..thresholds import build_threshold
from ..utils import require
from .mix_source import check_mix_source, label_mix_source, views_for
from .semi_segmentor import SemiSegmentor
from .student import check_feature_maps, eval_mode
from .views import Samples, Views

STRONG_VIEWS = ('strong_1', 'strong_2')


@MODELS.register_module()
class UniMatchV2(SemiSegmentor):
    r"""UniMatch V2 (Yang et al., TPAMI 2025, arXiv 2410.10777, section 3).

    .. code-block:: text

        pseudo, confidence = max softmax teacher(weak)
        s_1, s_2           = CutMix of two strong views, with different boxes
        z_1, z_2           = decode(complementary dropout(encode([s_1, s_2])))       (section 3.3)
        loss               = w_l CE(student(labeled), mask) + w_s (L(z_1) + L(z_2))
        L(z)               = sum_i [confidence_i >= threshold] CE(z_i, pseudo_i) / n
        teacher           <- exponential moving average of the student, after the step (MeanTeacherHook)

    n is the number of pixels that are not padding. In L, CutMix mixes pseudo-labels as it mixes the images.

    Args:
        segmentor (dict): Config of the student.
        teacher (dict, optional): Arguments of ``Teacher``. The defaults follow the release.
        threshold (float or dict): Minimum confidence of a valid pixel, in [0, 1]; or the config of an
            adaptive threshold, see ``build_threshold``.
        labeled_weight (float): w_l.
        strong_weight (float): w_s, for each of the two strong views.
        no_dropout_ratio (float): Share of the images whose two strong views have no dropout, in [0, 1].
        cutmix (dict, optional): Arguments of ``CutMix``.
        mix_source (str): What CutMix pastes. ``'batch'``: the batch in reverse order, as released (a batch of
            one image stays as it is). ``'same_image'``: another random crop of the same image; it needs the
            views ``mix_weak``, ``mix_strong_1`` and ``mix_strong_2``.
        ignore_padding (bool): Padding gets no pseudo-label, as released. Needs ``LoadEmptyAnnotations`` in
            the unlabeled pipeline.
        kwargs: As in ``SemiSegmentor``.

    Raises:
        ValueError: ``threshold`` or ``no_dropout_ratio`` is invalid, or ``mix_source`` is unknown.
    """

    teacher: Teacher

    def __init__(
        self,
        segmentor: dict,
        *,
        teacher: dict | None = None,
        threshold: float | Mapping = 0.95,
        labeled_weight: float = 0.5,
        strong_weight: float = 0.25,
        no_dropout_ratio: float = 0.5,
        cutmix: Mapping | None = None,
        mix_source: str = 'batch',
        ignore_padding: bool = True,
        **kwargs: Any,
    ) -> None:
        check_mix_source('UniMatchV2', mix_source)
        valid = 0 <= no_dropout_ratio <= 1
        require('UniMatchV2', 'no_dropout_ratio', no_dropout_ratio, valid, 'a share in [0, 1]')
        super().__init__(segmentor, teacher=teacher or {}, **kwargs)
        self.threshold = build_threshold('UniMatchV2', threshold, self.num_classes)
        self.labeled_weight = labeled_weight
        self.strong_weight = strong_weight
        self.no_dropout_ratio = no_dropout_ratio
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
            dict[str, Tensor]: ``sup.*``, ``unsup.loss_strong_1`` and ``unsup.loss_strong_2``, weighted, and
            ``pseudo.*`` for the log.
        """
        labeled, weak, *views = self.select_views(inputs, *self.needed_views)
        strong, size = views[: len(STRONG_VIEWS)], weak.shape[2:]

        # the teacher labels the weak images
        pseudo = self.make_pseudo_labels(weak, self.threshold, self.padding_mask(data_samples, 'weak'))

        # CutMix of both strong views
        boxes = [self.cutmix.draw(len(weak), size, weak.device) for _ in strong]
        source = None
        if self.mix_source == 'same_image':
            source = label_mix_source(self, inputs, data_samples, STRONG_VIEWS, self.threshold)
        mixed, mixed_pseudo = cutmix_views(strong, pseudo, boxes, source)

        # a training pass of the labeled images, then one of the strong images with complementary dropout
        features = self.extract_feat(labeled)
        logits = self.decode_head(features)
        strong_features = complementary_dropout(self.extract_feat(torch.cat(mixed)), self.no_dropout_ratio)
        strong_logits = self.decode_head(strong_features).chunk(2)

        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        for view, of_view, target in zip(STRONG_VIEWS, strong_logits, mixed_pseudo, strict=True):
            consistency = pseudo_label_loss(self.resize_to_input(of_view, size), target, average_over='image')
            losses[f'unsup.loss_{view}'] = self.strong_weight * consistency
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
            check_feature_maps('UniMatchV2', self.extract_feat(images), self.decode_head)


def complementary_dropout(features: Sequence[Tensor], no_dropout_ratio: float = 0.5) -> list[Tensor]:
    """Drop each channel in one of the two images of a pair and double it in the other (section 3.3).

    Levels with the same number of channels use the same mask, like the four levels of the release. A level
    with another number of channels has its own mask.

    Args:
        features (Sequence[Tensor]): (2B, C_i, h_i, w_i) for each level. Image i and image B + i are a pair.
        no_dropout_ratio (float): Share of the pairs without dropout, in [0, 1]; their number is rounded down.

    Returns:
        list[Tensor]: (2B, C_i, h_i, w_i) for each level.
    """
    pairs, device = len(features[0]) // 2, features[0].device
    kept = (torch.randperm(pairs, device=device) < int(pairs * no_dropout_ratio))[:, None]
    masks = {}
    for width in dict.fromkeys(feature.shape[1] for feature in features):
        first = 2.0 * torch.randint(2, (pairs, width), device=device)
        masks[width] = torch.cat([first, 2 - first]).masked_fill(kept.repeat(2, 1), 1)[:, :, None, None]
    return [feature * masks[feature.shape[1]].to(feature.dtype) for feature in features]
