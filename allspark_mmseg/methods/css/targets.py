"""Training targets of unlabeled images in CSS: labels and confidences of one or two kinds."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pseudo_label import IGNORE_INDEX, PseudoLabel


@dataclass(frozen=True)
class Targets:
    """Targets of N unlabeled images, of V kinds (V is 1 or 2).

    The first kind trains the classifier, the last kind the representations.

    Attributes:
        label (Tensor): (N, V, H, W) int64, in 0..K-1, or 255.
        confidence (Tensor): (N, V, H, W) float in [0, 1].
    """

    label: Tensor
    confidence: Tensor

    @classmethod
    def from_pseudo_labels(cls, *kinds: PseudoLabel) -> 'Targets':
        """Stack pseudo-labels, regardless of their thresholds; padding gets label 255 and confidence 0."""
        return cls(
            torch.stack([kind.label.masked_fill(~kind.image_mask, IGNORE_INDEX) for kind in kinds], dim=1),
            torch.stack([kind.confidence * kind.image_mask for kind in kinds], dim=1),
        )

    def contrast_label(self, weak_threshold: float) -> Tensor:
        """Return the labels of the pixels that take part in the contrast.

        Args:
            weak_threshold (float): Minimum confidence of such a pixel, in [0, 1].

        Returns:
            Tensor: (N, H, W) int64, in 0..K-1, or 255.
        """
        unsure = self.confidence[:, -1] < weak_threshold
        return self.label[:, -1].masked_fill(unsure, IGNORE_INDEX)


def classifier_loss(
    logits: Tensor, label: Tensor, confidence: Tensor, threshold: float, average_over: str
) -> Tensor:
    r"""Compute the cross-entropy on unlabeled images, weighted image by image (CSS, as released).

    .. code-block:: text

        w_b  = #{p: confidence_bp >= threshold} / #{p: label_bp != 255}
        loss = sum_bp w_b CE(logits_bp, label_bp) / n

    Args:
        logits (Tensor): (N, K, H, W) float32.
        label (Tensor): (N, H, W) int64, in 0..K-1, or 255.
        confidence (Tensor): (N, H, W) float.
        threshold (float): In [0, 1].
        average_over (str): What n counts: pixels with a loss above 0 (``'positive'``), or pixels with a label
            (``'labeled'``).

    Returns:
        Tensor: Scalar; 0 with a zero gradient when no pixel has a label.
    """
    labeled = label != IGNORE_INDEX
    confident = (confidence >= threshold).sum(dim=(1, 2))
    weight = confident / labeled.sum(dim=(1, 2)).clamp(min=1)
    per_pixel = F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction='none')
    averaged = per_pixel.detach() > 0 if average_over == 'positive' else labeled
    return (weight[:, None, None] * per_pixel).sum() / averaged.sum().clamp(min=1)
