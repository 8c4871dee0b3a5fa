"""Self-adaptive thresholds of FreeMatch."""

import torch
from torch import Tensor

from .base import ConfidenceThreshold


class FreeMatchThreshold(ConfidenceThreshold):
    r"""Self-adaptive thresholds of FreeMatch (Wang et al., ICLR 2023, arXiv 2205.07246, equations 5 to 8).

    .. code-block:: text

        tau      = mu of ConfidenceThreshold                                                     (5)
        p(c)    <- momentum p(c) + (1 - momentum) (mean probability of class c),  at first 1 / K (6)
        tau(c)   = tau p(c) / max_k p(k)                                                         (7)
        a pixel is valid if its confidence >= tau(c) of its label c                              (8)

    Equation 8 has > instead of >=; the authors' code and this package use >=. The fairness loss of FreeMatch
    is not part of this class.

    Args:
        num_classes (int): Number of classes K.
        momentum (float): As in ``ConfidenceThreshold``.
    """

    mean_probability: Tensor

    def __init__(self, num_classes: int, momentum: float = 0.999) -> None:
        super().__init__(num_classes, momentum)
        self.register_buffer('mean_probability', torch.full((num_classes,), 1 / num_classes))

    @property
    def class_thresholds(self) -> Tensor:
        """(K,) float in [0, 1]: tau(c)."""
        return self.mean_confidence * self.mean_probability / self.mean_probability.max()

    def update(self, logits: Tensor, label: Tensor, confidence: Tensor, image_mask: Tensor) -> None:
        """Update tau and p; see ``ConfidenceThreshold`` for the shapes (N, K, H, W) and (N, H, W)."""
        # in place, because the probabilities are as large as the logits
        probability = logits.softmax(dim=1).mul_(image_mask[:, None])
        sums = torch.cat([(confidence * image_mask).sum()[None], probability.sum(dim=(0, 2, 3))])
        means, _, share = self._average(sums, image_mask)
        self.mean_confidence.lerp_(means[0], share)
        self.mean_probability.lerp_(means[1:], share)

    def judge(self, label: Tensor, confidence: Tensor) -> Tensor:
        """Return (N, H, W) bool: confidence (N, H, W) >= tau(c) of the label c (N, H, W)."""
        return confidence >= self.class_thresholds[label]
