"""S4Former: Mean Teacher with shuffled patches, patch-adaptive attention and negative class ranking."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ...mixing import HalfAreaBoxes, paste, paste_labels
from ...pseudo_label import PseudoLabel
from ...registry import MODELS
from ..mean_teacher import MeanTeacher
from .class_ranking import negative_class_ranking
from .patch_attention import check_takes_bias, patch_adaptive_bias, unconfident_share
from .patch_shuffle import PatchShuffle, shuffle, unshuffle


@MODELS.register_module()
class S4Former(MeanTeacher):
    r"""S4Former (Hu, Jiang and Schiele, CVPR 2024), for segmentors with a plain vision transformer.

    .. code-block:: text

        pseudo, confidence = max softmax teacher(weak)
        z_a   = student(strong), attention biased by where the teacher is unconfident
        z_p   = decode(unshuffle(encode(shuffle(CutMix(strong)))))
        loss  = w_l CE(student(labeled), mask)
                + r(t) w_u (w_a CE(z_a, pseudo) + w_p CE(z_p, mixed pseudo)
                            + w_r ranking(z_p, teacher's mixed logits))
        teacher <- average of student and teacher, after the step

    The cross-entropies on pseudo-labels are averaged over all pixels, confident or not. The student's three
    passes are made one after the other, so that its norm layers see one kind of image at a time.

    Args:
        segmentor: config of the student; its backbone takes an ``attention_bias``.
        teacher: arguments of ``Teacher``; by default a decay of 0.999 without warm-up, as released.
        labeled_weight: w_l, of the supervised losses.
        unlabeled_weight: w_u, of all three terms on unlabeled images.
        attention_weight: w_a; 0 leaves this branch out, and with it the demand on the backbone.
        attention_strength: of the bias, see ``patch_adaptive_bias``.
        perturbed_weight: w_p.
        ranking_weight: w_r.
        cutmix: arguments of ``HalfAreaBoxes``; what is pasted is the next image of the batch.
        shuffle: arguments of ``PatchShuffle``.
        mix_teacher_logits: the teacher's logits are mixed like their images, before the ranking. The release
            leaves them unmixed, so that pixels in a box are ranked as those of another image.
        ignore_padding: pixels that padding added get no pseudo-label; the release labels them. Needs
            ``LoadEmptyAnnotations`` in the unlabeled pipeline.
        average_over: as in ``MeanTeacher``.
        kwargs: as in ``MeanTeacher``; pixels count from a confidence above ``threshold``, not equal to it.

    Raises:
        ValueError: the backbone takes no bias, or blocks are no whole patches.
    """

    def __init__(
        self,
        segmentor: dict,
        *,
        teacher: dict | None = None,
        labeled_weight: float = 1.0,
        unlabeled_weight: float = 1.0,
        attention_weight: float = 0.5,
        attention_strength: float = 5.0,
        perturbed_weight: float = 0.5,
        ranking_weight: float = 0.5,
        cutmix: Mapping | None = None,
        shuffle: Mapping | None = None,
        mix_teacher_logits: bool = True,
        ignore_padding: bool = True,
        average_over: str = 'all',
        **kwargs,
    ):
        super().__init__(
            segmentor,
            teacher=dict(momentum=0.001, warm_up=False) if teacher is None else teacher,
            labeled_weight=labeled_weight,
            unlabeled_weight=unlabeled_weight,
            ignore_padding=ignore_padding,
            average_over=average_over,
            **kwargs,
        )
        self.attention_weight = attention_weight
        self.attention_strength = attention_strength
        self.perturbed_weight = perturbed_weight
        self.ranking_weight = ranking_weight
        self.cutmix = HalfAreaBoxes(**({'prob': 0.5} | dict(cutmix or {})))
        self.shuffle = PatchShuffle(**(shuffle or {}))
        self.mix_teacher_logits = mix_teacher_logits
        if attention_weight:
            check_takes_bias('S4Former', self.student.backbone)
        patch = getattr(self.student.backbone, 'patch_size', 1)
        if self.shuffle.block_size % patch:
            raise ValueError(
                f'S4Former: shuffle.block_size is {self.shuffle.block_size} pixels, expected a multiple of '
                f"the backbone's patch_size {patch}, so that a block is made of whole tokens."
            )

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One training step.

        Args:
            inputs: views ``labeled`` (Bl, 3, H, W), ``weak`` (Bu, 3, H, W), and that to be learned from.
            data_samples: {view: samples}; those of ``labeled`` hold masks, those of ``weak``
                ``LoadEmptyAnnotations``'s maps if padding is to be ignored.

        Returns:
            dict: ``sup.*`` and ``unsup.loss_{attention,perturbed,ranking}``, weighted; ``pseudo.weight``,
            r(t); ``log_statistics``'s numbers.
        """
        labeled, weak, strong = self.select_views(inputs, *self.needed_views)
        features = self.extract_feat(labeled)
        logits = self.decode_head(features)
        losses = self.supervised_loss(features, logits, data_samples['labeled'], self.labeled_weight)
        pseudo = self.make_pseudo_labels(weak, self.threshold, self.padding_mask(data_samples, 'weak'))

        terms = {}
        if self.attention_weight:
            terms['attention'] = self.attention_weight * self.attended_loss(strong, pseudo)
        boxes = self.cutmix.draw(len(strong), strong.shape[2:], strong.device)
        mixed = paste(strong, strong.roll(-1, 0), boxes)
        mixed_pseudo = paste_labels(pseudo, pseudo.map(lambda part: part.roll(-1, 0)), boxes)
        perturbed = self.resize_to_input(self.decode_shuffled(mixed), strong.shape[2:])
        terms['perturbed'] = self.perturbed_weight * self.unsupervised_loss(perturbed, mixed_pseudo)
        ranked_by = mixed_pseudo if self.mix_teacher_logits else pseudo
        terms['ranking'] = self.ranking_weight * negative_class_ranking(
            perturbed, ranked_by.logits, mixed_pseudo.target
        )

        losses['pseudo.weight'] = self.weight()
        weight = self.unlabeled_weight * losses['pseudo.weight']
        losses.update({f'unsup.loss_{name}': weight * term for name, term in terms.items()})
        return losses | self.log_statistics(pseudo)

    def make_pseudo_labels(
        self, images: Tensor, threshold: float = 0.0, padding: Tensor | None = None
    ) -> PseudoLabel:
        """Label images as every method does, but a confidence equal to the threshold does not count."""
        pseudo = super().make_pseudo_labels(images, threshold, padding)
        return replace(pseudo, valid=pseudo.valid & (pseudo.confidence > threshold))

    def attended_loss(self, images: Tensor, pseudo: PseudoLabel) -> Tensor:
        """Loss of the branch with patch-adaptive self-attention, a scalar.

        Args:
            images: (Bu, 3, H, W).
            pseudo: their labels; padding is as confident as the teacher is, though it has no label.
        """
        confident = pseudo.confidence > self.threshold
        unconfident = unconfident_share(confident, self.student.backbone.patch_size)
        bias = patch_adaptive_bias(unconfident, self.attention_strength)
        features = self.student.backbone(images, attention_bias=bias)
        if self.student.with_neck:
            features = self.student.neck(features)
        return self.unsupervised_loss(
            self.resize_to_input(self.decode_head(features), images.shape[2:]), pseudo
        )

    def decode_shuffled(self, images: Tensor) -> Tensor:
        """Logits (Bu, K, h, w) of images (Bu, 3, H, W) whose blocks change places and, as features, back."""
        grid = self.shuffle.grid(images.shape[2:])
        permutation = self.shuffle.draw(len(images), grid, images.device)
        features = self.extract_feat(shuffle(images, permutation, grid))
        return self.decode_head([unshuffle(feature, permutation, grid) for feature in features])

    def check_input_size(self, images: Tensor) -> None:
        """Check that blocks tile the crop.

        Args:
            images: (N, 3, H, W), as in training.

        Raises:
            ValueError: they do not.
        """
        self.shuffle.grid(images.shape[2:])
