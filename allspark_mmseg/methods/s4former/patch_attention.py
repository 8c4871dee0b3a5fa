"""Patch-adaptive self-attention: a bias toward patches where the teacher is unconfident."""

import inspect

import torch.nn.functional as F
from torch import Tensor, nn


def unconfident_share(confident: Tensor, patch_size: int) -> Tensor:
    """Compute the share of unconfident pixels in each patch.

    Args:
        confident (Tensor): (N, H, W) bool; H and W are multiples of ``patch_size``.
        patch_size (int): Side of a patch, in pixels.

    Returns:
        Tensor: (N, H / patch_size, W / patch_size) float, in [0, 1].
    """
    return F.avg_pool2d((~confident).float()[:, None], patch_size).squeeze(1)


def patch_adaptive_bias(unconfident: Tensor, strength: float) -> Tensor:
    r"""Compute the bias of the attention scores (S4Former, CVPR 2024, as released for ViT).

    .. code-block:: text

        bias[q, k] = 0 for queries q among the more confident half of the patches
        bias[q, k] = strength * unconfident[k] for the other queries

    The class token belongs to the other queries. As a key, it is confident. Half of P patches is
    floor(P / 2). If patches are equally confident, the first ones in row-major order belong to the confident
    half.

    Args:
        unconfident (Tensor): (N, h, w) float, from ``unconfident_share``.
        strength (float): lambda. The weight of a key without confident pixels is multiplied by e^lambda.

    Returns:
        Tensor: (N, 1, 1 + P, 1 + P) float, P = h w, the class token first. All heads share the bias: at 512 x
        512 pixels and patch size 16 it takes 4 MiB per image, and one copy for each of 12 heads 48 MiB.
    """
    keys = F.pad(unconfident.flatten(1), (1, 0))
    # stable, so that the frequent ties do not depend on the device
    rank = keys[:, 1:].sort(dim=1, stable=True).indices.argsort(dim=1)
    biased = F.pad(rank >= rank.shape[1] // 2, (1, 0), value=True)
    return strength * biased[:, None, :, None] * keys[:, None, None, :]


def check_takes_bias(method: str, backbone: nn.Module) -> None:
    """Check that the attention of a backbone takes a bias.

    Args:
        method (str): Name of the method, for the message.
        backbone (nn.Module): The student's backbone.

    Raises:
        ValueError: Its ``forward`` has no argument ``attention_bias``.
    """
    if 'attention_bias' not in inspect.signature(backbone.forward).parameters:
        raise ValueError(
            f'{method}: segmentor.backbone is a {type(backbone).__name__}, whose forward takes no '
            'attention_bias; patch-adaptive self-attention needs a plain vision transformer '
            '(allspark_mmseg.VisionTransformer, allspark_mmseg.DINOv2). Change the backbone, or skip that '
            'pass with attention_weight=0.'
        )
