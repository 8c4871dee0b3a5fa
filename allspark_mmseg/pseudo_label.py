"""Pseudo-labels: predictions for unlabeled images that serve as training targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from .utils import require

IGNORE_INDEX = 255


@dataclass(frozen=True)
class PseudoLabel:
    """Pseudo-labels of N unlabeled images. They carry no gradient.

    Attributes:
        label (Tensor): (N, H, W) int64, the most probable class of each pixel, in 0..K-1.
        confidence (Tensor): (N, H, W) float, the probability of that class, in [1/K, 1].
        valid (Tensor): (N, H, W) bool, True for pixels that are confident and not padding.
        image_mask (Tensor): (N, H, W) bool, False for padding.
        logits (Tensor): (N, K, H, W) float, the logits that the labels come from.
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
            logits (Tensor): (N, K, H, W) float.
            threshold (float): Minimum confidence of a valid pixel, in [0, 1].
            padding (Tensor, optional): (N, H, W) bool, True for padding.

        Returns:
            PseudoLabel: Pseudo-labels of the N images.
        """
        logits = logits.detach()
        highest, label = logits.max(dim=1)
        confidence = (highest - logits.logsumexp(dim=1)).exp()
        image_mask = torch.ones_like(label, dtype=torch.bool) if padding is None else ~padding
        return cls(label, confidence, (confidence >= threshold) & image_mask, image_mask, logits)

    @property
    def target(self) -> Tensor:
        """(N, H, W) int64: the label of valid pixels, 255 elsewhere."""
        return self.label.masked_fill(~self.valid, IGNORE_INDEX)

    @property
    def confident_share(self) -> Tensor:
        """Scalar in [0, 1]: the share of valid pixels among all pixels except padding."""
        return self.valid.sum() / self.image_mask.sum().clamp(min=1)

    def map(self, function: Callable[..., Tensor], *others: 'PseudoLabel') -> 'PseudoLabel':
        """Apply a function to every attribute.

        Args:
            function (Callable): Takes this object's attribute (N, ...) and the same attribute of each of
                ``others``; returns a tensor of the same shape.
            others (PseudoLabel): Further pseudo-labels.

        Returns:
            PseudoLabel: The results.
        """
        return PseudoLabel(
            *(function(*(getattr(each, field.name) for each in (self, *others))) for field in fields(self))
        )

    def class_share(self) -> Tensor:
        """(K,) float32: the share of all pixels that each class has; the sum is 1."""
        counts = self.logits.new_zeros(self.logits.shape[1], dtype=torch.float32)
        ones = torch.ones((), device=counts.device).expand(self.label.numel())
        # scatter_add_ instead of bincount, which synchronizes with the device
        return counts.scatter_add_(0, self.label.flatten(), ones) / self.label.numel()


def check_threshold(owner: str, threshold: float) -> None:
    """Check a confidence threshold.

    Args:
        owner (str): Name of the method, for the message.
        threshold (float): The threshold.

    Raises:
        ValueError: The threshold is not in [0, 1].
    """
    require(owner, 'threshold', threshold, 0 <= threshold <= 1, 'a confidence in [0, 1]')


def padded_pixels(data_samples: Sequence[SegDataSample]) -> Tensor:
    """Find the padding of unlabeled images in the maps of ``LoadEmptyAnnotations``.

    Args:
        data_samples (Sequence[SegDataSample]): N samples; ``gt_sem_seg`` (1, H, W) is 255 on padding.

    Returns:
        Tensor: (N, H, W) bool, True for padding.

    Raises:
        ValueError: A sample has no ``gt_sem_seg``.
    """
    if not all('gt_sem_seg' in sample for sample in data_samples):
        raise ValueError(
            'ignore_padding=True needs maps of the padding, but the unlabeled samples have no gt_sem_seg. '
            "Add dict(type='allspark_mmseg.LoadEmptyAnnotations') after LoadImageFromFile in the unlabeled "
            'pipeline.'
        )
    return torch.cat([sample.gt_sem_seg.data for sample in data_samples]) == IGNORE_INDEX


def masked_cross_entropy(logits: Tensor, target: Tensor, averaged: Tensor | None = None) -> Tensor:
    """Compute the cross-entropy of the pixels that have a target, averaged over a set of pixels.

    Args:
        logits (Tensor): (N, K, H, W) float.
        target (Tensor): (N, H, W) int64, in 0..K-1, or 255 for pixels without a target.
        averaged (Tensor, optional): (N, H, W) bool, the pixels whose number divides the sum. By default the
            pixels with a target.

    Returns:
        Tensor: Scalar; 0 with a zero gradient when no pixel has a target.
    """
    # summed here, because the reduction inside cross_entropy has no deterministic algorithm on CUDA
    total = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction='none').sum()
    averaged = target != IGNORE_INDEX if averaged is None else averaged
    return total / averaged.sum().clamp(min=1)


def pseudo_label_loss(logits: Tensor, pseudo: PseudoLabel, average_over: str = 'confident') -> Tensor:
    """Compute the cross-entropy of the valid pixels of pseudo-labels.

    Args:
        logits (Tensor): (N, K, H, W) float, at the size of the images.
        pseudo (PseudoLabel): Pseudo-labels of the same images.
        average_over (str): The pixels whose number divides the sum. ``'confident'``: the valid pixels.
            ``'image'``: all pixels except padding; the loss is then small if few pixels are valid. ``'all'``:
            all pixels, including padding.

    Returns:
        Tensor: Scalar; 0 with a zero gradient when no pixel is valid.
    """
    if average_over == 'confident':
        return masked_cross_entropy(logits, pseudo.target)
    averaged = pseudo.image_mask if average_over == 'image' else torch.ones_like(pseudo.image_mask)
    return masked_cross_entropy(logits, pseudo.target, averaged)
