"""Pseudo-labels: what a network predicts for unlabeled images, used as their target."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = 255


@dataclass(frozen=True)
class PseudoLabel:
    """The prediction for unlabeled images as a target; carries no gradient.

    Attributes:
        label: (N, H, W) int64, the most probable class of each pixel, 0..K-1.
        confidence: (N, H, W) float, the probability of that class, in [1/K, 1].
        valid: (N, H, W) bool, the pixels that count in the loss: confident ones of the image.
        image_mask: (N, H, W) bool, the pixels that are part of the image, not of padding.
        logits: (N, K, H, W) float, the logits all this was made from.
    """

    label: Tensor
    confidence: Tensor
    valid: Tensor
    image_mask: Tensor
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
        real = torch.ones_like(label, dtype=torch.bool) if padding is None else ~padding
        return cls(label, confidence, (confidence >= threshold) & real, real, logits)

    @property
    def target(self) -> Tensor:
        """(N, H, W) int64: the label where valid, 255 elsewhere."""
        return self.label.masked_fill(~self.valid, IGNORE_INDEX)

    @property
    def confident_share(self) -> Tensor:
        """Scalar in [0, 1]: the share of the image's pixels that count."""
        return self.valid.sum() / self.image_mask.sum().clamp(min=1)

    def map(self, function: Callable[..., Tensor], *others: 'PseudoLabel') -> 'PseudoLabel':
        """Apply a function to each attribute, together with the same attribute of others."""
        return PseudoLabel(
            *(function(*(getattr(each, field.name) for each in (self, *others))) for field in fields(self))
        )

    def class_share(self) -> Tensor:
        """(K,) float: the share of all pixels that each pseudo-class takes, summing to 1."""
        counts = self.logits.new_zeros(self.logits.shape[1], dtype=torch.float32)
        ones = torch.ones((), device=counts.device).expand(self.label.numel())
        # scatter_add_ rather than bincount, which waits for the device
        return counts.scatter_add_(0, self.label.flatten(), ones) / self.label.numel()


def check_threshold(method: str, threshold: float) -> None:
    """Check a confidence threshold.

    Raises:
        ValueError: it is not in [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f'{method}: threshold is {threshold}, expected a confidence in [0, 1].')


def padded_pixels(data_samples: list) -> Tensor:
    """Pixels that padding added to unlabeled images, as ``LoadEmptyAnnotations`` marks them.

    Args:
        data_samples: N samples whose ``gt_sem_seg`` is 255 on padding, and 0 elsewhere.

    Returns:
        Tensor: (N, H, W) bool.

    Raises:
        ValueError: a sample has no such map.
    """
    if not all('gt_sem_seg' in sample for sample in data_samples):
        raise ValueError(
            'ignore_padding=True, but the unlabeled samples do not tell what is padding. Put '
            "dict(type='allspark_mmseg.LoadEmptyAnnotations') behind LoadImageFromFile in the unlabeled pipeline."
        )
    return torch.cat([sample.gt_sem_seg.data for sample in data_samples]) == IGNORE_INDEX


def masked_cross_entropy(logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
    """Cross-entropy of the pixels that are not 255, averaged over them or over more pixels.

    Args:
        logits: (N, K, H, W).
        target: (N, H, W) int64, 0..K-1 or 255.
        counted: (N, H, W) bool, the pixels to average over, of which those with a target of 255 add nothing;
            by default those with a target.

    Returns:
        Tensor: scalar; 0 (with a zero gradient) when no pixel counts.
    """
    # summed here: on CUDA the reduction inside has no deterministic algorithm
    total = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction='none').sum()
    counted = target != IGNORE_INDEX if counted is None else counted
    return total / counted.sum().clamp(min=1)
