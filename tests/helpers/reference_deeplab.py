"""UniMatch's DeepLabv3+ networks in plain PyTorch, as a reference for the networks that the configs build.

The code follows the descriptions of the architectures (DeepLabv3+ and its Xception, arXiv 1802.02611; the
settings of UniMatch, arXiv 2208.09910) and uses the keys of UniMatch's state dicts. No line of a release is
used.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {'resnet50': (3, 4, 6, 3), 'resnet101': (3, 4, 23, 3)}
XCEPTION_MOMENTUM = 0.0003


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """Build a convolution without bias whose padding keeps the size of the map at stride 1."""
    padding = dilation * (kernel_size // 2)
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int, **options: int) -> list[nn.Module]:
    """Build the layers convolution, batch norm, ReLU."""
    layers = conv(in_channels, out_channels, kernel_size, **options)
    return [layers, nn.BatchNorm2d(out_channels), nn.ReLU()]


def bilinear(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize a map (N, C, h, w) to (N, C, H, W)."""
    return F.interpolate(x, tuple(size), mode='bilinear', align_corners=True)


class Bottleneck(nn.Module):
    """Residual block 1x1, 3x3, 1x1 with an expansion of 4."""

    def __init__(self, in_channels: int, channels: int, stride: int, dilation: int):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, channels, 1), nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = conv(channels, 4 * channels, 1), nn.BatchNorm2d(4 * channels)
        if stride != 1 or in_channels != 4 * channels:
            self.downsample = nn.Sequential(
                conv(in_channels, 4 * channels, 1, stride=stride), nn.BatchNorm2d(4 * channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, 4 C, H / stride, W / stride)."""
        skip = self.downsample(x) if hasattr(self, 'downsample') else x
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + skip)


class ResNet(nn.Module):
    """ResNet with output stride 16: in the last stage, all blocks except the first have dilation 2."""

    def __init__(self, depths: tuple[int, ...]):
        super().__init__()
        stem = [*conv_bn_relu(3, 64, 3, stride=2), *conv_bn_relu(64, 64, 3), conv(64, 128, 3)]
        self.conv1, self.bn1 = nn.Sequential(*stem), nn.BatchNorm2d(128)
        in_channels = 128
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                stride = 2 if index == 0 and stage in (1, 2) else 1
                dilation = 2 if index > 0 and stage == 3 else 1
                blocks.append(Bottleneck(in_channels, 64 * 2**stage, stride, dilation))
                in_channels = 256 * 2**stage
            self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> features of stride 4 (N, 256, h, w) and of stride 16 (N, 2048, h', w')."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        c1 = x = self.get_submodule('layer1')(x)
        for stage in (2, 3, 4):
            x = self.get_submodule(f'layer{stage}')(x)
        return c1, x


class SeparableConv(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolution, each with a batch norm and, on request, a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, relu: bool = False):
        super().__init__()
        self.depthwise = conv(in_channels, in_channels, 3, stride=stride, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels, momentum=XCEPTION_MOMENTUM)
        self.pointwise = conv(in_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels, momentum=XCEPTION_MOMENTUM)
        self.activation: nn.Module = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        x = self.activation(self.bn1(self.depthwise(x)))
        return self.activation(self.bn2(self.pointwise(x)))


class XceptionBlock(nn.Module):
    """Three separable convolutions with a skip connection."""

    def __init__(self, in_channels: int, channels: tuple[int, int, int], stride: int):
        super().__init__()
        self.has_projection = stride != 1 or in_channels != channels[2]
        if self.has_projection:
            self.skip = conv(in_channels, channels[2], 1, stride=stride)
            self.skipbn = nn.BatchNorm2d(channels[2], momentum=XCEPTION_MOMENTUM)
        self.sepconv1 = SeparableConv(in_channels, channels[0])
        self.sepconv2 = SeparableConv(channels[0], channels[1])
        self.sepconv3 = SeparableConv(channels[1], channels[2], stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C_in, H, W) -> output, and the map before the last convolution."""
        if self.has_projection:
            skip, x = self.skipbn(self.skip(x)), F.relu(x)
        else:
            skip = x
            F.relu_(x)  # the released network works in place here, which changes the skip connection
        inner = self.sepconv2(F.relu(self.sepconv1(x)))
        return self.sepconv3(F.relu(inner)) + skip, inner


class Xception(nn.Module):
    """Xception-65 of DeepLabv3+ with output stride 16."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 32, 3, stride=2), nn.BatchNorm2d(32, momentum=XCEPTION_MOMENTUM)
        self.conv2, self.bn2 = conv(32, 64, 3), nn.BatchNorm2d(64, momentum=XCEPTION_MOMENTUM)
        self.block1 = XceptionBlock(64, (128, 128, 128), 2)
        self.block2 = XceptionBlock(128, (256, 256, 256), 2)
        self.block3 = XceptionBlock(256, (728, 728, 728), 2)
        for i in range(4, 20):
            self.add_module(f'block{i}', XceptionBlock(728, (728, 728, 728), 1))
        self.block20 = XceptionBlock(728, (728, 1024, 1024), 1)
        self.conv3 = SeparableConv(1024, 1536, relu=True)
        self.conv4 = SeparableConv(1536, 1536, relu=True)
        self.conv5 = SeparableConv(1536, 2048, relu=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> features of stride 4 (N, 256, h, w) and of stride 16 (N, 2048, h', w')."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.block1(x)[0]
        x, c1 = self.block2(x)
        for i in range(3, 21):
            x = getattr(self, f'block{i}')(x)[0]
        return c1, self.conv5(self.conv4(self.conv3(x)))


class ImagePooling(nn.Module):
    """Global average pooling, a convolution, and resizing back."""

    def __init__(self):
        super().__init__()
        self.gap = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(2048, 256, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2048, H, W) -> (N, 256, H, W)."""
        return bilinear(self.gap(x), x.shape[2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with dilations 6, 12 and 18."""

    def __init__(self):
        super().__init__()
        self.b0 = nn.Sequential(*conv_bn_relu(2048, 256, 1))
        for i, dilation in enumerate((6, 12, 18), 1):
            self.add_module(f'b{i}', nn.Sequential(*conv_bn_relu(2048, 256, 3, dilation=dilation)))
        self.b4 = ImagePooling()
        self.project = nn.Sequential(*conv_bn_relu(1280, 256, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2048, H, W) -> (N, 256, H, W)."""
        return self.project(torch.cat([getattr(self, f'b{i}')(x) for i in range(5)], dim=1))


class ReferenceDeepLab(nn.Module):
    """DeepLabv3+ as UniMatch uses it.

    Args:
        name: The backbone: ``'resnet50'``, ``'resnet101'`` or ``'xception'``.
        num_classes: Number of classes.
    """

    def __init__(self, name: str, num_classes: int):
        super().__init__()
        self.backbone = Xception() if name == 'xception' else ResNet(DEPTHS[name])
        self.head = ASPP()
        self.reduce = nn.Sequential(*conv_bn_relu(256, 48, 1))
        self.fuse = nn.Sequential(*conv_bn_relu(304, 256, 3), *conv_bn_relu(256, 256, 3))
        self.classifier = nn.Conv2d(256, num_classes, 1)

    def decode(self, c1: Tensor, c4: Tensor) -> Tensor:
        """Features of stride 4 (N, 256, h, w) and of stride 16 -> logits (N, K, h, w)."""
        fused = bilinear(self.head(c4), c1.shape[2:])
        return self.classifier(self.fuse(torch.cat([self.reduce(c1), fused], dim=1)))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, K, H, W)."""
        return bilinear(self.decode(*self.backbone(image)), image.shape[2:])


def randomize_norms(model: nn.Module) -> nn.Module:
    """Move scales, shifts and statistics of the batch norms away from 1 and 0, so that each has an effect."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            mean, variance = module.get_buffer('running_mean'), module.get_buffer('running_var')
            for tensor, center in ((module.weight, 1), (module.bias, 0), (mean, 0)):
                nn.init.normal_(tensor, center, 0.1)
            nn.init.uniform_(variance, 0.8, 1.2)
    return model


def reference_state(name: str, num_classes: int) -> dict[str, Tensor]:
    """Return a state dict without data: each tensor repeats a number of its own."""
    with torch.device('meta'):
        state = ReferenceDeepLab(name, num_classes).state_dict()
    return {
        key: torch.tensor(number, dtype=value.dtype).expand(value.shape)
        for number, (key, value) in enumerate(state.items())
    }
