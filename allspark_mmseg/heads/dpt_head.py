"""The DPT decoder as Depth Anything and UniMatch V2 released it."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..registry import MODELS

LEVELS = 4


class ResidualConvUnit(BaseModule):
    """A residual unit of two 3x3 convolutions, each after a ReLU; the input is added as it came."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C, H, W) to features (N, C, H, W)."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class FusionBlock(BaseModule):
    """Joins a level's features with those of the deeper levels and resizes them.

    Args:
        channels: Width C of both.
        deepest: There is no deeper level. The unit that would refine the lateral features before they are
            added is then not built: the released network has it but never uses it, which is why it trains
            with ``find_unused_parameters``.
    """

    def __init__(self, channels: int, deepest: bool = False):
        super().__init__()
        self.res_conv_unit1 = None if deepest else ResidualConvUnit(channels)
        self.res_conv_unit2 = ResidualConvUnit(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(
        self, lateral: Tensor, deeper: Tensor | None, size: Sequence[int], align_corners: bool
    ) -> Tensor:
        """Fuse.

        Args:
            lateral: The level's own features (N, C, h, w).
            deeper: What the next deeper block gave, (N, C, h, w); None for the deepest.
            size: Height and width of the result.
            align_corners: As in ``torch.nn.functional.interpolate``.

        Returns:
            Features (N, C, *size).
        """
        x = lateral if deeper is None else deeper + self.res_conv_unit1(lateral)
        # Released in the opposite order. A 1x1 convolution acts on channels and bilinear weights add up to 1,
        # so the two commute; this way it has a quarter of the pixels to work on and to keep.
        x = self.project(self.res_conv_unit2(x))
        return resize(x, size=tuple(size), mode='bilinear', align_corners=align_corners, warning=False)


@MODELS.register_module()
class DINOv2DPTHead(BaseDecodeHead):
    """DPT's convolutional decoder without any norm, for four maps of one size from a vision transformer.

    Ranftl et al., "Vision Transformers for Dense Prediction" (arXiv 2103.13413), section 3, as Depth Anything
    and UniMatch V2 (arXiv 2410.10777) released it. MMSegmentation's ``DINOv2DPTHead`` does not fit their weights:
    its residual convolutions have no bias, it doubles every level where this one resizes to the size of the
    next (which is not its double when the grid of tokens has an odd side), and it wants class tokens.

    Level i is projected to ``post_process_channels[i]`` by a 1x1 convolution and brought to 4, 2, 1 and 1/2
    times the grid of tokens (h, w) (transposed convolutions, none, a strided convolution), then to
    ``channels`` by a 3x3 convolution without bias. From the deepest on, levels are fused and resized to the
    next; the last result, (8h, 8w), goes through a 3x3 convolution, a ReLU and the classifier. Every layer
    starts with PyTorch's default, as released.

    Args:
        in_channels: Channels of the four maps, the shallowest block's first.
        channels: Width of the decoder (``features`` in the release): 64, 128, 256 or 384 for DINOv2 small,
            base, large or giant.
        post_process_channels: Channels of each level after its projection (``out_channels`` in the release):
            (48, 96, 192, 384), (96, 192, 384, 768), (256, 512, 1024, 1024) or 4 x 1536.
        kwargs: As in MMSegmentation's ``BaseDecodeHead``. Other defaults: ``in_index`` (0, 1, 2, 3),
            ``align_corners`` True, ``dropout_ratio`` 0.

    Raises:
        ValueError: ``in_channels``, ``post_process_channels`` or ``in_index`` does not have four elements.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int, *, post_process_channels: Sequence[int], **kwargs
    ):
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
            if not isinstance(value, list | tuple) or len(value) != LEVELS:
                raise ValueError(
                    f'DINOv2DPTHead: {name} is {value!r}, expected {LEVELS} numbers, one a level.'
                )
        super().__init__(in_channels, channels, input_transform='multiple_select', **kwargs)
        self.projects = nn.ModuleList(
            nn.Conv2d(given, width, 1)
            for given, width in zip(in_channels, post_process_channels, strict=True)
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
        """Decode.

        Args:
            inputs: Features (N, C_i, h, w), the shallowest block's first.

        Returns:
            Logits (N, num_classes, 8h, 8w).
        """
        laterals = [
            conv(layer(project(x)))
            for x, project, layer, conv in zip(
                self._transform_inputs(inputs), self.projects, self.resize_layers, self.convs, strict=True
            )
        ]
        height, width = laterals[0].shape[2:]
        # each level's result has the size of the level above; the shallowest doubles
        sizes = [(2 * height, 2 * width), *(lateral.shape[2:] for lateral in laterals[:-1])]
        x = None
        for lateral, block, size in reversed(list(zip(laterals, self.fusion_blocks, sizes, strict=True))):
            x = block(lateral, x, size, self.align_corners)
        return self.cls_seg(F.relu(self.project(x)))
