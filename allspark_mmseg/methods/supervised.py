"""The losses of a head on labeled images, without waiting for the device.

``loss_by_feat`` of MMSegmentation reads the number of valid pixels on the host, for ``avg_non_ignore=True``
and for the accuracy. On a GPU, the host then waits for the forward pass in every step.
"""

from typing import Any, cast

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from ..utils import full_precision


def head_losses(head: nn.Module, logits: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
    """Compute the losses and the accuracy of a decode head; the same as its ``loss_by_feat``.

    A head with a ``loss_by_feat`` of its own keeps it.

    Args:
        head (nn.Module): A decode head.
        logits (Tensor): (N, K, h, w), from the head.
        data_samples (list[SegDataSample]): N samples with masks.

    Returns:
        dict[str, Tensor]: ``loss_*`` and ``acc_seg``, in percent.
    """
    inner = head if isinstance(head, BaseDecodeHead) else getattr(head, 'decoder', head)  # AllSparkHead
    if getattr(type(inner), 'loss_by_feat', None) is not BaseDecodeHead.loss_by_feat:
        return cast(Any, head).loss_by_feat(logits, data_samples)
    decoder: Any = inner
    # a float16 number of pixels would be infinite above 65 504
    logits = full_precision(logits)
    label = decoder._stack_batch_gt(data_samples)
    logits = resize(logits, size=label.shape[2:], mode='bilinear', align_corners=decoder.align_corners)
    weight = None if decoder.sampler is None else decoder.sampler.sample(logits, label)
    label = label.squeeze(1)
    losses: dict[str, Tensor] = {}
    parts: Any = decoder.loss_decode
    parts = parts if isinstance(parts, nn.ModuleList) else [parts]
    for part in parts:
        options: dict[str, Any] = dict(weight=weight, ignore_index=decoder.ignore_index)
        if _counts_on_host(part):
            options['avg_factor'] = (label != decoder.ignore_index).sum().to(logits.dtype)
        name, value = part.loss_name, part(logits, label, **options)
        losses[name] = losses[name] + value if name in losses else value
    losses['acc_seg'] = _accuracy(logits, label, decoder.ignore_index)
    return losses


def auxiliary_losses(
    segmentor: EncoderDecoder, features: list[Tensor], data_samples: list[SegDataSample]
) -> dict[str, Tensor]:
    """Compute the losses of the auxiliary heads of a segmentor.

    Args:
        segmentor (EncoderDecoder): The segmentor.
        features (list[Tensor]): (N, C_i, h_i, w_i).
        data_samples (list[SegDataSample]): N samples with masks.

    Returns:
        dict[str, Tensor]: ``aux.*`` of one head, or ``aux_0.*``, ``aux_1.*`` and so on of a list.
    """
    heads = segmentor.auxiliary_head
    several = isinstance(heads, nn.ModuleList)
    losses: dict[str, Tensor] = {}
    for prefix, head in [(f'aux_{i}', each) for i, each in enumerate(heads)] if several else [('aux', heads)]:
        if type(head).loss is BaseDecodeHead.loss:
            of_head = head_losses(head, head(features), data_samples)
        else:
            of_head = head.loss(features, data_samples, segmentor.train_cfg)
        losses |= add_prefix(of_head, prefix)
    return losses


def _counts_on_host(part: nn.Module) -> bool:
    """Return whether a loss counts the valid pixels on the host if it is called without ``avg_factor``."""
    return (
        isinstance(part, CrossEntropyLoss)
        and not (part.use_sigmoid or part.use_mask)
        and part.class_weight is None
        and part.reduction == 'mean'
        and part.avg_non_ignore
    )


def _accuracy(logits: Tensor, label: Tensor, ignore_index: int) -> Tensor:
    """Return the share of the valid pixels that are correct, (1,) in percent."""
    valid = label != ignore_index
    correct = ((logits.argmax(dim=1) == label) & valid).sum()[None]
    eps = torch.finfo(torch.float32).eps  # as in MMSegmentation, against 0 / 0
    return (correct + eps) * 100 / (valid.sum() + eps)
