"""Patch-adaptive self-attention: unconfident patches attend to unconfident patches."""

import inspect

import torch.nn.functional as F
from torch import Tensor, nn


def unconfident_share(confident: Tensor, patch_size: int) -> Tensor:
    """Share of each patch's pixels of which the teacher is not confident.

    Args:
        confident: (N, H, W) bool; H and W are multiples of ``patch_size``.
        patch_size: in pixels.

    Returns:
        Tensor: (N, H / patch_size, W / patch_size) float, in [0, 1].
    """
    return F.avg_pool2d((~confident).float()[:, None], patch_size).squeeze(1)


def patch_adaptive_bias(unconfident: Tensor, strength: float) -> Tensor:
    r"""Bias of the attention scores (S4Former, CVPR 2024, as released for ViT).

    .. code-block:: text

        bias[q, k] = 0 for the more confident half of the patches q, strength * unconfident[k] for the others

    The class token counts among the others as a query, and as entirely confident as a key. Half of P patches
    is floor(P / 2); among equally confident ones the first in reading order belong to it.

    Args:
        unconfident: (N, h, w) float, see ``unconfident_share``.
        strength: lambda; 5 multiplies the weight of an entirely unconfident key by e^5.

    Returns:
        Tensor: (N, 1, 1 + P, 1 + P) float, P = h w, the class token first: the same for all heads, so they
        share it: 4 MiB an image of 512 x 512 at patch 16, where (N, heads, 1 + P, 1 + P) takes 48.
    """
    keys = F.pad(unconfident.flatten(1), (1, 0))
    # stable, so that ties, which are frequent, do not depend on the device
    place = keys[:, 1:].sort(dim=1, stable=True).indices.argsort(dim=1)
    modulated = F.pad(place >= place.shape[1] // 2, (1, 0), value=True)
    return strength * modulated[:, None, :, None] * keys[:, None, None, :]


def check_takes_bias(method: str, backbone: nn.Module) -> None:
    """Check that a backbone's attention can take a bias.

    Raises:
        ValueError: it cannot.
    """
    if 'attention_bias' not in inspect.signature(backbone.forward).parameters:
        raise ValueError(
            f'{method}: segmentor.backbone is a {type(backbone).__name__}, whose forward takes no '
            'attention_bias; patch-adaptive self-attention needs a plain vision transformer '
            '(allspark_mmseg.VisionTransformer, allspark_mmseg.DINOv2). Change the backbone, or leave that '
            'branch out with attention_weight=0.'
        )
