"""Pseudo-labels: what a network predicts for unlabelled images, used as their target."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = 255


@dataclass(frozen=True)
class PseudoLabel:
    """The prediction for unlabelled images as a target; carries no gradient.

    Attributes:
        label: (N, H, W) int64, the most probable class of each pixel, 0..K-1.
        confidence: (N, H, W) float, the probability of that class, in [1/K, 1].
        valid: (N, H, W) bool, the pixels that count in the loss.
        logits: (N, K, H, W) float, the logits all this was made from.
    """

    label: Tensor
    confidence: Tensor
    valid: Tensor
    logits: Tensor

    @classmethod
    def from_logits(
        cls, logits: Tensor, threshold: float = 0.0, padding: Tensor | None = None
    ) -> 'PseudoLabel':
        """Make pseudo-labels from logits.

        Args:
            logits: (N, K, H, W).
            threshold: pixels whose confidence is below it do not count; in [0, 1].
            padding: (N, H, W) bool, pixels that do not count because they are no part of the image.
        """
        logits = logits.detach()
        highest, label = logits.max(dim=1)
        confidence = (highest - logits.logsumexp(dim=1)).exp()
        valid = confidence >= threshold
        return cls(label, confidence, valid if padding is None else valid & ~padding, logits)

    @property
    def target(self) -> Tensor:
        """(N, H, W) int64: the label where valid, 255 elsewhere."""
        return self.label.masked_fill(~self.valid, IGNORE_INDEX)

    def class_share(self) -> Tensor:
        """(K,) float: the share of all pixels that each pseudo-class takes, summing to 1."""
        counts = self.logits.new_zeros(self.logits.shape[1], dtype=torch.float32)
        ones = torch.ones((), device=counts.device).expand(self.label.numel())
        # scatter_add_ rather than bincount, which waits for the device
        return counts.scatter_add_(0, self.label.flatten(), ones) / self.label.numel()


def padded_pixels(data_samples: list) -> Tensor:
    """Pixels that padding added to unlabelled images, as ``BlankSegMap`` marks them.

    Args:
        data_samples: N samples whose ``gt_sem_seg`` is 255 on padding, and 0 elsewhere.

    Returns:
        Tensor: (N, H, W) bool.

    Raises:
        ValueError: a sample has no such map.
    """
    if not all('gt_sem_seg' in sample for sample in data_samples):
        raise ValueError(
            'ignore_padding=True, but the unlabelled samples do not tell what is padding. Put '
            "dict(type='allspark_mmseg.BlankSegMap') behind LoadImageFromFile in the unlabelled pipeline."
        )
    return torch.cat([sample.gt_sem_seg.data for sample in data_samples]) == IGNORE_INDEX


def masked_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy averaged over the pixels that are not 255; 0 (with a zero gradient) when all are.

    Args:
        logits: (N, K, H, W).
        target: (N, H, W) int64, 0..K-1 or 255.

    Returns:
        Tensor: scalar.
    """
    total = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction='sum')
    return total / (target != IGNORE_INDEX).sum().clamp(min=1)
