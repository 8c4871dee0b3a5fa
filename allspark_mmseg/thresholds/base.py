"""Base class of thresholds that adapt to the predictions for unlabeled images."""

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from ..utils import require


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
            the pixel, 0 or more. Values on padding have no meaning.
        """
        label, confidence = most_probable(logits)
        if self.training:
            self.update(logits, label, confidence, image_mask)
        return self.judge(label, confidence)

    def update(self, logits: Tensor, label: Tensor, confidence: Tensor, image_mask: Tensor) -> None:
        """Update the statistics.

        Args:
            logits (Tensor): (N, K, H, W) float.
            label (Tensor): (N, H, W) int64, the most probable class.
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


def most_probable(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Find the most probable class of each pixel.

    Args:
        logits (Tensor): (N, K, H, W) float.

    Returns:
        tuple[Tensor, Tensor]: The class (N, H, W) int64, and its probability (N, H, W) float.
    """
    highest, label = logits.max(dim=1)
    return label, (highest - logits.logsumexp(dim=1)).exp()
