"""Pseudo-labels: predictions for unlabeled images that serve as training targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from .thresholds import ConfidenceThreshold, most_probable
from .utils import require

IGNORE_INDEX = 255
AVERAGES = ('confident', 'image', 'all')  # of pseudo_label_loss


@dataclass(frozen=True)
class PseudoLabel:
    """Pseudo-labels of N unlabeled images. They carry no gradient.

    Attributes:
        label (Tensor): (N, H, W) int64, the most probable class of each pixel, in 0..K-1.
        confidence (Tensor): (N, H, W) float, the probability of that class, in [1/K, 1].
        valid (Tensor): (N, H, W) bool, True for pixels that are confident and not padding.
        image_mask (Tensor): (N, H, W) bool, False for padding.
        logits (Tensor): (N, K, H, W) float, the logits that the labels come from; without channels after
            ``cutmix_views``.
        weight (Tensor, optional): (N, H, W) float, 0 or more, the weight of a pixel in the loss; None for 1.
    """

    label: Tensor
    confidence: Tensor
    valid: Tensor
    image_mask: Tensor
    logits: Tensor
    weight: Tensor | None = None

    @classmethod
    def from_logits(
        cls, logits: Tensor, threshold: float | ConfidenceThreshold = 0.0, padding: Tensor | None = None
    ) -> 'PseudoLabel':
        """Make pseudo-labels from logits.

        Args:
            logits (Tensor): (N, K, H, W) float.
            threshold (float or ConfidenceThreshold): Minimum confidence of a valid pixel, in [0, 1]; or a
                module that judges the pixels. If it returns weights, all pixels except padding are valid.
            padding (Tensor, optional): (N, H, W) bool, True for padding.

        Returns:
            PseudoLabel: Pseudo-labels of the N images.
        """
        logits = logits.detach()
        label, confidence = most_probable(logits)
        image_mask = torch.ones_like(label, dtype=torch.bool) if padding is None else ~padding
        if isinstance(threshold, ConfidenceThreshold):
            accepted = threshold(logits, image_mask)
        else:
            accepted = confidence >= threshold
        if accepted.is_floating_point():
            return cls(label, confidence, image_mask, image_mask, logits, weight=accepted)
        return cls(label, confidence, accepted & image_mask, image_mask, logits)

    @property
    def target(self) -> Tensor:
        """(N, H, W) int64: the label of valid pixels, 255 elsewhere."""
        return self.label.masked_fill(~self.valid, IGNORE_INDEX)

    @property
    def confident_share(self) -> Tensor:
        """Scalar in [0, 1]: the share of valid pixels, or the mean weight, of all pixels except padding."""
        counted = self.valid if self.weight is None else self.valid * self.weight
        return counted.sum() / self.image_mask.sum().clamp(min=1)

    def map(self, function: Callable[..., Tensor], *others: 'PseudoLabel') -> 'PseudoLabel':
        """Apply a function to every attribute.

        Args:
            function (Callable): Takes this object's attribute (N, ...) and the same attribute of each of
                ``others``; returns a tensor of the same shape.
            others (PseudoLabel): Further pseudo-labels. Either all have weights, or none has.

        Returns:
            PseudoLabel: The results. Weights that are None stay None.
        """
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        results = {name: function(*(getattr(each, name) for each in (self, *others))) for name in names}
        return replace(self, **results)

    def without_logits(self) -> 'PseudoLabel':
        """Return the same pseudo-labels with logits (N, 0, H, W), which cost nothing to mix."""
        return replace(self, logits=self.logits[:, :0])

    def class_share(self) -> Tensor:
        """(K,) float32: the share of all pixels that each class has; the sum is 1."""
        counts = self.logits.new_zeros(self.logits.shape[1], dtype=torch.int64)
        one = torch.ones((), dtype=torch.int64, device=counts.device)
        # scatter_add_ instead of bincount, which synchronizes with the device
        counts.scatter_add_(0, self.label.flatten(), one.expand(self.label.numel()))
        return counts.float() / self.label.numel()


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


def masked_cross_entropy(
    logits: Tensor, target: Tensor, averaged: Tensor | None = None, weight: Tensor | None = None
) -> Tensor:
    """Compute the cross-entropy of the pixels that have a target, averaged over a set of pixels.

    Args:
        logits (Tensor): (N, K, H, W) float.
        target (Tensor): (N, H, W) int64, in 0..K-1, or 255 for pixels without a target.
        averaged (Tensor, optional): (N, H, W) bool, the pixels whose number divides the sum. By default the
            pixels with a target.
        weight (Tensor, optional): (N, H, W) float, the weight of each pixel in the sum. Weights do not change
            the number of pixels.

    Returns:
        Tensor: Scalar; 0 with a zero gradient when no pixel has a target.
    """
    # summed here, because the reduction inside cross_entropy has no deterministic algorithm on CUDA
    per_pixel = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction='none')
    total = (per_pixel if weight is None else per_pixel * weight).sum()
    averaged = target != IGNORE_INDEX if averaged is None else averaged
    return total / averaged.sum().clamp(min=1)


def pseudo_label_loss(logits: Tensor, pseudo: PseudoLabel, average_over: str = 'confident') -> Tensor:
    """Compute the cross-entropy of the valid pixels of pseudo-labels, times their weights if they have some.

    Args:
        logits (Tensor): (N, K, H, W) float, at the size of the images.
        pseudo (PseudoLabel): Pseudo-labels of the same images.
        average_over (str): The pixels whose number divides the sum. ``'confident'``: the valid pixels.
            ``'image'``: all pixels except padding; the loss is then small if few pixels are valid. ``'all'``:
            all pixels, including padding.

    Returns:
        Tensor: Scalar; 0 with a zero gradient when no pixel is valid.

    Raises:
        ValueError: ``average_over`` is unknown.
    """
    known = average_over in AVERAGES
    require('pseudo_label_loss', 'average_over', average_over, known, f'one of {AVERAGES}')
    if average_over == 'confident':
        return masked_cross_entropy(logits, pseudo.target, weight=pseudo.weight)
    averaged = pseudo.image_mask if average_over == 'image' else torch.ones_like(pseudo.image_mask)
    return masked_cross_entropy(logits, pseudo.target, averaged, pseudo.weight)
