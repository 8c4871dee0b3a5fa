"""Prediction for scoring: probabilities and features of one image of any size, in bounded memory."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..prediction import LoadedImage
from .networks import Network
from .scores import ClassSums, image_scores, pixel_entropy, sum_classes

MAX_VALUES = 64_000_000  # probabilities of one network in memory, 256 MB
MAX_PIXELS = 2_500_000  # of one pass through a network
MARGIN = 8  # a window keeps its inner part; its margin is an eighth of its side


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


@dataclass(frozen=True)
class Window:
    """A part of an image.

    Attributes:
        outer (tuple[slice, slice]): Rows and columns that the network sees.
        inner (tuple[slice, slice]): Rows and columns whose prediction counts.
    """

    outer: tuple[slice, slice]
    inner: tuple[slice, slice]

    @property
    def core(self) -> tuple[slice, slice]:
        """The inner part relative to the outer one."""
        rows, columns = (
            slice(inside.start - outside.start, inside.stop - outside.start)
            for inside, outside in zip(self.inner, self.outer, strict=True)
        )
        return rows, columns


def cut(maps: Tensor, part: tuple[slice, slice]) -> Tensor:
    """Return rows and columns of maps (C, H, W)."""
    return maps[:, part[0], part[1]]


def split_windows(height: int, width: int, max_pixels: int) -> list[Window]:
    """Split an image into windows. The inner parts cover each pixel once.

    Args:
        height (int): Height in pixels.
        width (int): Width in pixels.
        max_pixels (int): Pixels of the largest window, at least 64.

    Returns:
        list[Window]: One window if the image has at most ``max_pixels``.
    """
    if height * width <= max_pixels:
        whole = (slice(0, height), slice(0, width))
        return [Window(whole, whole)]
    side = math.isqrt(max_pixels)
    rows, columns = (_split_side(size, side) for size in (height, width))
    return [Window((top[0], left[0]), (top[1], left[1])) for top in rows for left in columns]


def _split_side(size: int, side: int) -> list[tuple[slice, slice]]:
    """Return outer and inner part of the windows along one direction."""
    margin = side // MARGIN
    count = 1 if size <= side else math.ceil((size - 2 * margin) / (side - 2 * margin))
    starts = [min(index * (side - 2 * margin), max(size - side, 0)) for index in range(count)]
    limits = [0, *(start + margin for start in starts[1:]), size]
    outer = [slice(start, min(start + side, size)) for start in starts]
    return list(zip(outer, map(slice, limits[:-1], limits[1:]), strict=True))


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


def score_image(networks: Sequence[Network], inputs: Tensor) -> tuple[dict[str, Any], np.ndarray]:
    """Score an image.

    Args:
        networks (Sequence[Network]): The network that labels, and optionally a second one.
        inputs (Tensor): (3, H, W), as the test pipeline packs it.

    Returns:
        tuple: The record of :func:`~allspark_mmseg.suggestion.scores.image_scores`, and the pooled feature
        (C,) of the last stage of the first network.
    """
    first, *rest = networks
    total: ClassSums | None = None
    with pooled_feature(first.segmentor.backbone) as pooled:
        for window in split_windows(
            inputs.shape[1], inputs.shape[2], max_pixels(first.segmentor.num_classes)
        ):
            crop = cut(inputs, window.outer)
            predictions = [
                cut(predict_logits(network, crop), window.core).softmax(0) for network in (first, *rest)
            ]
            sums = sum_classes(*predictions)
            total = sums if total is None else total + sums
    assert total is not None  # an image has at least one window
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
        Prediction: Mask and entropy. If the pipeline resizes, logits are resized to the original size, as
        MMSegmentation does; only for images of several windows the labels are resized.
    """
    inputs, (height, width) = image.inputs[0], image.size
    limit = max_pixels(network.segmentor.num_classes)
    if max(inputs[0].numel(), height * width) <= limit:
        logits = predict_logits(network, inputs)[None]
        options = dict(mode='bilinear', align_corners=network.segmentor.align_corners, warning=False)
        logits = resize(logits, size=(height, width), **options)[0]
        return _to_maps(logits)
    parts = Prediction(np.zeros(inputs.shape[1:], np.uint8), np.zeros(inputs.shape[1:], np.float16))
    for window in split_windows(inputs.shape[1], inputs.shape[2], limit):
        part = _to_maps(cut(predict_logits(network, cut(inputs, window.outer)), window.core))
        parts.mask[window.inner], parts.entropy[window.inner] = part.mask, part.entropy
    if parts.mask.shape == (height, width):
        return parts
    mask = cv2.resize(parts.mask, (width, height), interpolation=cv2.INTER_NEAREST)
    return Prediction(mask, cv2.resize(parts.entropy.astype(np.float32), (width, height)).astype(np.float16))


def _to_maps(logits: Tensor) -> Prediction:
    """Return label and entropy of logits (K, H, W)."""
    mask = logits.argmax(0).byte().cpu().numpy()
    return Prediction(mask, pixel_entropy(logits.softmax(0)).half().cpu().numpy())
