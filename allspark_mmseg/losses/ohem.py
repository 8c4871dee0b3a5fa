"""Cross-entropy on hard pixels: :class:`OHEMCrossEntropyLoss`."""

from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class OHEMCrossEntropyLoss(nn.Module):
    r"""Cross-entropy averaged over the hard pixels of the batch (online hard example mining).

    The labeled loss on Cityscapes in the released code of UniMatch (arXiv 2208.09910) and AllSpark
    (arXiv 2403.01818). With q_i the probability of pixel i's true class and V the valid pixels of the whole
    batch, those that are not ``ignore_index``:

    .. math::

        \tau = \max(\text{threshold}, \text{the min\_kept-th smallest } q_i),\qquad
        L = \frac{1}{|\{i \in V: q_i \le \tau\}|} \sum_{i \in V:\, q_i \le \tau} -\log q_i

    All of V is kept when it has fewer than ``min_kept`` pixels, or when ``min_kept`` is 0. Without any valid
    pixel the loss is 0 with a zero gradient (the released code gives NaN). The choice carries no gradient.

    In a decode head, with any method (a semi-supervised one applies it to labeled images only)::

        loss_decode=dict(type='allspark_mmseg.OHEMCrossEntropyLoss', threshold=0.7, min_kept=200000)

    MMSegmentation's two differ: both keep q strictly below the (``min_kept`` + 1)-th smallest, or below the
    largest of fewer, so they drop ties and the easiest of too few; ``OhemCrossEntropy`` does not fit into
    a decode head; ``OHEMPixelSampler`` counts ``min_kept`` per image and averages over all pixels.

    Args:
        threshold: pixels at most this sure of the true class are always kept; in [0, 1].
        min_kept: pixels kept at least, in the whole batch of a process; not scaled with its size.
        loss_weight: factor of the loss.
        loss_name: its name in the log; must start with ``loss_`` to be trained on.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        threshold: float = 0.7,
        min_kept: int = 200_000,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ohem',
    ):
        super().__init__()
        if not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise ValueError(f'OHEMCrossEntropyLoss: threshold is {threshold!r}, expected one in [0, 1].')
        if not isinstance(min_kept, int) or isinstance(min_kept, bool) or min_kept < 0:
            raise ValueError(
                f'OHEMCrossEntropyLoss: min_kept is {min_kept!r}, expected a number of pixels, 0 or more.'
            )
        if not loss_name.startswith('loss_'):
            raise ValueError(
                f"OHEMCrossEntropyLoss: loss_name is {loss_name!r}, expected one that starts with 'loss_'; "
                'MMSegmentation would only log it.'
            )
        self.threshold = threshold
        self.min_kept = min_kept
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, logits: Tensor, label: Tensor, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        """Compute the loss.

        Args:
            logits: (N, K, H, W); the computation is in float32 at least.
            label: (N, H, W) int64, 0..K-1 or ``ignore_index``.
            weight: None; MMSegmentation passes the weights of the head's pixel sampler here.
            ignore_index: the label of pixels that do not count.

        Returns:
            Tensor: scalar.

        Raises:
            ValueError: ``weight`` is given.
        """
        if weight is not None:
            raise ValueError(
                'OHEMCrossEntropyLoss got pixel weights, but it chooses the pixels itself: remove '
                "decode_head.sampler, or use loss_decode=dict(type='CrossEntropyLoss') with it."
            )
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        per_pixel = F.cross_entropy(logits, label, ignore_index=ignore_index, reduction='none')
        kept = self._kept(per_pixel.detach(), label != ignore_index)
        # a product rather than an indexed sum, which would wait for the device to count the pixels
        return self.loss_weight * (per_pixel * kept).sum() / kept.sum().clamp(min=1)

    def _kept(self, per_pixel: Tensor, valid: Tensor) -> Tensor:
        """Which pixels count, (N, H, W) bool, from the cross-entropy and the validity of each."""
        if not 0 < self.min_kept <= valid.numel():
            return valid
        # the probability of the true class is exp(-cross-entropy): no softmax over all classes is needed.
        # The infinity makes the threshold infinite, all valid pixels kept, when fewer than min_kept are.
        probability = per_pixel.neg().exp().masked_fill(~valid, torch.inf)
        # topk rather than kthvalue, which CUDA lacks in deterministic mode
        smallest = probability.flatten().topk(self.min_kept, largest=False, sorted=False).values
        return valid & (probability <= smallest.max().clamp(min=self.threshold))
