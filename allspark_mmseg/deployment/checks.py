"""Comparison of an exported file with PyTorch on images, and the number of operations."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .files import Runner, largest_difference, open_file
from .segmentor import DeployedSegmentor
from .tracing import traceable

MAX_SIDE = 1024  # pixels; larger images are reduced, because they only take longer


def read_image(path: Path, channels: int, size: Sequence[int] | None) -> np.ndarray:
    """Read an image as the network takes it.

    Args:
        path (Path): The file.
        channels (int): Channels of the network. For three, the image becomes RGB.
        size (Sequence[int], optional): (height, width) in pixels. None: the size of the file, reduced to at
            most 1024 pixels.

    Returns:
        np.ndarray: (1, C, H, W) float32 in 0..255.

    Raises:
        ValueError: The file cannot be read, or has another number of channels.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f'{path} cannot be read as an image.')
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[2] != channels:
        raise ValueError(f'{path} has {image.shape[2]} channels, but the network takes {channels}.')
    factor = min(1.0, MAX_SIDE / max(image.shape[:2]))
    height, width = size or (max(1, round(side * factor)) for side in image.shape[:2])
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    image = image[..., ::-1] if channels == 3 else image.reshape(height, width, channels)
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}{"" if number == 1 else "s"}'


@dataclass(frozen=True)
class Comparison:
    """What a file and PyTorch predict for the same images.

    Attributes:
        images (int): Number of images.
        sizes (int): Number of different sizes.
        difference (float): The largest difference of logits, see ``largest_difference``.
        equal (float): Share of the pixels with equal labels, in [0, 1].
        rates (tuple[float, float]): Predictions per second of PyTorch and of the file, on the CPU.
        runtime (str): What runs the file.
    """

    images: int
    sizes: int
    difference: float
    equal: float
    rates: tuple[float, float]
    runtime: str

    def describe(self, tolerance: float) -> str:
        """Return two lines for the user.

        Args:
            tolerance (float): Limit of the difference.
        """
        verdict = 'passed' if self.difference <= tolerance else 'FAILED'
        threads = torch.get_num_threads()
        images, sizes = _count(self.images, 'image'), _count(self.sizes, 'size')
        return (
            f'{verdict}: {images} in {sizes}, largest difference of logits '
            f'{self.difference:.1e} (limit {tolerance:.0e}, relative to the largest logit), equal labels '
            f'{self.equal:.4%}\n'
            f'images per second on the CPU with {_count(threads, "thread")}: PyTorch '
            f'{self.rates[0]:.2f}, {self.runtime} {self.rates[1]:.2f}'
        )


def compare(
    model: DeployedSegmentor, path: Path, images: Iterable[Path], size: tuple[int, int] | None
) -> Comparison:
    """Compare a file with PyTorch on images.

    Args:
        model (DeployedSegmentor): The model.
        path (Path): The file.
        images (Iterable[Path]): Images. For a file with free sizes, each is also tried at 3/4 of its size.
        size (tuple[int, int], optional): The fixed size (height, width) in pixels.

    Returns:
        Comparison: The differences and the speeds.

    Raises:
        ValueError: An image cannot be read, or has another number of channels.
    """
    run_file = open_file(path, threads=torch.get_num_threads())
    differences, seconds = [], np.zeros(2)
    count = runs = equal = pixels = 0
    sizes: set[tuple[int, ...]] = set()
    for image_path in images:
        image = read_image(image_path, model.in_channels, size)
        for variant in [image] if size else [image, _shrink(image)]:
            if variant.shape not in sizes:
                for predict in (model.predict, run_file):  # the first call of a size allocates memory
                    predict(variant)
            (expected, expected_labels), torch_time = _timed(model.predict, variant)
            (found, found_labels), file_time = _timed(run_file, variant)
            seconds += (torch_time, file_time)
            differences.append(largest_difference(expected, found))
            equal += int((expected_labels == found_labels).sum())
            pixels += expected_labels.size
            sizes.add(variant.shape)
            runs += 1
        count += 1
    rates = (runs / seconds[0], runs / seconds[1])
    runtime = 'onnxruntime' if path.suffix == '.onnx' else 'TorchScript'
    # np.max keeps NaN, and a NaN fails the check
    return Comparison(count, len(sizes), float(np.max(differences)), equal / pixels, rates, runtime)


def _timed(predict: Runner, image: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    start = time.perf_counter()
    return predict(image), time.perf_counter() - start


def _shrink(image: np.ndarray) -> np.ndarray:
    """Resize an image (1, C, H, W) to 3/4 of its size."""
    height, width = (max(1, side * 3 // 4) for side in image.shape[2:])
    channels = [cv2.resize(channel, (width, height), interpolation=cv2.INTER_AREA) for channel in image[0]]
    return np.stack(channels)[None]


def describe_complexity(model: DeployedSegmentor, size: tuple[int, int]) -> str:
    """Count the parameters and the operations of a prediction.

    Args:
        model (DeployedSegmentor): The model.
        size (tuple[int, int]): (height, width) of an image in pixels.

    Returns:
        str: A sentence. A multiplication and an addition are one operation (MAC), as in MMEngine's count.
    """
    network = model.network
    parameters = sum(
        value.numel() for name, value in network.named_parameters() if not name.startswith('auxiliary_head')
    )
    image = torch.zeros(1, model.in_channels, *size)
    # without these two, PyTorch's fused attention is not counted
    with traceable(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(image)
    return (
        f'{parameters / 1e6:.2f} M parameters, {counter.get_total_flops() / 2e9:.2f} G multiply-adds for an '
        f'image of {size[0]} x {size[1]} pixels (MMSegmentation calls them FLOPs)'
    )
