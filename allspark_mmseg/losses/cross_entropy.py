"""Cross-entropy with class weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.models.losses import CrossEntropyLoss as PlainCrossEntropyLoss
from torch import Tensor

from ..registry import MODELS
from ..utils import dicts_in, full_precision, require

# value of class_weight -> exponent of the weights of balanced_weights
BALANCED = {'balanced': 1.0, 'sqrt_balanced': 0.5}


@MODELS.register_module()
class CrossEntropyLoss(PlainCrossEntropyLoss):
    r"""MMSegmentation's ``CrossEntropyLoss`` whose class weights work, and can come from the labeled masks.

    With ``class_weight`` and ``avg_non_ignore=True``, MMSegmentation's loss raises an IndexError, because it
    selects the valid pixels and then indexes them with the mask of all pixels. This loss computes the
    weighted mean over the valid pixels, as PyTorch does. y is the label, w the weights and V the set of
    valid pixels:

    .. math::

        L = \frac{\sum_{i \in V} w_{y_i} \, (-\log q_i)}{\sum_{i \in V} w_{y_i}}

    Without valid pixels, it is 0. Without ``class_weight``, it is MMSegmentation's loss.

    ``class_weight='balanced'`` computes the weights from the labeled masks before the first iteration; see
    :func:`balanced_weights`. ``ClassWeightHook``, one of the default hooks of the configs, does this. The
    numbers are in the log and in the config of every checkpoint. A resumed run takes them from its
    checkpoint. ``'sqrt_balanced'`` uses the square roots of these weights: rare classes count more than
    without weights, and frequent classes lose less than with ``'balanced'``::

        decode_head=dict(
            loss_decode=dict(type='allspark_mmseg.CrossEntropyLoss', class_weight='sqrt_balanced'))

    Args:
        class_weight (Sequence[float] or str, optional): Weights of the K classes, ``'balanced'``,
            ``'sqrt_balanced'``, or a file with the weights, as in MMSegmentation.
        avg_non_ignore (bool): Average over the valid pixels. It must be True with ``class_weight``.
        **kwargs: Other arguments of MMSegmentation's ``CrossEntropyLoss``.

    Raises:
        ValueError: ``class_weight`` is combined with ``use_sigmoid``, ``use_mask`` or
            ``avg_non_ignore=False``.
    """

    class_weight: Any

    def __init__(
        self,
        class_weight: Sequence[float] | str | None = None,
        avg_non_ignore: bool = True,
        **kwargs: Any,
    ) -> None:
        balanced = isinstance(class_weight, str) and class_weight in BALANCED
        super().__init__(
            class_weight=None if balanced else class_weight, avg_non_ignore=avg_non_ignore, **kwargs
        )
        if balanced:
            self.class_weight = class_weight
        if self.class_weight is not None:
            name, plain = type(self).__name__, not (self.use_sigmoid or self.use_mask)
            require(name, 'class_weight', class_weight, plain, 'None with use_sigmoid or use_mask')
            require(name, 'avg_non_ignore', avg_non_ignore, avg_non_ignore, 'True with class_weight')
        self._weights: tuple[Any, Tensor] | None = None  # class_weight, and the same as a tensor

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        ignore_index: int = -100,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the loss.

        Args:
            cls_score (Tensor): Logits of shape (N, K, H, W).
            label (Tensor): Labels of shape (N, H, W), int64, 0..K-1 or ``ignore_index``.
            weight (Tensor, optional): Weight of each pixel, (N, H, W), of the head's pixel sampler.
            avg_factor (float, optional): Divisor of the sum, instead of the sum of the weights.
            reduction_override (str, optional): ``'none'``, ``'mean'`` or ``'sum'``, instead of ``reduction``.
            ignore_index (int): Label of ignored pixels.
            **kwargs: Other arguments of MMSegmentation's loss, without ``class_weight``.

        Returns:
            Tensor: Scalar loss, or (N, H, W) without reduction.

        Raises:
            RuntimeError: ``class_weight`` is a name, and no hook has computed the weights.
        """
        if self.class_weight is None:
            return super().forward(
                cls_score, label, weight, avg_factor, reduction_override, ignore_index, **kwargs
            )
        if isinstance(self.class_weight, str):
            raise RuntimeError(
                f"CrossEntropyLoss: class_weight is '{self.class_weight}', but no hook has computed the "
                "weights. Add default_hooks=dict(class_weights=dict(type='allspark_mmseg.ClassWeightHook'))."
            )
        cls_score = full_precision(cls_score)
        weights = self._weights_like(cls_score)
        per_pixel = F.cross_entropy(cls_score, label, weights, ignore_index=ignore_index, reduction='none')
        per_pixel = per_pixel if weight is None else per_pixel * weight.float()
        reduction = reduction_override or self.reduction
        if reduction == 'none':
            return self.loss_weight * per_pixel
        if reduction == 'sum':
            return self.loss_weight * per_pixel.sum()
        if avg_factor is None:
            valid = label != ignore_index
            total = (weights[label.masked_fill(~valid, 0)] * valid).sum()
            # the smallest number avoids 0 / 0, and changes no other result
            return self.loss_weight * per_pixel.sum() / total.clamp(min=torch.finfo(total.dtype).tiny)
        return self.loss_weight * per_pixel.sum() / avg_factor

    def _weights_like(self, scores: Tensor) -> Tensor:
        """Return the class weights (K,) with the dtype and device of the scores."""
        # copied once, because each copy to the device waits for it
        known = self._weights
        if (
            known is None
            or known[0] is not self.class_weight
            or (known[1].dtype, known[1].device) != (scores.dtype, scores.device)
        ):
            known = self._weights = (self.class_weight, scores.new_tensor(self.class_weight))
        return known[1]


def balanced_weights(pixels: np.ndarray, around: np.ndarray, exponent: float = 1.0) -> list[float]:
    r"""Compute class weights by median frequency balancing (Eigen and Fergus, arXiv:1411.4734, section
    6.3.2).

    .. math::

        w_c = \left(\frac{\operatorname{median}_k f_k}{f_c}\right)^a, \qquad
        f_c = \frac{\text{pixels of class } c}{\text{valid pixels of the masks that contain } c}

    The median is that of the classes with pixels. A class without pixels gets the weight 1.

    Args:
        pixels (np.ndarray): (K,) pixels of each class in all labeled masks.
        around (np.ndarray): (K,) for each class, the valid pixels of the masks that contain it.
        exponent (float): a; 1 in the paper.

    Returns:
        list[float]: K weights, rounded to four significant digits.
    """
    present = pixels > 0
    frequency = pixels[present] / around[present]
    weights = np.ones(len(pixels))
    weights[present] = (np.median(frequency) / frequency) ** exponent if present.any() else 1
    return [float(f'{weight:.4g}') for weight in weights]


def use_weighted_loss(node: object) -> int:
    """Replace MMSegmentation's cross-entropy where its class weights fail, in place.

    It raises an IndexError with ``avg_non_ignore=True``, and takes ``'balanced'`` and ``'sqrt_balanced'`` for
    files.

    Args:
        node (object): The config of a model, or a part of it.

    Returns:
        int: Number of losses that are now ``allspark_mmseg.CrossEntropyLoss``.
    """
    count = 0
    for part in dicts_in(node):
        weights = part.get('class_weight')
        plain = part.get('type') in ('CrossEntropyLoss', 'mmseg.CrossEntropyLoss')
        named = isinstance(weights, str) and weights in BALANCED
        fails = plain and weights is not None and (part.get('avg_non_ignore') or named)
        if fails and not part.get('use_sigmoid'):
            part['type'] = 'allspark_mmseg.CrossEntropyLoss'
            count += 1
    return count
