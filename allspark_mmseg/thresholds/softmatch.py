"""Truncated Gaussian weights of SoftMatch."""

import torch
from torch import Tensor

from ..utils import require
from .base import ConfidenceThreshold


class SoftMatchThreshold(ConfidenceThreshold):
    r"""Truncated Gaussian weights of SoftMatch (Chen et al., ICLR 2023, arXiv 2301.10921, section 3).

    .. code-block:: text

        mu     as in ConfidenceThreshold
        var   <- momentum var + (1 - momentum) (unbiased variance of the confidence),  at first 1
        weight = exp(-n_sigma^2 (confidence - mu)^2 / (2 var)) if confidence < mu, else 1

    No pixel is invalid. ``n_sigma`` is a parameter of the authors' code; 1 gives the formula of the paper.
    The uniform alignment of SoftMatch is not part of this class.

    Args:
        num_classes (int): Number of classes K.
        momentum (float): As in ``ConfidenceThreshold``.
        n_sigma (float): Above 0. The weights fall faster below mu if it is larger.

    Raises:
        ValueError: ``momentum`` or ``n_sigma`` is out of range.
    """

    variance: Tensor

    def __init__(self, num_classes: int, momentum: float = 0.999, n_sigma: float = 2.0) -> None:
        super().__init__(num_classes, momentum)
        valid = isinstance(n_sigma, int | float) and n_sigma > 0
        require('SoftMatchThreshold', 'n_sigma', n_sigma, valid, 'a number above 0')
        self.n_sigma = n_sigma
        self.register_buffer('variance', torch.ones(()))

    def update(self, logits: Tensor, label: Tensor, confidence: Tensor, image_mask: Tensor) -> None:
        """Update mu and var; see ``ConfidenceThreshold`` for the shapes (N, K, H, W) and (N, H, W)."""
        # moments around the old mu: one sum over the processes is enough, and little precision is lost
        deviation = (confidence - self.mean_confidence) * image_mask
        sums = torch.stack([deviation.sum(), deviation.square().sum()])
        (shift, square), count, share = self._average(sums, image_mask)
        variance = (square - shift.square()).clamp(min=0) * count / (count - 1).clamp(min=1)
        self.mean_confidence.add_(share * shift)
        self.variance.lerp_(variance, share)

    def judge(self, label: Tensor, confidence: Tensor) -> Tensor:
        """Return (N, H, W) float in [0, 1]: the weights of confidences (N, H, W), for any label."""
        below = (confidence - self.mean_confidence).clamp(max=0)
        scale = self.n_sigma**2 / (2 * self.variance.clamp(min=torch.finfo(torch.float32).eps))
        return (-scale * below.square()).exp()
