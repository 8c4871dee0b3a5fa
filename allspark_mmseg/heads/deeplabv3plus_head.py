"""DeepLabv3+'s decode head with plain convolutions, as UniMatch and FixMatch use it."""

from itertools import pairwise

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..registry import MODELS


class _ConvModule(ConvModule):
    """MMCV's, but the convolution stays as PyTorch draws it: the release's head is not initialized further.

    MMCV's own initialization is several times larger (seven times in a dilated branch), which batch norm
    hides in the output, but not in what a learning rate and a weight decay do.
    """

    def init_weights(self) -> None:
        pass


@MODELS.register_module()
class DeepLabV3PlusHead(BaseDecodeHead):
    """DeepLabv3+'s atrous spatial pyramid pooling and decoder (arXiv 1802.02611, section 3.1).

    MMSegmentation's ``DepthwiseSeparableASPPHead`` is another network: separable convolutions, a 3x3
    convolution behind the pyramid, and the low-level feature last in the concatenation. This is the one
    that UniMatch released (CVPR 2023): plain convolutions, the pyramid fused by a 1x1 convolution, the
    low-level feature first, no dropout.

    The pyramid's pooled branch has one value per image and channel. In training, batch norm works out its
    mean and variance over the images of the batch alone: two images become +1 and -1, whatever they
    show, and one is an error. Take larger batches, ``SyncBN`` on several GPUs, or ``GN``.

    Args:
        in_channels: channels of the low-level and of the deep feature.
        channels: width of the pyramid's branches and of the decoder.
        c1_channels: width to which the low-level feature is reduced.
        dilations: of the pyramid's branches; 1 stands for a 1x1 convolution. For output stride 16.
        num_convs: 3x3 convolutions of the decoder.
        kwargs: as in MMSegmentation's ``BaseDecodeHead`` (num_classes, norm_cfg, align_corners, ...), with
            ``in_index=(0, 3)`` and ``dropout_ratio=0`` by default; UniMatch has ``align_corners=True``.

    Raises:
        ValueError: ``in_channels`` or ``in_index`` does not name two features.
    """

    def __init__(
        self,
        in_channels: tuple[int, int] = (256, 2048),
        channels: int = 256,
        c1_channels: int = 48,
        dilations: tuple[int, ...] = (1, 6, 12, 18),
        num_convs: int = 2,
        **kwargs,
    ):
        kwargs = dict(in_index=(0, 3), dropout_ratio=0, init_cfg=None) | kwargs
        for name, value in (('in_channels', in_channels), ('in_index', kwargs['in_index'])):
            if not isinstance(value, list | tuple) or len(value) != 2:
                raise ValueError(
                    f'DeepLabV3PlusHead: {name} must have two entries, of the low-level and of the deep '
                    f'feature, found {value}'
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
        """Decode.

        Args:
            inputs: features, of which ``in_index`` picks the low-level one (N, C_1, H, W) and the deep one
                (N, C_4, H / 4, W / 4).

        Returns:
            Tensor: logits (N, num_classes, H, W), at the size of the low-level feature.

        Raises:
            ValueError: the norm layer of the pooled branch cannot train on a batch this small.
        """
        return self.cls_seg(self.fuse(self._concatenated(inputs)))

    def _concatenated(self, inputs: list[Tensor]) -> Tensor:
        """What the decoder takes, (N, c1_channels + channels, H, W), from the features."""
        low_level, deep = self._transform_inputs(inputs)
        pyramid = [branch(deep) for branch in self.aspp_modules]
        pyramid.append(self._resize(self._image_level(deep), deep))
        fused = self._resize(self.bottleneck(torch.cat(pyramid, dim=1)), low_level)
        return torch.cat([self.c1_bottleneck(low_level), fused], dim=1)

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        size = like.shape[2:]
        return resize(x, size, mode='bilinear', align_corners=self.align_corners, warning=False)

    def _image_level(self, deep: Tensor) -> Tensor:
        """Mean over all positions, mapped: (N, C_4, h, w) -> (N, channels, 1, 1)."""
        try:
            return self.image_pool(deep)
        except ValueError as error:
            raise ValueError(
                f'DeepLabV3PlusHead: cannot train on a batch of {len(deep)} image(s). Its image-level branch '
                f'has one value per image and channel, too few for its norm layer ({self.norm_cfg}) to '
                'take a variance of. Put two or more images in a batch (and set drop_last=True, so that the '
                'last is not smaller), train on several GPUs with SyncBN, or use '
                "norm_cfg=dict(type='GN', num_groups=...)."
            ) from error
