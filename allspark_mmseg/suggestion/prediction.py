"""Prediction for scoring: probabilities and features of one image of any size, in bounded memory."""

import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import torch
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..prediction import LoadedImage
from ..prediction.windows import Window, average_windows, resize_strips
from ..segmentors.extended_encoder_decoder import shifted_windows
from .networks import Network
from .scores import image_scores, pixel_entropy, sum_classes

MAX_VALUES = 64_000_000  # probabilities of one network in memory, 256 MB
MAX_PIXELS = 2_500_000  # of one pass through a network
WINDOW = 1024  # side of a window in pixels, at most


@dataclass
class PooledFeature:
    """Mean of a feature map over the positions of all passes.

    Attributes:
        total (Tensor, optional): (C,), the sum.
        count (int): Number of positions.
    """

    total: Tensor | None = None
    count: int = 0

    def add(self, output: Any) -> None:
        """Add the last stage of a backbone: (1, C, h, w) or (1, L, C), also in a tuple with a class token."""
        while isinstance(output, list | tuple):
            output = output[-1] if isinstance(output[-1], list | tuple) else _last_map(output)
        values = output.flatten(2).sum((0, 2)) if output.ndim == 4 else output.sum((0, 1))
        self.total = values.float() if self.total is None else self.total + values.float()
        self.count += output.numel() // len(values)

    @property
    def mean(self) -> np.ndarray:
        """The mean, (C,) float32."""
        assert self.total is not None  # at least one pass
        return (self.total / self.count).cpu().numpy()


def _last_map(outputs: Sequence[Tensor]) -> Tensor:
    """Return the last feature map of a list. Class tokens (1, C) are skipped."""
    return [output for output in outputs if output.ndim > 2][-1]


@contextmanager
def pooled_feature(backbone: nn.Module) -> Iterator[PooledFeature]:
    """Collect the feature of all passes through a backbone in the block."""
    pooled = PooledFeature()
    handle = backbone.register_forward_hook(lambda _, __, output: pooled.add(output))
    try:
        yield pooled
    finally:
        handle.remove()


def max_pixels(num_classes: int) -> int:
    """Return how many pixels a network predicts at once."""
    return min(MAX_PIXELS, max(MAX_VALUES // num_classes, 256 * 256))


@torch.no_grad()
def predict_logits(network: Network, inputs: Tensor) -> Tensor:
    """Predict an image or a window.

    Args:
        network (Network): The network.
        inputs (Tensor): (3, H, W), as the test pipeline packs it.

    Returns:
        Tensor: Logits (K, H, W). A head with one sigmoid channel z gives (-z / 2, z / 2).
    """
    size = tuple(inputs.shape[1:])
    sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
    batch = network.preprocessor({'inputs': [inputs], 'data_samples': [sample]}, False)
    logits = network.segmentor.inference(batch['inputs'], [batch['data_samples'][0].metainfo])
    # a preprocessor pads on the right and at the bottom
    logits = logits[0, :, : size[0], : size[1]].float()
    return torch.cat([-logits / 2, logits / 2]) if len(logits) == 1 else logits


def probability_strips(network: Network, inputs: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Predict an image in strips of rows. Large ones are predicted in windows whose logits are averaged.

    Args:
        network (Network): The network.
        inputs (Tensor): (3, h, w), as the test pipeline packs it.
        size (tuple[int, int]): Height H and width W of the result. Logits are resized, as in MMSegmentation.

    Yields:
        Tensor: Probabilities (K, n, W) of the next rows.
    """
    height, width = inputs.shape[1:]
    most = max_pixels(network.segmentor.num_classes)
    rows, columns = [slice(0, height)], [slice(0, width)]
    if max(height * width, size[0] * size[1]) > most:
        side = min(math.isqrt(most), WINDOW)
        rows, columns = (shifted_windows(length, side, side * 3 // 4) for length in (height, width))

    def logits(windows: list[Window]) -> Tensor:
        return torch.stack([predict_logits(network, inputs[:, top, left]) for top, left in windows])

    strips = average_windows(logits, rows, columns, batch=1)
    resized = resize_strips(strips, (height, width), size, network.segmentor.align_corners)
    return (strip.softmax(0) for strip in resized)


def score_image(networks: Sequence[Network], inputs: Tensor) -> tuple[dict[str, Any], np.ndarray]:
    """Score an image.

    Args:
        networks (Sequence[Network]): The network that labels, and optionally a second one.
        inputs (Tensor): (3, H, W), as the test pipeline packs it.

    Returns:
        tuple: The record of :func:`~allspark_mmseg.suggestion.scores.image_scores`, and the pooled feature
        (C,) of the last stage of the first network.
    """
    size = (inputs.shape[1], inputs.shape[2])
    with pooled_feature(networks[0].segmentor.backbone) as pooled:
        predictions = [probability_strips(network, inputs, size) for network in networks]
        total = reduce(operator.add, (sum_classes(*strips) for strips in zip(*predictions, strict=True)))
    return image_scores(total), pooled.mean


@dataclass
class Prediction:
    """Prediction of a chosen image at its original size.

    Attributes:
        mask (np.ndarray): (H, W) uint8.
        entropy (np.ndarray): (H, W) float16 in [0, 1]; see ``pixel_entropy``.
    """

    mask: np.ndarray
    entropy: np.ndarray = field(repr=False)


def predict_image(network: Network, image: LoadedImage) -> Prediction:
    """Predict the mask of an image.

    Args:
        network (Network): The network.
        image (LoadedImage): The image, with one view.

    Returns:
        Prediction: Mask and entropy.
    """
    parts = [
        (strip.argmax(0).byte().cpu().numpy(), pixel_entropy(strip).half().cpu().numpy())
        for strip in probability_strips(network, image.inputs[0], image.size)
    ]
    mask, entropy = (np.concatenate(maps) for maps in zip(*parts, strict=True))
    return Prediction(mask, entropy)
