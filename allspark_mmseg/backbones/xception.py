"""Xception-65, DeepLabv3+'s backbone besides the ResNets; UniMatch uses it on COCO."""

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ..registry import MODELS

_MIDDLE_BLOCKS = 16
_OFFICIAL_KEY = 'block1.sepconv1.depthwise.weight'
_NORM_CFG = dict(type='BN', momentum=3e-4, requires_grad=True)


class XceptionBlock(nn.Module):
    """Three separable convolutions, each ReLU, depthwise 3x3, BN, pointwise, BN, around a skip connection.

    Where width or stride changes, the skip is a 1x1 convolution and BN of the raw input. Elsewhere it is
    **ReLU(input)**, not the input: in the released code the block's first ReLU works in place, and the
    weights were trained so.

    Args:
        in_channels: C_in.
        widths: channels after each of the three convolutions; the last is C_out.
        stride: of the third convolution and of the skip.
        norm_cfg: MMCV's config of a norm layer.
    """

    def __init__(self, in_channels: int, widths: tuple[int, int, int], stride: int, norm_cfg: dict | None):
        super().__init__()
        above = (in_channels, *widths)
        self.convs = nn.ModuleList(
            DepthwiseSeparableConvModule(
                above[i],
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
            x: features (N, C_in, H, W).

        Returns:
            tuple: features (N, C_out, ceil(H / stride), ceil(W / stride)), and those behind the second
            convolution (N, C, H, W), before any ReLU.
        """
        activated = F.relu(x)
        skip = activated if self.skip is None else self.skip(x)
        inner = self.convs[1](F.relu(self.convs[0](activated)))
        return self.convs[2](F.relu(inner)) + skip, inner


@MODELS.register_module()
class Xception65(BaseModule):
    """Xception-65 without its classifier: 37.9 M parameters, features at strides 4, 8, 16 and 16.

    Images are RGB with ImageNet's mean and deviation. Weights, converted from those of UniMatch's
    release by ``tools/model_converters/unimatch2mmseg.py``:
    ``init_cfg=dict(type='Pretrained', checkpoint=...)``. Without ``init_cfg``, convolutions are drawn from
    a normal distribution of variance 2 / (kernel height * kernel width * output channels).

    Sources: Chollet, "Xception", CVPR 2017; Chen et al., "Encoder-Decoder with Atrous Separable
    Convolution" (DeepLabv3+), ECCV 2018, section 3.2 and figure 4, at output stride 16; details that the
    papers leave open are UniMatch's release's (CVPR 2023).

    Args:
        norm_cfg: MMCV's config of a norm layer. The momentum of 3e-4 belongs to the release: a config that
            only names another type gets that type's default (0.1), so repeat it.
        init_cfg: MMEngine's initialization config.

    Raises:
        ValueError: on loading a state dict with the release's own keys, which would leave every layer at
            random.
    """

    out_channels = (256, 256, 728, 2048)

    def __init__(self, norm_cfg: dict | None = _NORM_CFG, init_cfg: dict | list | None = None):
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
                DepthwiseSeparableConvModule(above, width, 3, padding=1, norm_cfg=norm_cfg)
                for above, width in ((1024, 1536), (1536, 1536), (1536, 2048))
            )
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the four feature maps.

        Args:
            x: normalized images (N, 3, H, W) of any size.

        Returns:
            tuple: maps (N, C, ceil(H / s), ceil(W / s)) with C = 256, 256, 728, 2048 and s = 4, 8, 16, 16.
            The first is DeepLabv3+'s low-level feature, from inside the second block; only the last is
            behind a ReLU.
        """
        x = self.stem(x)
        x, _ = self.blocks[0](x)
        stride_8, low_level = self.blocks[1](x)
        x = stride_8
        for block in self.blocks[2:-1]:
            x, _ = block(x)
        deep, _ = self.blocks[-1](x)
        return low_level, stride_8, x, self.exit_flow(deep)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        # MMEngine loads pre-trained weights without insisting on a single match
        if prefix + _OFFICIAL_KEY in state_dict:
            raise ValueError(
                f'Xception65: these weights have the keys of UniMatch (found {prefix}{_OFFICIAL_KEY}). '
                'Convert the file with tools/model_converters/unimatch2mmseg.py and name the result instead.'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
