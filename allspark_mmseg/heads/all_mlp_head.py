"""The original all-MLP head of SegFormer."""

from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class AllMLPHead(BaseDecodeHead):
    """SegFormer's all-MLP decoder, as in the released code (arXiv 2105.15203, section 3.2).

    MMSegmentation's ``SegformerHead`` is another network: it applies convolution, BN and ReLU to each stage,
    and concatenates the stages in the order 1..4. Here each stage goes through a linear layer (with bias,
    without norm and activation), and the deepest stage comes first in the concatenation. So official
    SegFormer and AllSpark weights fit.

    Args:
        in_channels (list[int]): Channels of each input feature, shallowest first.
        channels (int): Channels of the decoder. The paper uses 256 (B0, B1) or 768.
        **kwargs: Other arguments of MMSegmentation's ``BaseDecodeHead`` (``num_classes``, ``norm_cfg``, ...).
    """

    def __init__(self, in_channels: list[int], channels: int, **kwargs: Any) -> None:
        kwargs.setdefault('in_index', list(range(len(in_channels))))
        kwargs.setdefault('init_cfg', None)  # the released code leaves conv_seg at PyTorch's default
        super().__init__(in_channels, channels, input_transform='multiple_select', **kwargs)
        self.projections = nn.ModuleList(nn.Linear(width, channels) for width in in_channels)
        self.fuse = ConvModule(
            channels * len(in_channels), channels, 1, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg
        )

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Compute the logits.

        Args:
            inputs (list[Tensor]): Features of shape (N, C_i, H_i, W_i), shallowest first.

        Returns:
            Tensor: Logits of shape (N, num_classes, H_0, W_0), where (H_0, W_0) is the size of the shallowest
            feature in ``in_index``.
        """
        features = self._transform_inputs(inputs)
        size = features[0].shape[2:]
        # The 1x1 fusion of a concatenation is a sum over stages, and it commutes with the resize. So each
        # stage is fused at its own size, with its two linear maps merged into one. This needs several times
        # fewer operations, and no tensor with channels * stages channels at full size.
        weights = self.fuse.conv.weight.flatten(1).chunk(len(features), dim=1)
        fused = 0
        for feature, projection, weight in zip(features, self.projections, weights[::-1], strict=True):
            tokens = F.linear(
                feature.flatten(2).transpose(1, 2), weight @ projection.weight, weight @ projection.bias
            )  # (N, C, H, W) -> (N, HW, channels)
            part = tokens.transpose(1, 2).unflatten(2, feature.shape[2:])  # -> (N, channels, H, W)
            fused = fused + resize(part, size=size, mode='bilinear', align_corners=self.align_corners)
        if self.fuse.conv.bias is not None:
            fused = fused + self.fuse.conv.bias[:, None, None]
        if self.fuse.with_norm:
            fused = self.fuse.norm(fused)
        return self.cls_seg(self.fuse.activate(fused) if self.fuse.with_activation else fused)
