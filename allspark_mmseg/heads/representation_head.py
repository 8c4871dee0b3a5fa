"""DeepLabv3+'s decode head with a second branch that makes a representation of each pixel, as CSS uses it."""

from torch import Tensor, nn

from ..registry import MODELS
from .deeplabv3plus_head import DeepLabV3PlusHead


@MODELS.register_module()
class RepresentationHead(DeepLabV3PlusHead):
    """DeepLabv3+'s head at output stride 8, and beside its classifier a branch of the same structure.

    "Space Engage" (CSS, ICCV 2023, arXiv 2307.09755), as its release builds it: one 3x3 convolution before
    the classifier, and on the very same input a 3x3 convolution, norm, ReLU and a 1x1 convolution with bias.

    As a decode head it gives logits alone, so it serves every segmentor and method. Only CSS trains the
    second branch: **elsewhere it gets no gradient**, and ``DistributedDataParallel`` needs
    ``find_unused_parameters=True``; without CSS take ``DeepLabV3PlusHead`` with ``num_convs=1``.

    Args:
        in_channels: channels of the low-level and of the deep feature.
        channels: width of the pyramid's branches, of the decoder and of the representation branch.
        c1_channels: width to which the low-level feature is reduced.
        dilations: of the pyramid's branches, for output stride 8.
        num_convs: 3x3 convolutions before the classifier; the representation branch has one.
        representation_channels: length D of a representation.
        kwargs: as in ``DeepLabV3PlusHead``; CSS has ``align_corners=True``.
    """

    def __init__(
        self,
        in_channels: tuple[int, int] = (256, 2048),
        channels: int = 256,
        c1_channels: int = 48,
        dilations: tuple[int, ...] = (1, 12, 24, 36),
        num_convs: int = 1,
        representation_channels: int = 256,
        **kwargs,
    ):
        super().__init__(in_channels, channels, c1_channels, dilations, num_convs, **kwargs)
        self.representation_channels = representation_channels
        self.representation = nn.Sequential(
            self._conv(c1_channels + channels, channels, 3), nn.Conv2d(channels, representation_channels, 1)
        )

    def forward_with_representations(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode, and represent.

        Args:
            inputs: features, as in ``forward``.

        Returns:
            tuple: logits (N, num_classes, H, W), those of ``forward``, and representations
            (N, representation_channels, H, W), of any length and sign; both at the size of the low-level
            feature.
        """
        concatenated = self._concatenated(inputs)
        return self.cls_seg(self.fuse(concatenated)), self.representation(concatenated)
