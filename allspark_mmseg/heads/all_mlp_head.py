"""SegFormer's original all-MLP head."""

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class AllMLPHead(BaseDecodeHead):
    """SegFormer's all-MLP decoder as its authors released it (arXiv 2105.15203, section 3.2).

    MMSegmentation's ``SegformerHead`` is another network: conv + BN + ReLU for each stage, stages in
    the order 1..4. Here each stage goes through a plain linear layer (bias, no norm, no activation),
    and the deepest comes first in the concatenation, so official SegFormer and AllSpark weights fit.

    Args:
        in_channels: channels of each input feature, shallowest first.
        channels: width of the decoder; the paper's is 256 (B0, B1) or 768.
        kwargs: as in MMSegmentation's ``BaseDecodeHead`` (num_classes, norm_cfg, dropout_ratio 0.1, ...).
    """

    def __init__(self, in_channels: list[int], channels: int, **kwargs):
        kwargs.setdefault('in_index', list(range(len(in_channels))))
        kwargs.setdefault('init_cfg', None)  # conv_seg keeps PyTorch's default, as released
        super().__init__(in_channels, channels, input_transform='multiple_select', **kwargs)
        self.projections = nn.ModuleList(nn.Linear(width, channels) for width in in_channels)
        self.fuse = ConvModule(
            channels * len(in_channels), channels, 1, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg
        )

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Decode.

        Args:
            inputs: features (N, C_i, H_i, W_i), shallowest first.

        Returns:
            Tensor: logits (N, num_classes, H_0, W_0), at the size of the shallowest feature used.
        """
        features = self._transform_inputs(inputs)
        size = features[0].shape[2:]
        # Fusing a concatenation is a sum over the stages, and fusing acts on channels where resizing acts on
        # positions: so each stage is fused at its own size, its two linear maps in one. Several times less
        # arithmetic, and no map of channels * stages at full size.
        shares = self.fuse.conv.weight.flatten(1).chunk(len(features), dim=1)
        fused = 0
        for feature, projection, share in zip(features, self.projections, shares[::-1], strict=True):
            tokens = F.linear(
                feature.flatten(2).transpose(1, 2), share @ projection.weight, share @ projection.bias
            )  # (N, C, H, W) -> (N, HW, channels)
            part = tokens.transpose(1, 2).unflatten(2, feature.shape[2:])  # -> (N, channels, H, W)
            fused = fused + resize(part, size=size, mode='bilinear', align_corners=self.align_corners)
        if self.fuse.conv.bias is not None:
            fused = fused + self.fuse.conv.bias[:, None, None]
        if self.fuse.with_norm:
            fused = self.fuse.norm(fused)
        return self.cls_seg(self.fuse.activate(fused) if self.fuse.with_activation else fused)
