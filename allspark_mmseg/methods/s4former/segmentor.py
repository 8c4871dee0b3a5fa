"""S4Former: Mean Teacher with patch-adaptive attention, shuffled patches and negative class ranking."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ...mixing import HalfAreaBoxes, MixSource, cutmix_views, paste
from ...pseudo_label import pseudo_label_loss
from ...registry import MODELS
from ...teacher import Teacher
from ...thresholds import check_threshold
from ...utils import require
from ..loss_weights import rampup_weight
from ..semi_segmentor import SemiSegmentor
from ..views import Samples, Views
from .class_ranking import negative_class_ranking
from .patch_attention import check_takes_bias, patch_adaptive_bias, unconfident_share
from .patch_shuffle import PatchShuffle, shuffle, unshuffle


@MODELS.register_module()
class S4Former(SemiSegmentor):
    r"""S4Former (Hu, Jiang and Schiele, CVPR 2024), for segmentors with a plain vision transformer.

    .. code-block:: text

        pseudo, confidence = max softmax teacher(weak); a pixel is valid where confidence > threshold
        z_a      = student(strong), attention biased toward patches where the teacher is unconfident
        z_p      = decode(unshuffle(encode(shuffle(CutMix(strong)))))
        loss     = w_l CE(student(labeled), mask)
                   + r(t) w_u (w_a CE(z_a, pseudo) + w_p CE(z_p, CutMix(pseudo))
                               + w_r ranking(z_p, CutMix(teacher's logits)))
        teacher <- exponential moving average of the student, after the step (MeanTeacherHook)
        r(t)     = exp(-5 (1 - t / ramp_up)^2) for t < ramp_up, else 1

    The student makes three passes, so the norm layers see one kind of images per batch.

    Args:
        segmentor (dict): Config of the student; its backbone takes an ``attention_bias``.
        teacher (dict, optional): Arguments of ``Teacher``; by default ``momentum=0.001`` (a decay of 0.999)
            without warm-up, as released.
        labeled_weight (float): w_l.
        unlabeled_weight (float): w_u.
        unlabeled_view (str): The view on which the student learns, ``strong`` above.
        threshold (float): The confidence of a valid pixel is above this value, in [0, 1].
        attention_weight (float): w_a; 0 skips this pass, and the backbone needs no ``attention_bias``.
        attention_strength (float): lambda of ``patch_adaptive_bias``.
        perturbed_weight (float): w_p.
        ranking_weight (float): w_r.
        cutmix (dict, optional): Arguments of ``HalfAreaBoxes``. CutMix pastes the next image of the batch.
        shuffle (dict, optional): Arguments of ``PatchShuffle``.
        mix_teacher_logits (bool): Mix the teacher's logits like the images before the ranking. The release
            does not mix them, so it compares the pixels of a box with the logits of another image.
        ignore_padding (bool): Padding gets no pseudo-label; in the release it gets one. Needs
            ``LoadEmptyAnnotations`` in the unlabeled pipeline.
        average_over (str): The pixels over which CE of pseudo-labels is averaged: ``'all'``, as released, or
            the ``'confident'`` ones.
        ramp_up (int): Steps of the ramp-up of the unsupervised weight; 0 for none. The teacher counts t.
        kwargs: As in ``SemiSegmentor``.

    Raises:
        ValueError: The backbone takes no ``attention_bias``, a block of ``shuffle`` is not made of whole
            patches, or an argument is out of range.
    """

    teacher: Teacher

    def __init__(
        self,
        segmentor: dict,
        *,
        teacher: dict | None = None,
        labeled_weight: float = 1.0,
        unlabeled_weight: float = 1.0,
        unlabeled_view: str = 'strong_1',
        threshold: float = 0.95,
        attention_weight: float = 0.5,
        attention_strength: float = 5.0,
        perturbed_weight: float = 0.5,
        ranking_weight: float = 0.5,
        cutmix: Mapping | None = None,
        shuffle: Mapping | None = None,
        mix_teacher_logits: bool = True,
        ignore_padding: bool = True,
        average_over: str = 'all',
        ramp_up: int = 0,
        **kwargs: Any,
    ) -> None:
        check_threshold('S4Former', threshold)
        require('S4Former', 'ramp_up', ramp_up, ramp_up >= 0, 'a number of steps of at least 0')
        known = average_over in ('confident', 'all')
        require('S4Former', 'average_over', average_over, known, "'confident' or 'all'")
        teacher = dict(momentum=0.001, warm_up=False) if teacher is None else teacher
        super().__init__(segmentor, teacher=teacher, **kwargs)
        self.labeled_weight = labeled_weight
        self.unlabeled_weight = unlabeled_weight
        self.unlabeled_view = unlabeled_view
        self.threshold = threshold
        self.attention_weight = attention_weight
        self.attention_strength = attention_strength
        self.perturbed_weight = perturbed_weight
        self.ranking_weight = ranking_weight
        self.cutmix = HalfAreaBoxes(**({'prob': 0.5} | dict(cutmix or {})))
        self.shuffle = PatchShuffle(**(shuffle or {}))
        self.mix_teacher_logits = mix_teacher_logits
        self.ignore_padding = ignore_padding
        self.average_over = average_over
        self.ramp_up = ramp_up
        if attention_weight:
            check_takes_bias('S4Former', self.student.backbone)
        patch, block = getattr(self.student.backbone, 'patch_size', 1), self.shuffle.block_size
        expected = f"a multiple of the backbone's patch_size {patch}, so that a block is made of whole tokens"
        require('S4Former', 'shuffle.block_size', block, block % patch == 0, expected)

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
            dict[str, Tensor]: ``sup.*`` and ``unsup.loss_{attention,perturbed,ranking}``, weighted;
            ``pseudo.weight``, which is r(t), and other ``pseudo.*`` for the log.
        """
        labeled, weak, strong = self.select_views(inputs, *self.needed_views)
        size = strong.shape[2:]

        # the supervised pass
        features = self.extract_feat(labeled)
        logits = self.decode_head(features)
        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        losses['pseudo.weight'] = rampup_weight(self.teacher.steps, self.ramp_up)
        weight = self.unlabeled_weight * losses['pseudo.weight']

        # the teacher labels the weak images; a confidence equal to the threshold does not count
        pseudo = self.make_pseudo_labels(weak, self.threshold, self.padding_mask(data_samples, 'weak'))
        pseudo = replace(pseudo, valid=pseudo.valid & (pseudo.confidence > self.threshold))

        # the pass with patch-adaptive self-attention
        if self.attention_weight:
            attention_logits = self._decode_with_bias(strong, pseudo.confidence > self.threshold)
            consistency = pseudo_label_loss(attention_logits, pseudo, self.average_over)
            losses['unsup.loss_attention'] = weight * (self.attention_weight * consistency)

        # the pass with CutMix and shuffled patches
        boxes = self.cutmix.draw(len(strong), size, strong.device)
        next_pseudo = pseudo.without_logits().map(lambda part: part.roll(-1, 0))
        next_images = MixSource([strong.roll(-1, 0)], next_pseudo)
        (mixed,), (mixed_pseudo,) = cutmix_views([strong], pseudo, [boxes], next_images)
        perturbed_logits = self._decode_shuffled(mixed)
        consistency = pseudo_label_loss(perturbed_logits, mixed_pseudo, self.average_over)
        losses['unsup.loss_perturbed'] = weight * (self.perturbed_weight * consistency)

        # negative class ranking of the same pass
        teacher_logits = pseudo.logits
        if self.mix_teacher_logits:
            teacher_logits = paste(teacher_logits, teacher_logits.roll(-1, 0), boxes)
        ranking = negative_class_ranking(perturbed_logits, teacher_logits, mixed_pseudo.target)
        losses['unsup.loss_ranking'] = weight * (self.ranking_weight * ranking)
        return losses | self.log_statistics(pseudo)

    def _decode_with_bias(self, images: Tensor, confident: Tensor) -> Tensor:
        """Decode images with patch-adaptive self-attention.

        Args:
            images (Tensor): (N, 3, H, W).
            confident (Tensor): (N, H, W) bool, True for pixels where the teacher is confident, including
                padding.

        Returns:
            Tensor: Logits (N, K, H, W).
        """
        share = unconfident_share(confident, self.student.backbone.patch_size)
        bias = patch_adaptive_bias(share, self.attention_strength)
        features = self.student.backbone(images, attention_bias=bias)
        if self.student.with_neck:
            features = self.student.neck(features)
        return self.resize_to_input(self.decode_head(features), images.shape[2:])

    def _decode_shuffled(self, images: Tensor) -> Tensor:
        """Encode shuffled images (N, 3, H, W), unshuffle and decode the features to logits (N, K, H, W)."""
        grid = self.shuffle.grid(images.shape[2:])
        permutation = self.shuffle.draw(len(images), grid, images.device)
        features = self.extract_feat(shuffle(images, permutation, grid))
        logits = self.decode_head([unshuffle(feature, permutation, grid) for feature in features])
        return self.resize_to_input(logits, images.shape[2:])

    def check_input_size(self, images: Tensor) -> None:
        """Check that blocks tile the training images.

        Args:
            images (Tensor): (N, 3, H, W).

        Raises:
            ValueError: A side of the images is not a multiple of the block size.
        """
        self.shuffle.grid(images.shape[2:])
