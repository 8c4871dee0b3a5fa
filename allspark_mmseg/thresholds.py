"""Confidence thresholds of pseudo-labels: a number, FreeMatch or SoftMatch."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from .utils import require


class ConfidenceThreshold(nn.Module):
    r"""Base class of thresholds that adapt to the predictions for unlabeled images.

    A sample of the papers is a pixel that is not padding. In training mode, ``forward`` first updates the
    statistics with the samples of all processes, then it judges the pixels, as in the papers. In eval mode it
    only judges. One statistic is common:

    .. code-block:: text

        mu <- momentum mu + (1 - momentum) (mean confidence of the samples),  at first 1 / K

    The checkpoint contains the statistics, which are buffers.

    Args:
        num_classes (int): Number of classes K.
        momentum (float): Share of the old value, in [0, 1), as in the papers. MMEngine and ``Teacher`` mean
            the share of the new value. After t steps, the initial values have the share momentum^t.

    Raises:
        ValueError: ``momentum`` is out of range.
    """

    mean_confidence: Tensor

    def __init__(self, num_classes: int, momentum: float = 0.999) -> None:
        super().__init__()
        expected = 'the share of the old value, in [0, 1), for example 0.999'
        valid = isinstance(momentum, int | float) and 0 <= momentum < 1
        require(type(self).__name__, 'momentum', momentum, valid, expected)
        self.num_classes = num_classes
        self.momentum = momentum
        self.register_buffer('mean_confidence', torch.tensor(1 / num_classes))

    @property
    def class_thresholds(self) -> Tensor:
        """(K,) float in [0, 1]: the threshold of each class."""
        return self.mean_confidence.repeat(self.num_classes)

    def statistics(self) -> dict[str, Tensor]:
        """Return scalars for the log: the global threshold and the lowest threshold of a class."""
        return {
            'pseudo.threshold': self.mean_confidence.clone(),
            'pseudo.threshold_min': self.class_thresholds.min(),
        }

    @torch.no_grad()
    def forward(self, logits: Tensor, image_mask: Tensor) -> Tensor:
        """Judge the predicted label of each pixel.

        Args:
            logits (Tensor): (N, K, H, W) float.
            image_mask (Tensor): (N, H, W) bool, False for padding.

        Returns:
            Tensor: (N, H, W), without gradient. Either bool, True for valid pixels, or float, the weight of
            the pixel in [0, 1]. Values on padding have no meaning.
        """
        label, confidence = most_probable(logits)
        if self.training:
            self.update(logits, confidence, image_mask)
        return self.judge(label, confidence)

    def update(self, logits: Tensor, confidence: Tensor, image_mask: Tensor) -> None:
        """Update the statistics.

        Args:
            logits (Tensor): (N, K, H, W) float.
            confidence (Tensor): (N, H, W) float.
            image_mask (Tensor): (N, H, W) bool, False for padding.
        """
        raise NotImplementedError

    def judge(self, label: Tensor, confidence: Tensor) -> Tensor:
        """Judge pixels with the current statistics.

        Args:
            label (Tensor): (N, H, W) int64, in 0..K-1.
            confidence (Tensor): (N, H, W) float.

        Returns:
            Tensor: (N, H, W) bool or float, as ``forward`` returns it.
        """
        raise NotImplementedError

    def _average(self, sums: Tensor, image_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Divide sums (M,) over the pixels of this process by the pixels of all processes.

        Returns the means (M,), the number of pixels, and the share of the new values in the statistics. The
        share is 0 if there is no pixel.
        """
        totals = torch.cat([image_mask.sum()[None], sums]).to(self.mean_confidence)
        all_reduce(totals)
        count = totals[0]
        return totals[1:] / count.clamp(min=1), count, (1 - self.momentum) * (count > 0)


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

    def update(self, logits: Tensor, confidence: Tensor, image_mask: Tensor) -> None:
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

    def update(self, logits: Tensor, confidence: Tensor, image_mask: Tensor) -> None:
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


_ADAPTIVE: dict[str, type[ConfidenceThreshold]] = {
    'FreeMatch': FreeMatchThreshold,
    'SoftMatch': SoftMatchThreshold,
}


def most_probable(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Find the most probable class of each pixel.

    Args:
        logits (Tensor): (N, K, H, W) float.

    Returns:
        tuple[Tensor, Tensor]: The class (N, H, W) int64, and its probability (N, H, W) float.
    """
    highest, label = logits.max(dim=1)
    return label, (highest - logits.logsumexp(dim=1)).exp()


def check_threshold(owner: str, threshold: object) -> None:
    """Check that a confidence threshold is a number in [0, 1].

    Args:
        owner (str): Name of the method, for the message.
        threshold (object): The threshold.

    Raises:
        ValueError: It is not.
    """
    valid = isinstance(threshold, int | float) and 0 <= threshold <= 1
    require(owner, 'threshold', threshold, valid, 'a confidence in [0, 1]')


def build_threshold(
    owner: str, threshold: float | Mapping[str, Any], num_classes: int
) -> float | ConfidenceThreshold:
    """Check the argument ``threshold`` of a method, and build an adaptive threshold from a dict.

    Args:
        owner (str): Name of the method, for the messages.
        threshold (float or dict): A confidence in [0, 1]; or ``dict(type='FreeMatch', ...)`` or
            ``dict(type='SoftMatch', ...)`` with arguments of the class.
        num_classes (int): Number of classes K.

    Returns:
        float or ConfidenceThreshold: The number itself, or the module.

    Raises:
        ValueError: The number is not in [0, 1], the type is unknown, or an argument is unknown or invalid.
    """
    if not isinstance(threshold, Mapping):
        check_threshold(owner, threshold)
        return threshold
    options = dict(threshold)
    kind = options.pop('type', None)
    require(owner, 'threshold.type', kind, kind in _ADAPTIVE, f'one of {tuple(_ADAPTIVE)}')
    known = tuple(name for name in inspect.signature(_ADAPTIVE[kind]).parameters if name != 'num_classes')
    for name in options:
        require(owner, 'a key of threshold', name, name in known, f'one of {known} for {kind}')
    return _ADAPTIVE[kind](num_classes, **options)
