"""The DeepLabv3+ decode head with a second branch for pixel representations, as CSS uses it."""

from typing import Any

from torch import Tensor, nn

from ..registry import MODELS
from .deeplabv3plus_head import DeepLabV3PlusHead


@MODELS.register_module()
class RepresentationHead(DeepLabV3PlusHead):
    """DeepLabv3+ head for output stride 8 with a representation branch next to the classifier.

    This is the head of CSS's released code ("Space Engage", ICCV 2023, arXiv 2307.09755). It has one 3x3
    convolution before the classifier. The representation branch has the same input and consists of a 3x3
    convolution, norm, ReLU and a 1x1 convolution with bias.

    :meth:`forward` returns only logits, so the head works with every segmentor and method. Only CSS trains
    the representation branch. **With other methods it gets no gradient**, and ``DistributedDataParallel``
    needs ``find_unused_parameters=True``. Use ``DeepLabV3PlusHead`` with ``num_convs=1`` for them.

    Args:
        in_channels (tuple[int, int]): Channels of the low-level feature and of the deep feature.
        channels (int): Channels of the pyramid's branches, the decoder and the representation branch.
        c1_channels (int): Channels of the projected low-level feature.
        dilations (tuple[int, ...]): Dilations of the pyramid's branches. The default is for output stride 8.
        num_convs (int): Number of 3x3 convolutions before the classifier. The representation branch has one.
        representation_channels (int): Channels D of a representation.
        **kwargs: Other arguments of ``DeepLabV3PlusHead``. CSS uses ``align_corners=True``.
    """

    # in a plain EncoderDecoder, the representation branch gets no gradient
    has_method_parameters = True
    training_only = ('representation',)  # parts without which the logits are the same

    def __init__(
        self,
        in_channels: tuple[int, int] = (256, 2048),
        channels: int = 256,
        c1_channels: int = 48,
        dilations: tuple[int, ...] = (1, 12, 24, 36),
        num_convs: int = 1,
        representation_channels: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, c1_channels, dilations, num_convs, **kwargs)
        self.representation_channels = representation_channels
        self.representation = nn.Sequential(
            self._conv(c1_channels + channels, channels, 3), nn.Conv2d(channels, representation_channels, 1)
        )

    def forward_with_representations(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute logits and representations.

        Args:
            inputs (list[Tensor]): Features, the input of ``forward``. ``in_index`` selects the low-level
                feature of shape (N, C_1, H, W) and the deep feature of shape (N, C_4, H / 4, W / 4).

        Returns:
            tuple[Tensor, Tensor]: Logits of shape (N, num_classes, H, W), equal to those of ``forward``, and
            representations of shape (N, representation_channels, H, W), not normalized.
        """
        features = self._concatenate_features(inputs)
        return self.cls_seg(self.fuse(features)), self.representation(features)
