"""Xception-65, a backbone of DeepLabv3+. UniMatch uses it on COCO."""

from typing import Any

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ..registry import MODELS

_MIDDLE_BLOCKS = 16
_OFFICIAL_KEY = 'block1.sepconv1.depthwise.weight'
_NORM_CFG = dict(type='BN', momentum=3e-4, requires_grad=True)


class XceptionBlock(nn.Module):
    """Residual block of three separable convolutions: ReLU, depthwise 3x3, BN, pointwise 1x1, BN.

    If the block changes width or stride, its skip connection is a 1x1 convolution and BN of the input.
    Otherwise it is **ReLU(input)**, not the input: the first ReLU of the block is in place in the released
    code, and the weights were trained this way.

    Args:
        in_channels (int): Channels C_in of the input.
        widths (tuple[int, int, int]): Output channels of the three convolutions. The last is C_out.
        stride (int): Stride of the third convolution and of the skip connection.
        norm_cfg (dict, optional): MMCV's config of a norm layer.
    """

    def __init__(
        self, in_channels: int, widths: tuple[int, int, int], stride: int, norm_cfg: dict | None
    ) -> None:
        super().__init__()
        inputs = (in_channels, *widths)
        self.convs = nn.ModuleList(
            DepthwiseSeparableConvModule(
                inputs[i],
                width,
                3,
                stride=stride if i == 2 else 1,
                padding=1,
                norm_cfg=norm_cfg,
                act_cfg=None,
            )
            for i, width in enumerate(widths)
        )
        self.skip = None
        if stride != 1 or widths[-1] != in_channels:
            self.skip = ConvModule(in_channels, widths[-1], 1, stride=stride, norm_cfg=norm_cfg, act_cfg=None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the block.

        Args:
            x (Tensor): Features of shape (N, C_in, H, W).

        Returns:
            tuple[Tensor, Tensor]: Features of shape (N, C_out, ceil(H / stride), ceil(W / stride)), and the
            output of the second convolution of shape (N, widths[1], H, W), before the ReLU.
        """
        activated = F.relu(x)
        skip = activated if self.skip is None else self.skip(x)
        inner = self.convs[1](F.relu(self.convs[0](activated)))
        return self.convs[2](F.relu(inner)) + skip, inner


@MODELS.register_module()
class Xception65(BaseModule):
    """Xception-65 without its classifier: 37.9 M parameters, features at strides 4, 8, 16 and 16.

    The input is RGB, normalized with the mean and standard deviation of ImageNet. To use the weights of
    UniMatch's released code, convert them with ``tools/model_converters/unimatch2mmseg.py`` and set
    ``init_cfg=dict(type='Pretrained', checkpoint=...)``. Without ``init_cfg``, convolutions are initialized
    from a normal distribution with variance 2 / (kernel height * kernel width * output channels).

    ``load_state_dict`` raises a ValueError for weights with UniMatch's own keys. Loaded with
    ``strict=False``, as MMEngine does, they would leave every layer at its random initialization.

    Sources: Chollet, "Xception", CVPR 2017; Chen et al., "Encoder-Decoder with Atrous Separable Convolution"
    (DeepLabv3+), ECCV 2018, section 3.2 and figure 4, at output stride 16; UniMatch's released code (CVPR
    2023) for details that the papers do not state.

    Args:
        norm_cfg (dict, optional): MMCV's config of a norm layer. The released code uses a momentum of 3e-4. A
            config that sets another norm type must repeat the momentum, or it gets the default of that type
            (0.1).
        init_cfg (dict or list[dict], optional): MMEngine's initialization config.
    """

    out_channels = (256, 256, 728, 2048)

    def __init__(self, norm_cfg: dict | None = _NORM_CFG, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.stem = nn.Sequential(
            ConvModule(3, 32, 3, stride=2, padding=1, norm_cfg=norm_cfg),
            ConvModule(32, 64, 3, padding=1, norm_cfg=norm_cfg),
        )
        entry = [(64, (128,) * 3, 2), (128, (256,) * 3, 2), (256, (728,) * 3, 2)]
        middle = [(728, (728,) * 3, 1)] * _MIDDLE_BLOCKS
        last = [(728, (728, 1024, 1024), 1)]
        self.blocks = nn.ModuleList(
            XceptionBlock(*sizes, norm_cfg=norm_cfg) for sizes in entry + middle + last
        )
        self.exit_flow = nn.Sequential(
            *(
                DepthwiseSeparableConvModule(in_channels, width, 3, padding=1, norm_cfg=norm_cfg)
                for in_channels, width in ((1024, 1536), (1536, 1536), (1536, 2048))
            )
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the four feature maps.

        Args:
            x (Tensor): Normalized images of shape (N, 3, H, W), any size.

        Returns:
            tuple[Tensor, Tensor, Tensor, Tensor]: Feature maps of shape (N, C, ceil(H / s), ceil(W / s)) with
            C = 256, 256, 728, 2048 and s = 4, 8, 16, 16. The first is the low-level feature of DeepLabv3+, an
            inner output of the second block. Only the last one is the output of a ReLU.
        """
        x = self.stem(x)
        x, _ = self.blocks[0](x)
        stride_8, low_level = self.blocks[1](x)
        x = stride_8
        for block in self.blocks[2:-1]:
            x, _ = block(x)
        deep, _ = self.blocks[-1](x)
        return low_level, stride_8, x, self.exit_flow(deep)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # MMEngine loads pre-trained weights with strict=False and accepts a file in which no key matches
        if prefix + _OFFICIAL_KEY in state_dict:
            raise ValueError(
                f'Xception65: the weights have the keys of UniMatch (found {prefix}{_OFFICIAL_KEY}). Convert '
                'the file with tools/model_converters/unimatch2mmseg.py and use the converted file.'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
