"""CSS, "Space Engage": labels of the logit space and of the representation space correct each other."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ...mixing import ClassMix, HalfAreaBoxes, paste
from ...pseudo_label import IGNORE_INDEX, PseudoLabel, check_threshold
from ...registry import MODELS
from ..semi_segmentor import SemiSegmentor
from .contrast import class_counts, contrastive_loss, draw, negative_classes
from .geometry import Rescale, flipped
from .prototypes import ClassPrototypes

MIXES = ('cutmix', 'cutout', 'classmix', None)
STATISTICS = ('labeled_and_weak', 'weak', 'student')
AVERAGES = ('positive', 'labeled')


@dataclass(frozen=True)
class Targets:
    """What unlabeled images are trained on: one kind of labels, or two.

    The first kind trains the classifier, the last one the representations.

    Attributes:
        label: (N, V, H, W) int64, V kinds of labels, 0..K-1 or 255.
        confidence: (N, V, H, W) float in [0, 1].
    """

    label: Tensor
    confidence: Tensor

    @classmethod
    def of(cls, *kinds: PseudoLabel) -> 'Targets':
        """Targets from pseudo-labels, confident or not; padding is ignored, with confidence 0."""
        return cls(
            torch.stack([kind.label.masked_fill(~kind.image_mask, IGNORE_INDEX) for kind in kinds], dim=1),
            torch.stack([kind.confidence * kind.image_mask for kind in kinds], dim=1),
        )


class CSS(SemiSegmentor):
    r"""What the three programs of CSS share (Wang et al., ICCV 2023, arXiv 2307.09755, and its release).

    .. code-block:: text

        logits, z    = teacher(weak view)
        y, q; y', q' = labels and confidences for the classifier, and for the representations   (``targets``)
        strong view  = flip(mix(rescale(strong view, y, q, y', q')))
        loss         = CE(student(labeled), mask) + mean_p w_b CE(student(strong view)_bp, y_bp)
                       + r(t) contrast(z, prototypes)
        w_b          = #{p: q_bp >= threshold} / #{p: y_bp is a class}
        contrast:      labeled pixels, and unlabeled ones with q' >= weak_threshold; those of them that are
                       hard are drawn to their class's prototype, and away from pixels of other classes
        prototypes  <- average with the class means of z, before the contrast
        teacher     <- average of student and teacher, after the step
        r(t)         = contrast_weight exp(-5 (t / contrast_ramp_down)^2), and 0 from contrast_ramp_down on

    There is no threshold by pixel: every pixel with a label is trained on, weighted by its image's w_b. The
    view ``strong_1`` is the weak one with other colors and blur, pixel by pixel in the same place; the
    model itself rescales, mixes and flips it. Differs from the release: colors change before the mixing,
    nothing is rounded to 8 bits, and the partner in mixing is the next image of the same process.

    Args:
        segmentor: config of the student, its ``decode_head`` an ``allspark_mmseg.RepresentationHead``.
        teacher: arguments of ``Teacher``; by default ``momentum=0.01``, and buffers as ``teacher_statistics``
            needs them.
        threshold: confidence from which a pixel counts for its image's weight, in [0, 1].
        weak_threshold: confidence from which an unlabeled pixel takes part in the contrast, in [0, 1].
        hard_threshold: probability of its label below which a pixel is hard, in (0, 1]; None: all are.
        contrast_temperature: tau of the contrast and of the choice of negatives' classes.
        queries: hard pixels drawn for each class.
        negatives: pixels of other classes drawn for each query.
        prototype_momentum: the new means' share in the prototypes, in (0, 1]; 0.01 is a decay of 0.99.
        contrast_weight: weight of the contrast.
        contrast_ramp_down: steps after which the contrast has ended; None for a constant weight. As released
            200 epochs of the labeled images. The teacher's counter counts.
        scale_range: of the random rescaling; the release's is (0.5, 1.5) on VOC, (0.5, 2.0) on Cityscapes.
        mix: ``'cutmix'``, ``'cutout'``, ``'classmix'``, or None.
        average_over: pixels over which the classifier's loss on the strong view is averaged: those with a
            loss above 0 (``'positive'``, as released; pixels fitted down to float32's last digit do not
            count), or all those with a label (``'labeled'``).
        teacher_statistics: what the teacher's batch norms follow: batches of their own, by which they also
            normalize in training (``'labeled_and_weak'`` images, or ``'weak'`` ones alone, which saves a
            pass), or the ``'student'``'s statistics, with the teacher in eval mode.
        ignore_padding: leave pixels that padding added out; the release trains on its reflected borders.
            Needs ``LoadEmptyAnnotations`` in the unlabeled pipeline.
        kwargs: as in ``SemiSegmentor``; ``predict_on`` is ``'teacher'`` by default.

    Raises:
        ValueError: an argument is out of its range, or the student's decode head makes no representations.
    """

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
        **kwargs,
    ):
        check_threshold(type(self).__name__, threshold)
        low, high = scale_range
        for name, value, possible, expected in (
            ('weak_threshold', weak_threshold, 0 <= weak_threshold <= 1, 'a confidence in [0, 1]'),
            (
                'hard_threshold',
                hard_threshold,
                hard_threshold is None or 0 < hard_threshold <= 1,
                'a probability in (0, 1], or None for all pixels',
            ),
            ('contrast_temperature', contrast_temperature, contrast_temperature > 0, 'one above 0'),
            ('queries', queries, queries >= 1, 'at least 1'),
            ('negatives', negatives, negatives >= 1, 'at least 1'),
            ('prototype_momentum', prototype_momentum, 0 < prototype_momentum <= 1, 'one in (0, 1]'),
            (
                'contrast_ramp_down',
                contrast_ramp_down,
                contrast_ramp_down is None or contrast_ramp_down >= 1,
                'at least 1 step, or None for a constant weight',
            ),
            ('scale_range', scale_range, 0 < low <= high, 'two factors above 0, ascending'),
            ('mix', mix, mix in MIXES, f'one of {MIXES}'),
            ('average_over', average_over, average_over in AVERAGES, f'one of {AVERAGES}'),
            (
                'teacher_statistics',
                teacher_statistics,
                teacher_statistics in STATISTICS,
                f'one of {STATISTICS}',
            ),
        ):
            self.require(name, value, possible, expected)
        buffers = 'average' if teacher_statistics == 'student' else 'leave'
        super().__init__(
            segmentor,
            teacher=dict(momentum=0.01, buffers=buffers) | (teacher or {}),
            **dict(predict_on='teacher') | kwargs,
        )
        if not hasattr(self.decode_head, 'forward_with_representations'):
            raise ValueError(
                f'{type(self).__name__}: segmentor.decode_head is a {type(self.decode_head).__name__}, which '
                "makes no representations; expected dict(type='allspark_mmseg.RepresentationHead', ...)."
            )
        self.threshold = threshold
        self.weak_threshold = weak_threshold
        self.hard_threshold = hard_threshold
        self.contrast_temperature = contrast_temperature
        self.queries = queries
        self.negatives = negatives
        self.contrast_weight = contrast_weight
        self.contrast_ramp_down = contrast_ramp_down
        self.scale_range = tuple(scale_range)
        self.mix = mix
        self.average_over = average_over
        self.teacher_statistics = teacher_statistics
        self.ignore_padding = ignore_padding
        self.prototypes = ClassPrototypes(
            self.num_classes, self.decode_head.representation_channels, prototype_momentum
        )

    @classmethod
    def require(cls, name: str, value, possible: bool, expected: str) -> None:
        """Check an argument.

        Raises:
            ValueError: it is not possible.
        """
        if not possible:
            raise ValueError(f'{cls.__name__}: {name} is {value!r}, expected {expected}.')

    @property
    def needed_views(self) -> tuple[str, ...]:
        """``labeled``, ``weak`` and ``strong_1``."""
        return ('labeled', 'weak', 'strong_1')

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One training step.

        Args:
            inputs: views ``labeled`` (Bl, 3, H, W), ``weak`` (Bu, 3, H, W), and ``strong_1``, the weak one in
                other colors.
            data_samples: {view: samples}; those of ``labeled`` hold masks, those of ``weak`` hold
                ``LoadEmptyAnnotations``'s maps if padding is to be ignored.

        Returns:
            dict: ``sup.*``, ``unsup.loss_ce`` and ``unsup.loss_contrast``, weighted; ``log_statistics``'s numbers,
            ``css.hard`` (share of the contrast's pixels that are hard), ``css.seen`` (number of classes that
            have a prototype).
        """
        labeled, weak, strong = self.select_views(inputs, *self.needed_views)
        padding = self.padding_mask(data_samples, 'weak')
        targets, entries = self.targets(*self.teach(labeled, weak), weak.shape[2:], padding)
        strong, targets = self.strong_view(strong, targets)

        features = self.extract_feat(labeled)
        logits, representations = self.decode_head.forward_with_representations(features)
        strong_features = self.extract_feat(strong)
        strong_logits, strong_representations = self.decode_head.forward_with_representations(strong_features)
        losses = self.supervised_loss(features, logits, data_samples['labeled'])
        losses['unsup.loss_ce'] = self.unsupervised_loss(
            self.resize_to_input(strong_logits, strong.shape[2:]),
            targets.label[:, 0],
            targets.confidence[:, 0],
        )
        label = torch.cat(
            [
                _nearest(self.masks(data_samples['labeled']), logits.shape[2:]),
                _nearest(self.contrasted(targets), strong_logits.shape[2:]),
            ]
        )
        losses['unsup.loss_contrast'], entries['css.hard'] = self.contrast(
            torch.cat([logits, strong_logits]).detach().float(),
            torch.cat([representations, strong_representations]).float(),
            label,
        )
        entries['css.seen'] = self.prototypes.seen.sum().float()
        return losses | entries

    @torch.no_grad()
    def teach(self, labeled: Tensor, weak: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (Bu, K, h, w) and representations (Bu, D, h, w) of the weak view by the teacher.

        Its batch norms are in training mode meanwhile where they follow batches of their own.
        """
        teacher = self.teacher.module
        if self.teacher_statistics != 'student':
            # where the student's are: others may be frozen
            for ours, theirs in zip(teacher.modules(), self.student.modules(), strict=True):
                ours.training = theirs.training and isinstance(ours, _BatchNorm)
        if self.teacher_statistics == 'labeled_and_weak':
            teacher.decode_head.forward_with_representations(teacher.extract_feat(labeled))
        found = teacher.decode_head.forward_with_representations(teacher.extract_feat(weak))
        self.teacher.eval()
        return found

    def targets(
        self, logits: Tensor, representations: Tensor, size: tuple[int, int], padding: Tensor | None
    ) -> tuple[Targets, dict[str, Tensor]]:
        """Labels of the weak view, and numbers for the log.

        Args:
            logits: (N, K, h, w), the teacher's.
            representations: (N, D, h, w), the teacher's.
            size: (H, W) of the images.
            padding: (N, H, W) bool, pixels that are no part of the image.
        """
        raise NotImplementedError

    def probability(self, logits: Tensor, representations: Tensor) -> Tensor:
        """Probability (N, K, h, w) of each class by which a pixel is hard, from the student's outputs."""
        raise NotImplementedError

    @torch.no_grad()
    def strong_view(self, images: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """Rescale, mix and flip images (N, 3, H, W) and their targets alike, at random."""
        count, _, *size = images.shape
        rescale = Rescale.draw(count, tuple(size), self.scale_range, images.device)
        images = rescale.image(images)
        targets = Targets(rescale.label(targets.label), rescale.confidence(targets.confidence))
        if self.mix == 'classmix':
            pasted = ClassMix(self.num_classes).draw(targets.label[:, -1])
        elif self.mix is not None:
            pasted = HalfAreaBoxes().draw(count, tuple(size), images.device)
        if self.mix is not None:
            images, targets = self.paste(images, targets, pasted)
        flip = torch.rand(count, device=images.device) < 0.5
        return flipped(images, flip), Targets(flipped(targets.label, flip), flipped(targets.confidence, flip))

    def paste(self, images: Tensor, targets: Targets, pasted: Tensor) -> tuple[Tensor, Targets]:
        """Replace the pixels ``pasted`` (N, H, W) bool by the next image's, or in CutOut by nothing."""

        def replace(own: Tensor, nothing: float) -> Tensor:
            other = torch.full_like(own, nothing) if self.mix == 'cutout' else own.roll(-1, 0)
            return paste(own, other, pasted)

        label, confidence = replace(targets.label, IGNORE_INDEX), replace(targets.confidence, 0)
        return replace(images, 0), Targets(label, confidence)

    def unsupervised_loss(self, logits: Tensor, label: Tensor, confidence: Tensor) -> Tensor:
        """Cross-entropy of the pixels with a label, weighted by image.

        Args:
            logits: (N, K, H, W) float32.
            label: (N, H, W) int64, 0..K-1 or 255.
            confidence: (N, H, W) float.

        Returns:
            Tensor: scalar; 0, with a gradient of zeros, where no pixel has a label.
        """
        labeled = label != IGNORE_INDEX
        confident = (confidence >= self.threshold).sum(dim=(1, 2))
        weight = confident / labeled.sum(dim=(1, 2)).clamp(min=1)
        per_pixel = F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction='none')
        counted = per_pixel.detach() > 0 if self.average_over == 'positive' else labeled
        return (weight[:, None, None] * per_pixel).sum() / counted.sum().clamp(min=1)

    def masks(self, data_samples: list) -> Tensor:
        """Labels (Bl, H, W) of the labeled images."""
        return torch.cat([sample.gt_sem_seg.data for sample in data_samples])

    def contrasted(self, targets: Targets) -> Tensor:
        """Labels (Bu, H, W) of the unlabeled pixels that take part in the contrast, 255 elsewhere."""
        unsure = targets.confidence[:, -1] < self.weak_threshold
        return targets.label[:, -1].masked_fill(unsure, IGNORE_INDEX)

    def contrast(self, logits: Tensor, representations: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Update the prototypes, and contrast.

        Args:
            logits: (N, K, h, w) float32, without gradient.
            representations: (N, D, h, w) float32.
            label: (N, h, w) int64, 0..K-1, or 255 for pixels that take no part.

        Returns:
            tuple: the loss, weighted, and the share of the pixels taking part that are hard.
        """
        with torch.autocast(label.device.type, enabled=False):
            hard = self.hard(logits, representations.detach(), label).flatten()
            label = label.flatten()
            pixels = representations.permute(0, 2, 3, 1).flatten(0, 2)  # (P, D)
            self.prototypes.update(pixels.detach(), label)
            prototypes = self.prototypes.value
            counts = class_counts(label, self.num_classes)
            probability = negative_classes(prototypes, counts > 0, self.contrast_temperature)
            queries, negatives = self.draw(label, hard, probability)
            loss = contrastive_loss(
                pixels, prototypes, counts > 0, queries, negatives, self.contrast_temperature
            )
        return self.weight() * loss, _share(hard, label != IGNORE_INDEX)

    def draw(self, label: Tensor, hard: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and negatives; see ``contrast.draw``."""
        return draw(label, hard, probability, self.queries, self.negatives)

    @torch.no_grad()
    def hard(self, logits: Tensor, representations: Tensor, label: Tensor) -> Tensor:
        """Which pixels (N, h, w) are hard, from the student's outputs; of any value where label is 255."""
        if self.hard_threshold is None:
            return torch.ones_like(label, dtype=torch.bool)
        index = label.clamp(max=self.num_classes - 1)[:, None]
        return self.probability(logits, representations).gather(1, index)[:, 0] < self.hard_threshold

    def weight(self) -> Tensor:
        """Scalar: the contrast's weight in the step to come, ``contrast_weight`` ramped down."""
        steps = self.teacher.steps
        if self.contrast_ramp_down is None:
            return torch.full_like(steps, self.contrast_weight, dtype=torch.float32)
        gone = steps / self.contrast_ramp_down
        return self.contrast_weight * torch.exp(-5 * gone**2) * (gone < 1)


@MODELS.register_module()
class CSSBaseline(CSS):
    """CSS's baseline: the classifier's labels alone, and hard pixels by the classifier, too.

    .. code-block:: text

        y = y', q = q': argmax and max of softmax(teacher's logits)
        hard:           softmax(student's logits) of the label is below hard_threshold

    Args:
        segmentor: config of the student, its ``decode_head`` an ``allspark_mmseg.RepresentationHead``.
        hard_threshold: as in ``CSS``.
        teacher_statistics: as in ``CSS``.
        kwargs: as in ``CSS``.
    """

    def __init__(
        self,
        segmentor: dict,
        *,
        hard_threshold: float | None = 0.97,
        teacher_statistics: str = 'weak',
        **kwargs,
    ):
        super().__init__(
            segmentor, hard_threshold=hard_threshold, teacher_statistics=teacher_statistics, **kwargs
        )

    def targets(self, logits, representations, size, padding) -> tuple[Targets, dict[str, Tensor]]:
        """The classifier's labels."""
        pseudo = PseudoLabel.from_logits(self.resize_to_input(logits, size), self.threshold, padding)
        return Targets.of(pseudo), self.log_statistics(pseudo)

    def probability(self, logits, representations) -> Tensor:
        """By the student's classifier."""
        return logits.softmax(dim=1)


class SimilarityCSS(CSS):
    """What the two CSS methods share: the representation space labels pixels, too.

    .. code-block:: text

        softmax similarity of z: softmax over classes of cos(z, prototype) / similarity_temperature
        hard:                    the student's softmax similarity to the label is below hard_threshold

    The softmax similarity never exceeds e^(1/t) / (e^(1/t) + (K - 1) e^(-1/t)). With the release's t = 0.5
    that is 0.73 for K = 21 and 0.75 for K = 19, below its thresholds: every pixel is hard. Here t is 0.1.

    Args:
        segmentor: config of the student, its ``decode_head`` an ``allspark_mmseg.RepresentationHead``.
        similarity_temperature: t.
        kwargs: as in ``CSS``.

    Raises:
        ValueError: as in ``CSS``; no pixel can reach ``hard_threshold``.
    """

    def __init__(self, segmentor: dict, *, similarity_temperature: float = 0.1, **kwargs):
        self.require(
            'similarity_temperature', similarity_temperature, similarity_temperature > 0, 'one above 0'
        )
        super().__init__(segmentor, **kwargs)
        self.similarity_temperature = similarity_temperature
        self.check_reachable('hard_threshold', 'every pixel would be hard', 'or to None if that is meant')

    def check_reachable(self, name: str, consequence: str, way_out: str = '') -> None:
        """Check that the softmax similarity can reach the threshold ``name``.

        Raises:
            ValueError: it cannot.
        """
        value = getattr(self, name)
        highest = 1 / (1 + (self.num_classes - 1) * math.exp(-2 / self.similarity_temperature))
        if value is not None and value > highest:
            raise ValueError(
                f'{type(self).__name__}: {name} is {value}, but with similarity_temperature='
                f'{self.similarity_temperature} and {self.num_classes} classes no softmax similarity exceeds '
                f'{highest:.3f}: {consequence}. Set similarity_temperature to 0.1, or {name} below that'
                f'{", " + way_out if way_out else ""}.'
            )

    def probability(self, logits, representations) -> Tensor:
        """By the student's softmax similarity."""
        similarity = self.prototypes.similarity(representations)
        return self.prototypes.logits(similarity, self.similarity_temperature).softmax(dim=1)

    def both_labels(
        self, logits: Tensor, representations: Tensor, size: tuple[int, int], padding: Tensor | None
    ) -> tuple[PseudoLabel, PseudoLabel, Tensor]:
        """Labels by the classifier, labels by similarity, and where they agree (N, H, W) bool."""
        similarity = self.resize_to_input(self.prototypes.similarity(representations), size)
        by_logit = PseudoLabel.from_logits(self.resize_to_input(logits, size), self.threshold, padding)
        by_similarity = PseudoLabel.from_logits(
            self.prototypes.logits(similarity, self.similarity_temperature), self.threshold, padding
        )
        return by_logit, by_similarity, by_logit.label == by_similarity.label


@MODELS.register_module()
class CSSMix(SimilarityCSS):
    """CSS with mixed labels: pixels on which both spaces agree.

    .. code-block:: text

        y = y': the classifier's label where the softmax similarity's is the same, ignored elsewhere
        q = q': the classifier's confidence

    A class that the classifier names and that has no prototype yet counts as agreed; in the release
    prototypes of zeros leave little but class 0 in the first step. Adds ``css.agreement`` to the log, the
    share of the images' pixels on which both agree.

    Args:
        segmentor: config of the student, its ``decode_head`` an ``allspark_mmseg.RepresentationHead``.
        count_ignored: confident pixels on which the spaces disagree count for w_b as well, which may then
            exceed 1, as released.
        kwargs: as in ``SimilarityCSS`` and ``CSS``.
    """

    def __init__(self, segmentor: dict, *, count_ignored: bool = False, **kwargs):
        super().__init__(segmentor, **kwargs)
        self.count_ignored = count_ignored

    def targets(self, logits, representations, size, padding) -> tuple[Targets, dict[str, Tensor]]:
        """The labels on which both spaces agree."""
        pseudo, _, agreed = self.both_labels(logits, representations, size, padding)
        agreed |= ~self.prototypes.seen[pseudo.label]
        targets = Targets.of(pseudo)
        label = targets.label.masked_fill(~agreed[:, None], IGNORE_INDEX)
        confidence = targets.confidence if self.count_ignored else targets.confidence * agreed[:, None]
        health = self.log_statistics(pseudo) | {'css.agreement': _share(agreed, pseudo.image_mask)}
        return Targets(label, confidence), health


@MODELS.register_module()
class CSSCross(SimilarityCSS):
    """CSS with crossed labels: each space learns from the other one's.

    .. code-block:: text

        y,  q:  argmax and max of the teacher's softmax similarity; of its logits during warm-up
        y', q': argmax and max of softmax(teacher's logits)

    Adds ``css.agreement`` to the log, the share of the images' pixels on which both spaces agree; the
    ``pseudo.*`` numbers are of y and q.

    Args:
        segmentor: config of the student, its ``decode_head`` an ``allspark_mmseg.RepresentationHead``.
        warm_up: steps in which the classifier learns from its own labels; the teacher's counter counts.
        kwargs: as in ``SimilarityCSS`` and ``CSS``.

    Raises:
        ValueError: as in ``SimilarityCSS``; no pixel can reach ``threshold``, or ``warm_up`` is negative.
    """

    def __init__(self, segmentor: dict, *, warm_up: int = 0, **kwargs):
        self.require('warm_up', warm_up, warm_up >= 0, 'at least 0 steps')
        super().__init__(segmentor, **kwargs)
        self.check_reachable('threshold', 'the loss on pseudo-labels would always be 0')
        self.warm_up = warm_up

    def targets(self, logits, representations, size, padding) -> tuple[Targets, dict[str, Tensor]]:
        """Labels by similarity for the classifier, and by the classifier for the representations."""
        by_logit, by_similarity, agreed = self.both_labels(logits, representations, size, padding)
        warming = self.teacher.steps < self.warm_up  # a tensor: to branch would wait for the device
        pseudo = by_logit.map(lambda early, late: torch.where(warming, early, late), by_similarity)
        health = self.log_statistics(pseudo) | {'css.agreement': _share(agreed, pseudo.image_mask)}
        return Targets.of(pseudo, by_logit), health


def _share(of: Tensor, among: Tensor) -> Tensor:
    return (of & among).sum() / among.sum().clamp(min=1)


def _nearest(label: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (N, H, W) int64 at another size (h, w), of the source pixels floor(i H / h)."""
    return F.interpolate(label[:, None].float(), size, mode='nearest')[:, 0].long()
