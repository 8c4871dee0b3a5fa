"""Cross-entropy with online hard example mining (OHEM)."""

from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import MODELS
from ..utils import require


@MODELS.register_module()
class OHEMCrossEntropyLoss(nn.Module):
    r"""Cross-entropy averaged over the hard pixels of the batch (online hard example mining).

    The released code of UniMatch (arXiv 2208.09910) and AllSpark (arXiv 2403.01818) uses it as the supervised
    loss on Cityscapes. q_i is the predicted probability of the true class of pixel i. V is the set of valid
    pixels of the batch (pixels whose label is not ``ignore_index``):

    .. math::

        \tau = \max(\text{threshold}, \text{the min\_kept-th smallest } q_i),\qquad
        L = \frac{1}{|\{i \in V: q_i \le \tau\}|} \sum_{i \in V:\, q_i \le \tau} -\log q_i

    All valid pixels are kept if there are fewer than ``min_kept`` or if ``min_kept`` is 0. Without valid
    pixels, the loss is 0 with a zero gradient (the released code returns NaN). The selection has no gradient.

    Use it in a decode head, with any method. Semi-supervised methods apply it to labeled images only::

        loss_decode=dict(type='allspark_mmseg.OHEMCrossEntropyLoss', threshold=0.7, min_kept=200000)

    MMSegmentation's ``OhemCrossEntropy`` and ``OHEMPixelSampler`` differ from the formula. Both keep only
    pixels with q below the (``min_kept`` + 1)-th smallest value, or below the largest value if there are
    fewer pixels. So they drop ties and the easiest pixel. ``OhemCrossEntropy`` does not fit into a decode
    head. ``OHEMPixelSampler`` counts ``min_kept`` per image and averages over all pixels.

    Args:
        threshold (float): Pixels with a probability of the true class up to this value are always kept. In
            [0, 1].
        min_kept (int): Minimum number of kept pixels in the batch of a process. It does not scale with the
            batch size.
        loss_weight (float): Factor of the loss.
        loss_name (str): Name in the log. It must start with ``loss_``, or MMEngine does not train on it.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        threshold: float = 0.7,
        min_kept: int = 200_000,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ohem',
    ) -> None:
        super().__init__()
        owner = 'OHEMCrossEntropyLoss'
        is_probability = isinstance(threshold, Real) and 0 <= threshold <= 1
        require(owner, 'threshold', threshold, is_probability, 'a number in [0, 1]')
        is_count = isinstance(min_kept, int) and not isinstance(min_kept, bool) and min_kept >= 0
        require(owner, 'min_kept', min_kept, is_count, 'a number of pixels, 0 or more')
        require(
            owner,
            'loss_name',
            loss_name,
            loss_name.startswith('loss_'),
            "a name that starts with 'loss_' (MMEngine only logs others)",
        )
        self.threshold: float = threshold
        self.min_kept: int = min_kept
        self.loss_weight: float = loss_weight
        self.loss_name = loss_name

    def forward(
        self, logits: Tensor, label: Tensor, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        """Compute the loss.

        Args:
            logits (Tensor): Logits of shape (N, K, H, W). The loss is computed in float32 or higher
                precision.
            label (Tensor): Labels of shape (N, H, W), int64, 0..K-1 or ``ignore_index``.
            weight (Tensor, optional): Must be None. MMSegmentation passes the weights of the head's pixel
                sampler as this argument.
            ignore_index (int): Label of ignored pixels.

        Returns:
            Tensor: Scalar loss.

        Raises:
            ValueError: ``weight`` is not None.
        """
        if weight is not None:
            raise ValueError(
                'OHEMCrossEntropyLoss: weight is given, expected None because the loss selects the pixels '
                'itself. Remove decode_head.sampler, or use it with '
                "loss_decode=dict(type='CrossEntropyLoss')."
            )
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        per_pixel = F.cross_entropy(logits, label, ignore_index=ignore_index, reduction='none')
        kept = self._select(per_pixel.detach(), label != ignore_index)
        # a product instead of boolean indexing, which synchronizes with the device
        return self.loss_weight * (per_pixel * kept).sum() / kept.sum().clamp(min=1)

    def _select(self, per_pixel: Tensor, valid: Tensor) -> Tensor:
        """Select the hard pixels, (N, H, W) bool, from cross-entropy and validity, both (N, H, W)."""
        if not 0 < self.min_kept <= valid.numel():
            return valid
        # q = exp(-cross-entropy), so no softmax over all classes is needed. With fewer than min_kept valid
        # pixels, the infinity becomes the threshold, which keeps all valid pixels.
        probability = per_pixel.neg().exp().masked_fill(~valid, torch.inf)
        # topk instead of kthvalue, which CUDA does not support in deterministic mode
        smallest = probability.flatten().topk(self.min_kept, largest=False, sorted=False).values
        return valid & (probability <= smallest.max().clamp(min=self.threshold))
