"""The DPT decoder, as in the released code of Depth Anything and UniMatch V2."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..registry import MODELS
from ..utils import require

LEVELS = 4


class ResidualConvUnit(BaseModule):
    """Residual unit ``x + conv(ReLU(conv(ReLU(x))))`` with 3x3 convolutions.

    Args:
        channels (int): Channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features of shape (N, C, H, W) to features of the same shape."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class FusionBlock(BaseModule):
    """Fusion of the features of one level with those of the deeper levels.

    Args:
        channels (int): Channels C of all features.
        deepest (bool): Whether this is the deepest level. The residual unit for lateral features is then not
            built. The released code builds it but never uses it, and so needs ``find_unused_parameters``.
    """

    def __init__(self, channels: int, deepest: bool = False) -> None:
        super().__init__()
        self.res_conv_unit1 = None if deepest else ResidualConvUnit(channels)
        self.res_conv_unit2 = ResidualConvUnit(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(
        self, lateral: Tensor, deeper: Tensor | None, size: Sequence[int], align_corners: bool
    ) -> Tensor:
        """Fuse and resize features.

        Args:
            lateral (Tensor): Features of this level, of shape (N, C, h, w).
            deeper (Tensor, optional): Output of the next deeper block, of shape (N, C, h, w). None for the
                deepest level.
            size (Sequence[int]): Height H and width W of the output.
            align_corners (bool): The argument of ``torch.nn.functional.interpolate``.

        Returns:
            Tensor: Features of shape (N, C, H, W).
        """
        x = lateral
        if deeper is not None and self.res_conv_unit1 is not None:
            x = deeper + self.res_conv_unit1(lateral)
        # The released code resizes before it projects. The two commute, because the convolution is 1x1 and
        # bilinear weights sum to 1. This order computes and stores a quarter of the pixels.
        x = self.project(self.res_conv_unit2(x))
        return resize(x, size=tuple(size), mode='bilinear', align_corners=align_corners, warning=False)


@MODELS.register_module()
class DINOv2DPTHead(BaseDecodeHead):
    """The convolutional decoder of DPT without norm layers, for four feature maps of a vision transformer.

    Level i is projected to ``post_process_channels[i]`` by a 1x1 convolution. Transposed and strided
    convolutions then resize it to 4, 2, 1 and 1/2 times the token grid (h, w). A 3x3 convolution without bias
    maps it to ``channels``. The levels are fused from deep to shallow. Each result is resized to the next
    level. The last result, of size (8h, 8w), goes through a 3x3 convolution, a ReLU and the classifier. All
    layers have PyTorch's default initialization, as in the released code.

    MMSegmentation's ``DPTHead`` does not fit the released weights: its residual convolutions have no
    bias, it needs class tokens, and it doubles the size of every level. The released code resizes each level
    to the size of the next level. This is not twice the size if the token grid has an odd side.

    Sources: Ranftl et al., "Vision Transformers for Dense Prediction" (arXiv 2103.13413), section 3; the
    released code of Depth Anything and UniMatch V2 (arXiv 2410.10777).

    Args:
        in_channels (Sequence[int]): Channels of the four feature maps, shallowest block first.
        channels (int): Channels of the decoder (``features`` in the released code): 64, 128, 256 or 384 for
            DINOv2 small, base, large or giant.
        post_process_channels (Sequence[int]): Channels of each level after its projection (``out_channels``
            in the released code): (48, 96, 192, 384), (96, 192, 384, 768), (256, 512, 1024, 1024) or 4 x
            1536.
        **kwargs: Other arguments of MMSegmentation's ``BaseDecodeHead``. The defaults are
            ``in_index=(0, 1, 2, 3)``, ``align_corners=True`` and ``dropout_ratio=0``.

    Raises:
        ValueError: ``in_channels``, ``post_process_channels`` or ``in_index`` does not have four elements.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        post_process_channels: Sequence[int],
        **kwargs: Any,
    ) -> None:
        kwargs = {
            'in_index': tuple(range(LEVELS)),
            'align_corners': True,
            'dropout_ratio': 0,
            'init_cfg': None,
            **kwargs,
        }
        for name, value in (
            ('in_channels', in_channels),
            ('post_process_channels', post_process_channels),
            ('in_index', kwargs['in_index']),
        ):
            valid = isinstance(value, list | tuple) and len(value) == LEVELS
            require('DINOv2DPTHead', name, value, valid, f'{LEVELS} numbers, one for each level')
        super().__init__(in_channels, channels, input_transform='multiple_select', **kwargs)
        self.projects = nn.ModuleList(
            nn.Conv2d(in_width, width, 1)
            for in_width, width in zip(in_channels, post_process_channels, strict=True)
        )
        first, second, _, last = post_process_channels
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(last, last, 3, stride=2, padding=1),
            ]
        )
        self.convs = nn.ModuleList(
            nn.Conv2d(width, channels, 3, padding=1, bias=False) for width in post_process_channels
        )
        self.fusion_blocks = nn.ModuleList(
            FusionBlock(channels, deepest=level == LEVELS - 1) for level in range(LEVELS)
        )
        self.project = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compute the logits.

        Args:
            inputs (Sequence[Tensor]): Features of shape (N, C_i, h, w), shallowest block first.

        Returns:
            Tensor: Logits of shape (N, num_classes, 8h, 8w).
        """
        laterals = [
            conv(layer(project(x)))
            for x, project, layer, conv in zip(
                self._transform_inputs(inputs), self.projects, self.resize_layers, self.convs, strict=True
            )
        ]
        height, width = laterals[0].shape[2:]
        # each result has the size of the next shallower level; the shallowest is doubled
        sizes = [(2 * height, 2 * width), *(lateral.shape[2:] for lateral in laterals[:-1])]
        x = None
        for lateral, block, size in reversed(list(zip(laterals, self.fusion_blocks, sizes, strict=True))):
            x = block(lateral, x, size, self.align_corners)
        return self.cls_seg(F.relu(self.project(x)))
