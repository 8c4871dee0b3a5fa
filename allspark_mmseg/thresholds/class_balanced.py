"""Class-balanced thresholds and weights."""

import torch
from torch import Tensor

from ..utils import require
from .base import ConfidenceThreshold


class ClassBalancedThreshold(ConfidenceThreshold):
    r"""The same proportion of each class, and weights for rare classes.

    The thresholds are those of class-balanced self-training (CBST, Zou et al., ECCV 2018, arXiv 1810.07911,
    section 4.2). CBST computes them from all unlabeled images between its rounds; here, moving averages
    follow the training. The weights are those of median frequency balancing (Eigen and Fergus, ICCV 2015,
    arXiv 1411.4734, section 6.3.2), with an exponent and a maximum, and with the frequencies of the predicted
    labels.

    .. code-block:: text

        s(c, b)  = share of the samples with label c and a confidence in bin b
        h(c, b) <- momentum h(c, b) + (1 - momentum) s(c, b),  at first 0
        f(c)     = sum_b h(c, b) / sum_kb h(k, b)
        tau(c)   = the highest edge of a bin with at least the proportion of h(c) above it
        v(c)     = min((median_k f(k) / f(c))^exponent, max_weight)
        weight   = v(c) / sum_k f(k) v(k) if confidence >= tau(c), else 0;  c is the label of the pixel

    The scale of h has no influence, so its initial value leaves no bias. Before the first update, all pixels
    have the weight 1.

    Args:
        num_classes (int): Number of classes K.
        momentum (float): As in ``ConfidenceThreshold``.
        proportion (float): Share of the pixels of a label that are accepted, in (0, 1].
        exponent (float): 0 or more. 0 gives all accepted pixels the weight 1.
        max_weight (float): Maximum of v, at least 1.
        bins (int): Number of bins between the confidences 0 and 1, at least 2.

    Raises:
        ValueError: An argument is out of range.
    """

    histogram: Tensor

    def __init__(
        self,
        num_classes: int,
        momentum: float = 0.99,
        proportion: float = 0.5,
        exponent: float = 0.5,
        max_weight: float = 4.0,
        bins: int = 200,
    ) -> None:
        super().__init__(num_classes, momentum)
        name, number = type(self).__name__, int | float
        valid = isinstance(proportion, number) and 0 < proportion <= 1
        require(name, 'proportion', proportion, valid, 'a share in (0, 1]')
        valid = isinstance(exponent, number) and exponent >= 0
        require(name, 'exponent', exponent, valid, 'a number from 0 on')
        valid = isinstance(max_weight, number) and max_weight >= 1
        require(name, 'max_weight', max_weight, valid, 'a number from 1 on')
        require(name, 'bins', bins, isinstance(bins, int) and bins >= 2, 'an integer from 2 on')
        self.proportion = proportion
        self.exponent = exponent
        self.max_weight = max_weight
        self.bins = bins
        self.register_buffer('histogram', torch.zeros(num_classes, bins))

    @property
    def class_thresholds(self) -> Tensor:
        """(K,) float in [0, 1): tau(c)."""
        # (K, bins): what lies in a bin or above; not cumsum, which has no deterministic algorithm on CUDA
        at_or_above = self.histogram.new_ones(self.bins, self.bins).triu()
        above = (self.histogram[:, None] * at_or_above).sum(dim=2)
        enough = (above >= self.proportion * above[:, :1]) & (above > 0)
        return (enough.sum(dim=1) - 1).clamp(min=0) / self.bins

    def statistics(self) -> dict[str, Tensor]:
        """Return scalars for the log: mean and minimum of tau(c) over the classes that were predicted."""
        thresholds = self.class_thresholds
        unseen = self.histogram.sum(dim=1) == 0
        return {
            'pseudo.threshold': thresholds.masked_fill(unseen, torch.nan).nanmean().nan_to_num(0.0),
            'pseudo.threshold_min': thresholds.masked_fill(unseen & ~unseen.all(), 1.0).min(),
        }

    @property
    def class_weights(self) -> Tensor:
        """(K,) float, 0 or more: the weight of an accepted pixel of each label."""
        share = self.histogram.sum(dim=1)
        share = share / share.sum().clamp(min=torch.finfo(share.dtype).tiny)
        # classes that are never predicted have no part in the median
        median = share.masked_fill(share == 0, torch.nan).nanmedian().nan_to_num(1.0)
        weights = (median / share).pow(self.exponent).clamp(max=self.max_weight)
        total = (share * weights).sum()
        return torch.where(total > 0, weights / total, 1.0)

    def update(self, logits: Tensor, label: Tensor, confidence: Tensor, image_mask: Tensor) -> None:
        """Update h and mu; see ``ConfidenceThreshold`` for the shapes (N, K, H, W) and (N, H, W)."""
        bins = (confidence * self.bins).long().clamp(max=self.bins - 1)
        cells = (label * self.bins + bins).flatten()
        counted = image_mask.flatten().to(self.histogram)
        # scatter_add_ instead of bincount, which synchronizes with the device
        counts = self.histogram.new_zeros(self.histogram.numel()).scatter_add_(0, cells, counted)
        sums = torch.cat([(confidence * image_mask).sum()[None].to(counts), counts])
        means, _, share = self._average(sums, image_mask)
        self.mean_confidence.lerp_(means[0], share)
        self.histogram.lerp_(means[1:].view_as(self.histogram), share)

    def judge(self, label: Tensor, confidence: Tensor) -> Tensor:
        """Return (N, H, W) float: the weights of confidences (N, H, W) with the labels (N, H, W)."""
        return (confidence >= self.class_thresholds[label]) * self.class_weights[label]
