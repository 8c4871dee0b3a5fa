"""A trained segmentor from the raw image to class numbers."""

import copy
from typing import Any

import numpy as np
import torch
from mmseg.models import BaseSegmentor, EncoderDecoder
from torch import Tensor, nn

PRECISIONS = ('fp32', 'fp16')


class DeployedSegmentor(nn.Module):
    """A segmentor with its normalization: RGB values 0..255 in, logits and class numbers out.

    The images are predicted as a whole, also if ``test_cfg`` has sliding windows. Images of more or fewer
    than three channels keep the order of the file.

    Args:
        network (BaseSegmentor): The segmentor. It is put in evaluation mode, and its parameters lose their
            gradients. For ``'fp16'``, a copy is used.
        precision (str): ``'fp32'``, or ``'fp16'`` for weights and activations of half the size. Input and
            logits stay float32.
        preprocessor (nn.Module, optional): The data preprocessor. Default: that of the network. A method can
            have one of its own.

    Raises:
        ValueError: The segmentor is not an ``EncoderDecoder``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: BaseSegmentor, precision: str = 'fp32', preprocessor: nn.Module | None = None
    ) -> None:
        super().__init__()
        if not isinstance(network, EncoderDecoder):
            raise ValueError(f'the model is a {type(network).__name__}, expected an EncoderDecoder.')
        self.dtype = torch.float16 if precision == 'fp16' else torch.float32
        network = copy.deepcopy(network).half() if precision == 'fp16' else network
        self.network = network.eval().requires_grad_(False)
        source: Any = preprocessor or network.data_preprocessor
        convolution = next(part for part in network.modules() if isinstance(part, nn.Conv2d))
        self.in_channels = convolution.in_channels
        normalized = getattr(source, '_enable_normalize', False)
        mean = source.mean if normalized else torch.zeros(1)
        std = source.std if normalized else torch.ones(1)
        self.register_buffer('mean', mean.float().reshape(1, -1, 1, 1))
        self.register_buffer('std', std.float().reshape(1, -1, 1, 1))
        # MMSegmentation loads images as BGR, and the data preprocessor converts them to RGB. The first name
        # is that of OpenMMLab, the second one that of OneDL.
        names = ('channel_conversion', '_channel_conversion')
        converts = any(getattr(source, name, False) for name in names)
        self.reverse = self.in_channels == 3 and not converts

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Args:
            image (Tensor): (N, C, H, W) float32, RGB in 0..255.

        Returns:
            tuple[Tensor, Tensor]: Logits (N, K, H, W) float32, and class numbers (N, H, W) uint8.
        """
        if self.reverse:
            image = image.flip(1)
        x = ((image - self.mean) / self.std).to(self.dtype)
        size = x.shape[2:]
        # encode_decode resizes to img_shape if it is a torch.Size
        logits = self.network.whole_inference(x, [dict(img_shape=size, ori_shape=size)]).float()
        if self.network.out_channels == 1:
            labels = logits.sigmoid().squeeze(1) > self.network.decode_head.threshold
        else:
            labels = logits.argmax(dim=1)
        return logits, labels.to(torch.uint8)

    def predict(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict arrays, with the shapes and types of :meth:`forward`."""
        with torch.no_grad():
            logits, labels = self(torch.from_numpy(image))
        return logits.numpy(), labels.numpy()
