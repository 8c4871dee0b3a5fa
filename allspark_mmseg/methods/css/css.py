"""CSS, "Space Engage": labels of the logit space and of the representation space correct each other."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ...pseudo_label import IGNORE_INDEX
from ...teacher import Teacher
from ..loss_weights import rampdown_weight
from ..semi_segmentor import SemiSegmentor
from ..views import Samples, Views
from .arguments import check_arguments, check_makes_representations
from .contrast import class_counts, contrastive_loss, draw_pixels, negative_classes
from .prototypes import ClassPrototypes
from .strong_view import make_strong_view
from .targets import Targets, classifier_loss


class CSS(SemiSegmentor):
    r"""Training step of the three CSS methods (Wang et al., ICCV 2023, arXiv 2307.09755, and its release).

    .. code-block:: text

        logits, z    = teacher(weak)
        y, q; y', q' = labels and confidences for the classifier, and for the representations   (make_targets)
        strong       = flip(mix(rescale(strong_1))), and y, q, y', q' with it
        loss         = CE(student(labeled), mask) + mean_p w_b CE(student(strong)_bp, y_bp)
                       + r(t) contrast(z, prototypes)
        w_b          = #{p: q_bp >= threshold} / #{p: y_bp is a class}
        contrast:      uses labeled pixels, and unlabeled pixels with q' >= weak_threshold. It pulls hard
                       pixels toward the prototype of their class and away from pixels of other classes
        prototypes  <- moving average of the class means of z, before the contrast
        teacher     <- exponential moving average of the student, after the step (MeanTeacherHook)
        r(t)         = contrast_weight exp(-5 (t / contrast_ramp_down)^2) for t < contrast_ramp_down, else 0

    There is no threshold per pixel: the weight w_b of its image scales every pixel with a label.

    The view ``strong_1`` differs from ``weak`` only in color and blur, so both have the same pixels in the
    same places. This class rescales, mixes and flips it. There are three differences from the release: colors
    change before the mixing, nothing is rounded to 8 bits, and an image is mixed with the next image of the
    same process.

    Args:
        segmentor (dict): Config of the student; its ``decode_head`` is an
            ``allspark_mmseg.RepresentationHead``.
        teacher (dict, optional): Arguments of ``Teacher``. Defaults: ``momentum=0.01``, and the policy for
            buffers that ``teacher_statistics`` needs.
        threshold (float): Minimum confidence of a pixel that counts in w_b, in [0, 1].
        weak_threshold (float): Minimum confidence of an unlabeled pixel in the contrast, in [0, 1].
        hard_threshold (float, optional): A pixel is hard if the probability of its label is below this, in
            (0, 1]; None makes all pixels hard.
        contrast_temperature (float): Temperature of the contrast and of the choice of negative classes.
        queries (int): Hard pixels drawn per class.
        negatives (int): Pixels of other classes drawn per query.
        prototype_momentum (float): Share of the new class means in the prototypes, in (0, 1]; 0.01 is a decay
            of 0.99.
        contrast_weight (float): Weight of the contrast.
        contrast_ramp_down (int, optional): Number of steps until the contrast ends; None for a constant
            weight. The release uses 200 epochs of the labeled images. The teacher counts t.
        scale_range (tuple[float, float]): Range of the rescaling factor; in the release (0.5, 1.5) for VOC
            and (0.5, 2.0) for Cityscapes.
        mix (str, optional): ``'cutmix'``, ``'cutout'``, ``'classmix'``, or None.
        average_over (str): Pixels over which the classifier's loss on the strong view is averaged:
            ``'positive'``, those with a loss above 0, as released, or ``'labeled'``, those with a label.
        teacher_statistics (str): Statistics of the teacher's batch norms in training. ``'labeled_and_weak'``
            or ``'weak'``: the statistics of a batch of these images (``'weak'`` saves a pass). ``'student'``:
            running statistics that follow the student.
        ignore_padding (bool): Padding gets no label. The release trains on reflected borders. Needs
            ``LoadEmptyAnnotations`` in the unlabeled pipeline.
        kwargs: As in ``SemiSegmentor``; ``predict_on`` is ``'teacher'`` by default.

    Raises:
        ValueError: An argument is out of range, or the student's decode head makes no representations.
    """

    trains_method_parameters = True
    teacher: Teacher

    def __init__(
        self,
        segmentor: dict,
        *,
        teacher: dict | None = None,
        threshold: float = 0.97,
        weak_threshold: float = 0.7,
        hard_threshold: float | None = 0.8,
        contrast_temperature: float = 0.5,
        queries: int = 256,
        negatives: int = 512,
        prototype_momentum: float = 0.01,
        contrast_weight: float = 1.0,
        contrast_ramp_down: int | None = None,
        scale_range: tuple[float, float] = (0.5, 1.5),
        mix: str | None = 'cutmix',
        average_over: str = 'positive',
        teacher_statistics: str = 'labeled_and_weak',
        ignore_padding: bool = False,
        **kwargs: Any,
    ) -> None:
        check_arguments(type(self).__name__, locals())
        defaults = dict(momentum=0.01, buffers='average' if teacher_statistics == 'student' else 'leave')
        super().__init__(segmentor, teacher=defaults | (teacher or {}), **dict(predict_on='teacher') | kwargs)
        check_makes_representations(type(self).__name__, self.decode_head)
        self.threshold = threshold
        self.weak_threshold = weak_threshold
        self.hard_threshold = hard_threshold
        self.contrast_temperature = contrast_temperature
        self.queries = queries
        self.negatives = negatives
        self.contrast_weight = contrast_weight
        self.contrast_ramp_down = contrast_ramp_down
        self.scale_range = (scale_range[0], scale_range[1])
        self.mix = mix
        self.average_over = average_over
        self.teacher_statistics = teacher_statistics
        self.ignore_padding = ignore_padding
        channels = self.decode_head.representation_channels
        self.prototypes = ClassPrototypes(self.num_classes, channels, prototype_momentum)

    @property
    def needed_views(self) -> tuple[str, ...]:
        """``labeled``, ``weak`` and ``strong_1``."""
        return ('labeled', 'weak', 'strong_1')

    def loss(self, inputs: Views, data_samples: Samples) -> dict[str, Tensor]:
        """Run one training step.

        Args:
            inputs (dict): {view: (N, 3, H, W)}, with the needed views.
            data_samples (dict): {view: N samples}. Samples of ``labeled`` have masks.
                If padding is ignored, samples of ``weak`` have the maps of ``LoadEmptyAnnotations``.

        Returns:
            dict[str, Tensor]: ``sup.*``, ``unsup.loss_ce`` and ``unsup.loss_contrast``, weighted. For the
            log, ``pseudo.*``, ``css.hard`` (share of hard pixels in the contrast), ``css.seen`` (number of
            classes with a prototype), and what ``make_targets`` adds.
        """
        labeled, weak, strong = self.select_views(inputs, *self.needed_views)
        size = weak.shape[2:]

        # the teacher labels the weak view
        logits, representations = self.teach(labeled, weak)
        padding = self.padding_mask(data_samples, 'weak')
        targets, statistics = self.make_targets(logits, representations, size, padding)

        # augmentation of the strong view and its targets
        strong, targets = make_strong_view(strong, targets, self.scale_range, self.mix, self.num_classes)

        # the student's passes of labeled and of strong images
        features = self.extract_feat(labeled)
        logits, representations = self.decode_head.forward_with_representations(features)
        strong_logits, strong_representations = self.decode_head.forward_with_representations(
            self.extract_feat(strong)
        )

        # classification
        losses = self.supervised_loss(features, logits, data_samples['labeled'])
        losses['unsup.loss_ce'] = classifier_loss(
            self.resize_to_input(strong_logits, size),
            targets.label[:, 0],
            targets.confidence[:, 0],
            self.threshold,
            self.average_over,
        )

        # contrast of the representations, at their resolution
        masks = torch.cat([sample.gt_sem_seg.data for sample in data_samples['labeled']])
        label = _resize_nearest(masks, logits.shape[2:])
        strong_label = _resize_nearest(targets.contrast_label(self.weak_threshold), strong_logits.shape[2:])
        contrast, statistics['css.hard'] = self.contrast(
            torch.cat([logits, strong_logits]).detach().float(),
            torch.cat([representations, strong_representations]).float(),
            torch.cat([label, strong_label]),
        )
        rampdown = rampdown_weight(self.teacher.steps, self.contrast_ramp_down)
        losses['unsup.loss_contrast'] = self.contrast_weight * rampdown * contrast
        statistics['css.seen'] = self.prototypes.seen.sum().float()
        return losses | statistics

    @torch.no_grad()
    def teach(self, labeled: Tensor, weak: Tensor) -> tuple[Tensor, Tensor]:
        """Run the teacher. ``teacher_statistics`` selects the statistics of its batch norms.

        Args:
            labeled (Tensor): (Bl, 3, H, W).
            weak (Tensor): (Bu, 3, H, W).

        Returns:
            tuple[Tensor, Tensor]: Logits (Bu, K, h, w) and representations (Bu, D, h, w) of the weak view.
        """
        teacher = self.teacher.module
        if self.teacher_statistics != 'student':
            for module, of_student in zip(teacher.modules(), self.student.modules(), strict=True):
                # frozen norms of the student stay frozen in the teacher
                module.training = of_student.training and isinstance(module, _BatchNorm)
        if self.teacher_statistics == 'labeled_and_weak':
            teacher.decode_head.forward_with_representations(teacher.extract_feat(labeled))
        outputs = teacher.decode_head.forward_with_representations(teacher.extract_feat(weak))
        self.teacher.eval()
        return outputs

    def make_targets(
        self, logits: Tensor, representations: Tensor, size: Sequence[int], padding: Tensor | None
    ) -> tuple[Targets, dict[str, Tensor]]:
        """Make the targets of the weak view; each variant has its own.

        Args:
            logits (Tensor): (N, K, h, w), from the teacher.
            representations (Tensor): (N, D, h, w), from the teacher.
            size (Sequence[int]): (H, W) of the images.
            padding (Tensor, optional): (N, H, W) bool, True for padding.

        Returns:
            tuple[Targets, dict[str, Tensor]]: Targets (N, V, H, W), and statistics for the log.
        """
        raise NotImplementedError

    def class_probability(self, logits: Tensor, representations: Tensor) -> Tensor:
        """Compute the probabilities that decide which pixels are hard; each variant has its own.

        Args:
            logits (Tensor): (N, K, h, w) float32, from the student.
            representations (Tensor): (N, D, h, w) float32, from the student.

        Returns:
            Tensor: (N, K, h, w) float32, a distribution over the classes.
        """
        raise NotImplementedError

    def contrast(self, logits: Tensor, representations: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Update the prototypes and compute the contrastive loss.

        Args:
            logits (Tensor): (N, K, h, w) float32, without gradient.
            representations (Tensor): (N, D, h, w) float32.
            label (Tensor): (N, h, w) int64, in 0..K-1, or 255 for pixels that take no part.

        Returns:
            tuple[Tensor, Tensor]: Scalars: the loss, and the share of hard pixels among the pixels that take
            part.
        """
        with torch.autocast(label.device.type, enabled=False):
            hard = self.hard_pixels(logits, representations.detach(), label).flatten()
            label = label.flatten()
            pixels = representations.permute(0, 2, 3, 1).flatten(0, 2)  # (N, D, h, w) -> (P, D)
            self.prototypes.update(pixels.detach(), label)
            prototypes, present = self.prototypes.value, class_counts(label, self.num_classes) > 0
            probability = negative_classes(prototypes, present, self.contrast_temperature)
            queries, negatives = draw_pixels(label, hard, probability, self.queries, self.negatives)
            loss = contrastive_loss(
                pixels, prototypes, present, queries, negatives, self.contrast_temperature
            )
        taking_part = label != IGNORE_INDEX
        return loss, (hard & taking_part).sum() / taking_part.sum().clamp(min=1)

    @torch.no_grad()
    def hard_pixels(self, logits: Tensor, representations: Tensor, label: Tensor) -> Tensor:
        """Find the hard pixels.

        Args:
            logits (Tensor): (N, K, h, w) float32, from the student.
            representations (Tensor): (N, D, h, w) float32, from the student.
            label (Tensor): (N, h, w) int64, in 0..K-1, or 255.

        Returns:
            Tensor: (N, h, w) bool; arbitrary where the label is 255.
        """
        if self.hard_threshold is None:
            return torch.ones_like(label, dtype=torch.bool)
        index = label.clamp(max=self.num_classes - 1)[:, None]
        probability = self.class_probability(logits, representations).gather(1, index)[:, 0]
        return probability < self.hard_threshold


def _resize_nearest(label: Tensor, size: Sequence[int]) -> Tensor:
    """Resize labels (N, H, W) int64 to ``size`` (h, w); row i comes from source row floor(i H / h)."""
    return F.interpolate(label[:, None].float(), tuple(size), mode='nearest')[:, 0].long()
