"""The three CSS methods. They differ in their targets and in the selection of hard pixels."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...pseudo_label import IGNORE_INDEX, PseudoLabel
from ...registry import MODELS
from ...utils import require
from .arguments import check_arguments
from .css import CSS
from .targets import Targets


@MODELS.register_module()
class CSSBaseline(CSS):
    """Baseline of CSS: only the classifier decides labels and hard pixels.

    .. code-block:: text

        y = y', q = q': argmax and max of softmax(teacher's logits)
        hard:           softmax(student's logits) of the label is below hard_threshold

    Args:
        segmentor (dict): Config of the student; its ``decode_head`` is an
            ``allspark_mmseg.RepresentationHead``.
        hard_threshold (float, optional): As in ``CSS``.
        teacher_statistics (str): As in ``CSS``.
        kwargs: As in ``CSS``.
    """

    def __init__(
        self,
        segmentor: dict,
        *,
        hard_threshold: float | None = 0.97,
        teacher_statistics: str = 'weak',
        **kwargs: Any,
    ) -> None:
        super().__init__(
            segmentor, hard_threshold=hard_threshold, teacher_statistics=teacher_statistics, **kwargs
        )

    def make_targets(
        self, logits: Tensor, representations: Tensor, size: Sequence[int], padding: Tensor | None
    ) -> tuple[Targets, dict[str, Tensor]]:
        """Label by the classifier: targets (N, 1, H, W); arguments as in ``CSS``."""
        pseudo = PseudoLabel.from_logits(self.resize_to_input(logits, size), self.threshold, padding)
        return Targets.from_pseudo_labels(pseudo), self.log_statistics(pseudo)

    def class_probability(self, logits: Tensor, representations: Tensor) -> Tensor:
        """Return the classifier's softmax (N, K, h, w)."""
        return logits.softmax(dim=1)


class SimilarityCSS(CSS):
    """Base class of the CSS methods that also label by the similarity to the prototypes.

    .. code-block:: text

        s:      softmax over classes of cos(z, prototype) / similarity_temperature
        hard:   s of the student at the label is below hard_threshold

    The largest value of s is e^(1/T) / (e^(1/T) + (K - 1) e^(-1/T)) at temperature T. With the release's T of
    0.5 it is 0.73 for K = 21 and 0.75 for K = 19. This is below the thresholds of the release, so every pixel
    is hard there. Here T is 0.1 by default.

    Args:
        segmentor (dict): Config of the student; its ``decode_head`` is an
            ``allspark_mmseg.RepresentationHead``.
        similarity_temperature (float): T.
        kwargs: As in ``CSS``.

    Raises:
        ValueError: As in ``CSS``; or s cannot reach ``hard_threshold``.
    """

    def __init__(self, segmentor: dict, *, similarity_temperature: float = 0.1, **kwargs: Any) -> None:
        name = type(self).__name__
        check_arguments(name, dict(similarity_temperature=similarity_temperature))
        super().__init__(segmentor, **kwargs)
        _check_hard_reachable(name, self.hard_threshold, similarity_temperature, self.num_classes)
        self.similarity_temperature = similarity_temperature

    def class_probability(self, logits: Tensor, representations: Tensor) -> Tensor:
        """Return the softmax similarity s (N, K, h, w)."""
        return self.prototypes.softmax_similarity(representations, self.similarity_temperature)

    def label_by_similarity(
        self, representations: Tensor, size: Sequence[int], padding: Tensor | None
    ) -> PseudoLabel:
        """Label images by the similarity of their representations to the prototypes.

        Args:
            representations (Tensor): (N, D, h, w), from the teacher.
            size (Sequence[int]): (H, W) of the images.
            padding (Tensor, optional): (N, H, W) bool, True for padding.

        Returns:
            PseudoLabel: Pseudo-labels (N, H, W).
        """
        similarity = self.resize_to_input(self.prototypes.similarity(representations), size)
        logits = self.prototypes.logits(similarity, self.similarity_temperature)
        return PseudoLabel.from_logits(logits, self.threshold, padding)


@MODELS.register_module()
class CSSMix(SimilarityCSS):
    """CSS with mixed labels: the pixels on which both spaces agree.

    .. code-block:: text

        y = y': argmax softmax(teacher's logits) where argmax s of the teacher is the same, else 255
        q = q': max softmax(teacher's logits)

    If the classifier predicts a class without a prototype, the spaces count as agreed. In the release, the
    prototypes are zero at first, so almost all labels of the first step are class 0.

    Adds ``css.agreement`` to the log: the share of pixels on which both spaces agree.

    Args:
        segmentor (dict): Config of the student; its ``decode_head`` is an
            ``allspark_mmseg.RepresentationHead``.
        count_ignored (bool): Count confident pixels with y = 255 in w_b, as released; w_b can then exceed 1.
        kwargs: As in ``SimilarityCSS``.
    """

    def __init__(self, segmentor: dict, *, count_ignored: bool = False, **kwargs: Any) -> None:
        super().__init__(segmentor, **kwargs)
        self.count_ignored = count_ignored

    def make_targets(
        self, logits: Tensor, representations: Tensor, size: Sequence[int], padding: Tensor | None
    ) -> tuple[Targets, dict[str, Tensor]]:
        """Label the pixels on which both spaces agree: targets (N, 1, H, W); arguments as in ``CSS``."""
        pseudo = PseudoLabel.from_logits(self.resize_to_input(logits, size), self.threshold, padding)
        by_similarity = self.label_by_similarity(representations, size, padding)
        agreed = (pseudo.label == by_similarity.label) | ~self.prototypes.seen[pseudo.label]
        targets = Targets.from_pseudo_labels(pseudo)
        label = targets.label.masked_fill(~agreed[:, None], IGNORE_INDEX)
        confidence = targets.confidence if self.count_ignored else targets.confidence * agreed[:, None]
        statistics = self.log_statistics(pseudo) | {'css.agreement': _share(agreed, pseudo.image_mask)}
        return Targets(label, confidence), statistics


@MODELS.register_module()
class CSSCross(SimilarityCSS):
    """CSS with crossed labels: each space learns from the labels of the other.

    .. code-block:: text

        y,  q:  argmax and max of the teacher's s; during warm-up, of softmax(teacher's logits)
        y', q': argmax and max of softmax(teacher's logits)

    Adds ``css.agreement`` to the log: the share of pixels on which
    both spaces agree. The ``pseudo.*`` statistics are of y and q.

    Args:
        segmentor (dict): Config of the student; its ``decode_head`` is an
            ``allspark_mmseg.RepresentationHead``.
        warm_up (int): Steps of the warm-up. The teacher counts them.
        kwargs: As in ``SimilarityCSS``.

    Raises:
        ValueError: As in ``SimilarityCSS``; s cannot reach ``threshold``; or ``warm_up`` is negative.
    """

    def __init__(self, segmentor: dict, *, warm_up: int = 0, **kwargs: Any) -> None:
        check_arguments('CSSCross', dict(warm_up=warm_up))
        super().__init__(segmentor, **kwargs)
        check_reachable(
            'CSSCross',
            'threshold',
            self.threshold,
            self.similarity_temperature,
            self.num_classes,
            'the loss on pseudo-labels would always be 0',
        )
        self.warm_up = warm_up

    def make_targets(
        self, logits: Tensor, representations: Tensor, size: Sequence[int], padding: Tensor | None
    ) -> tuple[Targets, dict[str, Tensor]]:
        """Label each space by the other: targets (N, 2, H, W); arguments as in ``CSS``."""
        by_logits = PseudoLabel.from_logits(self.resize_to_input(logits, size), self.threshold, padding)
        by_similarity = self.label_by_similarity(representations, size, padding)
        agreed = by_logits.label == by_similarity.label
        warming = self.teacher.steps < self.warm_up  # a branch on this tensor would synchronize
        pseudo = by_logits.map(lambda early, late: torch.where(warming, early, late), by_similarity)
        statistics = self.log_statistics(pseudo) | {'css.agreement': _share(agreed, pseudo.image_mask)}
        return Targets.from_pseudo_labels(pseudo, by_logits), statistics


def check_reachable(
    owner: str, name: str, threshold: float | None, temperature: float, num_classes: int, consequence: str
) -> None:
    """Check that a softmax similarity can reach a threshold.

    Args:
        owner (str): Name of the method, for the message.
        name (str): Name of the threshold, for the message.
        threshold (float, optional): The threshold; None is always reachable.
        temperature (float): Temperature of the softmax similarity.
        num_classes (int): Number of classes K.
        consequence (str): What happens if the threshold is out of reach, for the message.

    Raises:
        ValueError: The threshold is out of reach.
    """
    highest = 1 / (1 + (num_classes - 1) * math.exp(-2 / temperature))
    expected = (
        f'at most {highest:.3f}: with similarity_temperature={temperature} and {num_classes} classes no '
        f'softmax similarity exceeds {highest:.3f}, so that {consequence}. Set similarity_temperature to '
        f'0.1, or lower {name}'
    )
    require(owner, name, threshold, threshold is None or threshold <= highest, expected)


def _check_hard_reachable(owner: str, threshold: float | None, temperature: float, num_classes: int) -> None:
    consequence = 'every pixel would be hard (hard_threshold=None makes every pixel hard on purpose)'
    check_reachable(owner, 'hard_threshold', threshold, temperature, num_classes, consequence)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return (part & whole).sum() / whole.sum().clamp(min=1)
