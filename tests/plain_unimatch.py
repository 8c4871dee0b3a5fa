"""UniMatch's CNNs as its papers and release describe them: plain PyTorch, the release's keys."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {'resnet50': (3, 4, 6, 3), 'resnet101': (3, 4, 23, 3)}


def conv(above: int, width: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1):
    padding = dilation * (kernel // 2)
    return nn.Conv2d(above, width, kernel, stride, padding, dilation, groups, bias=False)


def conv_bn_relu(above: int, width: int, kernel: int, **options) -> list[nn.Module]:
    return [conv(above, width, kernel, **options), nn.BatchNorm2d(width), nn.ReLU()]


class Bottleneck(nn.Module):
    def __init__(self, above: int, width: int, stride: int, dilation: int):
        super().__init__()
        self.conv1, self.bn1 = conv(above, width, 1), nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        if stride != 1 or above != 4 * width:
            self.downsample = nn.Sequential(
                conv(above, 4 * width, 1, stride=stride), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        skip = self.downsample(x) if hasattr(self, 'downsample') else x
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + skip)


class ResNet(nn.Module):
    """Output stride 16: the last stage keeps its resolution, all but its first block with dilation 2."""

    def __init__(self, depths: tuple[int, ...]):
        super().__init__()
        stem = [*conv_bn_relu(3, 64, 3, stride=2), *conv_bn_relu(64, 64, 3), conv(64, 128, 3)]
        self.conv1, self.bn1 = nn.Sequential(*stem), nn.BatchNorm2d(128)
        above = 128
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                stride = 2 if index == 0 and stage in (1, 2) else 1
                dilation = 2 if index > 0 and stage == 3 else 1
                blocks.append(Bottleneck(above, 64 * 2**stage, stride, dilation))
                above = 256 * 2**stage
            self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        c1 = self.layer1(x)
        return c1, self.layer4(self.layer3(self.layer2(c1)))


class SeparableConv(nn.Module):
    def __init__(self, above: int, width: int, stride: int = 1, *, relu_behind: bool = False):
        super().__init__()
        self.depthwise = conv(above, above, 3, stride=stride, groups=above)
        self.bn1 = nn.BatchNorm2d(above, momentum=0.0003)
        self.pointwise = conv(above, width, 1)
        self.bn2 = nn.BatchNorm2d(width, momentum=0.0003)
        self.behind = F.relu if relu_behind else (lambda x: x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.behind(self.bn1(self.depthwise(x)))
        return self.behind(self.bn2(self.pointwise(x)))


class XceptionBlock(nn.Module):
    def __init__(self, above: int, widths: tuple[int, int, int], stride: int):
        super().__init__()
        self.widens = stride != 1 or above != widths[2]
        if self.widens:
            self.skip = conv(above, widths[2], 1, stride=stride)
            self.skipbn = nn.BatchNorm2d(widths[2], momentum=0.0003)
        self.sepconv1 = SeparableConv(above, widths[0])
        self.sepconv2 = SeparableConv(widths[0], widths[1])
        self.sepconv3 = SeparableConv(widths[1], widths[2], stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.widens:
            skip, x = self.skipbn(self.skip(x)), F.relu(x)
        else:
            skip = x
            F.relu_(x)  # in place, as released: it changes the skip, too
        inner = self.sepconv2(F.relu(self.sepconv1(x)))
        return self.sepconv3(F.relu(inner)) + skip, inner


class Xception(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 32, 3, stride=2), nn.BatchNorm2d(32, momentum=0.0003)
        self.conv2, self.bn2 = conv(32, 64, 3), nn.BatchNorm2d(64, momentum=0.0003)
        self.block1 = XceptionBlock(64, (128, 128, 128), 2)
        self.block2 = XceptionBlock(128, (256, 256, 256), 2)
        self.block3 = XceptionBlock(256, (728, 728, 728), 2)
        for i in range(4, 20):
            self.add_module(f'block{i}', XceptionBlock(728, (728, 728, 728), 1))
        self.block20 = XceptionBlock(728, (728, 1024, 1024), 1)
        self.conv3 = SeparableConv(1024, 1536, relu_behind=True)
        self.conv4 = SeparableConv(1536, 1536, relu_behind=True)
        self.conv5 = SeparableConv(1536, 2048, relu_behind=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.block1(x)[0]
        x, c1 = self.block2(x)
        for i in range(3, 21):
            x = getattr(self, f'block{i}')(x)[0]
        return c1, self.conv5(self.conv4(self.conv3(x)))


class Pooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.gap = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(2048, 256, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.gap(x), x.shape[2:], mode='bilinear', align_corners=True)


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.b0 = nn.Sequential(*conv_bn_relu(2048, 256, 1))
        for i, dilation in enumerate((6, 12, 18), 1):
            self.add_module(f'b{i}', nn.Sequential(*conv_bn_relu(2048, 256, 3, dilation=dilation)))
        self.b4 = Pooling()
        self.project = nn.Sequential(*conv_bn_relu(1280, 256, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([getattr(self, f'b{i}')(x) for i in range(5)], dim=1))


class PlainDeepLab(nn.Module):
    """The whole network; ``name`` is resnet50, resnet101 or xception."""

    def __init__(self, name: str, num_classes: int):
        super().__init__()
        self.backbone = Xception() if name == 'xception' else ResNet(DEPTHS[name])
        self.head = Pyramid()
        self.reduce = nn.Sequential(*conv_bn_relu(256, 48, 1))
        self.fuse = nn.Sequential(*conv_bn_relu(304, 256, 3), *conv_bn_relu(256, 256, 3))
        self.classifier = nn.Conv2d(256, num_classes, 1)

    def decode(self, c1: Tensor, c4: Tensor) -> Tensor:
        fused = F.interpolate(self.head(c4), c1.shape[2:], mode='bilinear', align_corners=True)
        return self.classifier(self.fuse(torch.cat([self.reduce(c1), fused], dim=1)))

    def forward(self, image: Tensor) -> Tensor:
        logits = self.decode(*self.backbone(image))
        return F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=True)


def randomized_norms(model: nn.Module) -> nn.Module:
    """Scales, shifts and statistics away from 1 and 0, so that each of them counts."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, mean in ((module.weight, 1), (module.bias, 0), (module.running_mean, 0)):
                nn.init.normal_(tensor, mean, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return model


def plain_state(name: str, num_classes: int) -> dict[str, Tensor]:
    """The keys and shapes, each with a value of its own; hardly any memory, whatever the size."""
    with torch.device('meta'):
        state = PlainDeepLab(name, num_classes).state_dict()
    return {
        key: torch.tensor(number, dtype=value.dtype).expand(value.shape)
        for number, (key, value) in enumerate(state.items())
    }
