"""The DeepLabv3+ decode head with plain convolutions, as in the released code of UniMatch."""

from itertools import pairwise
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..registry import MODELS
from ..utils import require


class _ConvModule(ConvModule):
    """MMCV's ``ConvModule`` with PyTorch's default initialization, as in the released code of UniMatch.

    MMCV's own initialization is several times larger (seven times in a dilated branch). Batch norm removes
    the scale from the output, but the scale changes the effect of the learning rate and the weight decay.
    """

    def init_weights(self) -> None:
        pass


@MODELS.register_module()
class DeepLabV3PlusHead(BaseDecodeHead):
    """Atrous spatial pyramid pooling (ASPP) and decoder of DeepLabv3+ (arXiv 1802.02611, section 3.1).

    This is the head of UniMatch's released code (CVPR 2023): plain convolutions, a 1x1 convolution that fuses
    the pyramid, the low-level feature first in the concatenation, and no dropout. MMSegmentation's
    ``DepthwiseSeparableASPPHead`` is another network: it has separable convolutions, a 3x3 convolution after
    the pyramid, and the low-level feature last in the concatenation.

    The pooled branch of the pyramid has one value per image and channel. In training, its batch norm computes
    mean and variance over the images of the batch only. Two images always become about +1 and -1, and one
    image is an error. Use larger batches, ``SyncBN`` on several GPUs, or ``GN``.

    Args:
        in_channels (tuple[int, int]): Channels of the low-level feature and of the deep feature.
        channels (int): Channels of the pyramid's branches and of the decoder.
        c1_channels (int): Channels of the projected low-level feature.
        dilations (tuple[int, ...]): Dilations of the pyramid's branches; 1 is a 1x1 convolution. The default
            is for output stride 16.
        num_convs (int): Number of 3x3 convolutions in the decoder.
        **kwargs: Other arguments of MMSegmentation's ``BaseDecodeHead`` (``num_classes``, ``norm_cfg``, ...).
            The defaults are ``in_index=(0, 3)`` and ``dropout_ratio=0``. UniMatch uses
            ``align_corners=True``.

    Raises:
        ValueError: ``in_channels`` or ``in_index`` does not have two elements.
    """

    def __init__(
        self,
        in_channels: tuple[int, int] = (256, 2048),
        channels: int = 256,
        c1_channels: int = 48,
        dilations: tuple[int, ...] = (1, 6, 12, 18),
        num_convs: int = 2,
        **kwargs: Any,
    ) -> None:
        kwargs = dict(in_index=(0, 3), dropout_ratio=0, init_cfg=None) | kwargs
        for name, value in (('in_channels', in_channels), ('in_index', kwargs['in_index'])):
            valid = isinstance(value, list | tuple) and len(value) == 2
            require(
                'DeepLabV3PlusHead',
                name,
                value,
                valid,
                'two elements, for the low-level and the deep feature',
            )
        super().__init__(in_channels, channels, input_transform='multiple_select', **kwargs)
        low_level, deep = in_channels
        self.aspp_modules = nn.ModuleList(
            self._conv(deep, channels, 3, dilation) if dilation > 1 else self._conv(deep, channels)
            for dilation in dilations
        )
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), self._conv(deep, channels))
        self.bottleneck = self._conv((len(dilations) + 1) * channels, channels)
        self.c1_bottleneck = self._conv(low_level, c1_channels)
        widths = [c1_channels + channels] + [channels] * num_convs
        self.fuse = nn.Sequential(*(self._conv(*pair, 3) for pair in pairwise(widths)))

    def _conv(self, in_channels: int, out_channels: int, kernel: int = 1, dilation: int = 1) -> ConvModule:
        return _ConvModule(
            in_channels,
            out_channels,
            kernel,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Compute the logits.

        Args:
            inputs (list[Tensor]): Features. ``in_index`` selects the low-level feature of shape (N, C_1, H,
                W) and the deep feature of shape (N, C_4, H / 4, W / 4).

        Returns:
            Tensor: Logits of shape (N, num_classes, H, W), at the size of the low-level feature.

        Raises:
            ValueError: The batch is too small for the norm layer of the pooled branch.
        """
        return self.cls_seg(self.fuse(self._concatenate_features(inputs)))

    def _concatenate_features(self, inputs: list[Tensor]) -> Tensor:
        """Compute the input of the decoder, (N, c1_channels + channels, H, W)."""
        low_level, deep = self._transform_inputs(inputs)
        pyramid = [branch(deep) for branch in self.aspp_modules]
        pyramid.append(self._resize(self._pool_image(deep), deep))
        fused = self._resize(self.bottleneck(torch.cat(pyramid, dim=1)), low_level)
        return torch.cat([self.c1_bottleneck(low_level), fused], dim=1)

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        size = like.shape[2:]
        return resize(x, size, mode='bilinear', align_corners=self.align_corners, warning=False)

    def _pool_image(self, deep: Tensor) -> Tensor:
        """Apply the pooled branch: (N, C_4, h, w) -> (N, channels, 1, 1)."""
        try:
            return self.image_pool(deep)
        except ValueError as error:
            raise ValueError(
                f'DeepLabV3PlusHead: cannot train on a batch of {len(deep)} image(s). The pooled branch has '
                f'one value per image and channel, too few for the variance in its norm layer '
                f'({self.norm_cfg}). Use two or more images in a batch (with drop_last=True, so that the '
                'last batch is not smaller), SyncBN on several GPUs, or '
                "norm_cfg=dict(type='GN', num_groups=...)."
            ) from error
