"""Import of a CSS checkout, and the stand-ins that it needs."""

import importlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import add_to_path, new_module
from PIL import Image
from torch import Tensor


class RandomCrop:
    """Stand-in for torchvision's ``RandomCrop``, which keeps the positions that it drew."""

    drawn: list[tuple[int, int]] = []

    @staticmethod
    def get_params(image: Image.Image, output_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Draw the position of a crop of size (H, W); return top, left, height, width."""
        (width, height), (crop_height, crop_width) = image.size, output_size
        top, left = 0, 0
        if (height, width) != (crop_height, crop_width):
            top = int(np.random.randint(0, height - crop_height + 1))
            left = int(np.random.randint(0, width - crop_width + 1))
        RandomCrop.drawn.append((top, left))
        return top, left, crop_height, crop_width


def _pad(image: Image.Image, padding: tuple, fill: int = 0, padding_mode: Any = 'constant') -> Image.Image:
    left, top, right, bottom = padding
    array = np.asarray(image)
    widths = ((top, bottom), (left, right)) + ((0, 0),) * (array.ndim - 2)
    options: dict[str, Any] = dict(constant_values=fill) if padding_mode == 'constant' else {}
    return Image.fromarray(np.pad(array, widths, padding_mode, **options))


def _to_tensor(image: Image.Image) -> Tensor:
    array = np.asarray(image)
    array = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(array.transpose(2, 0, 1).copy()).to(torch.float32).div(255)


def _to_pil_image(tensor: Tensor) -> Image.Image:
    array = tensor.mul(255).byte().numpy().transpose(1, 2, 0)
    return Image.fromarray(array[:, :, 0].copy() if array.shape[2] == 1 else array.copy())


def _normalize(tensor: Tensor, mean: Any, std: Any) -> Tensor:
    mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (mean, std))
    return (tensor - mean) / std


def stand_in_for_torchvision() -> None:
    """Provide the functions on PIL images that CSS imports from torchvision."""
    functional = new_module(
        'torchvision.transforms.functional',
        resize=lambda image, size, mode: image.resize(size[::-1], mode),
        crop=lambda image, i, j, h, w: image.crop((j, i, j + w, i + h)),
        hflip=lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        normalize=_normalize,
        pad=_pad,
        to_tensor=_to_tensor,
        to_pil_image=_to_pil_image,
    )
    transforms = new_module('torchvision.transforms', RandomCrop=RandomCrop, functional=functional)
    new_module('torchvision', transforms=transforms)


class World:
    """Stand-in for ``torch.distributed``: every rank runs in this process, one after the other.

    ``sent`` holds the tensors that the current rank passed to ``all_gather``; ``parts`` holds what each rank
    passes, call by call, or None for a single rank.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self, size: int = 1, rank: int = 0, parts: list[list[Tensor]] | None = None) -> None:
        self.size, self.rank, self.parts = size, rank, parts
        self.sent: list[Tensor] = []

    def all_gather(self, into: list[Tensor], tensor: Tensor, async_op: bool = False) -> None:
        own = tensor.detach().clone()
        self.sent.append(own)
        gathered = [own]
        if self.parts is not None:
            gathered = [part[len(self.sent) - 1] for part in self.parts]
        assert torch.equal(gathered[self.rank], own), 'the second run of a rank sends what the first run sent'
        for target, source in zip(into, gathered, strict=False):
            target.copy_(source)

    def run_on_two_ranks(self, call: Callable[[int], Any]) -> list:
        """Run ``call(rank)`` for two ranks; ``call`` seeds the generators.

        Each rank first runs alone, which shows what it sends, and then again with what both ranks send.
        """
        parts = []
        for rank in (0, 1):
            self.reset()
            call(rank)
            parts.append(self.sent)
        results = []
        for rank in (0, 1):
            self.reset(2, rank, parts)
            results.append(call(rank))
        self.reset()
        return results


class Reference:
    """The modules of a CSS checkout.

    Importing them changes PyTorch for the rest of the process: the collective functions go to ``world``.
    """

    def __init__(self, checkout: Path):
        self.checkout = checkout
        self.world = World()
        stand_in_for_torchvision()
        vars(torch.distributed).update(
            get_world_size=lambda *args: self.world.size,
            get_rank=lambda *args: self.world.rank,
            all_gather=self.world.all_gather,
        )
        add_to_path(checkout)
        self._import()

    def _import(self) -> None:
        def load(name: str) -> Any:
            return importlib.import_module(f'generalframeworks.{name}')

        self.ddp, self.resnet = load('networks.ddp_model'), load('networks.resnet')
        self.voc, self.losses, self.utils = load('dataset_helpers.VOC'), load('loss.loss'), load('utils')
        self.network_class = load('networks.deeplabv3.deeplabv3').DeepLabv3Plus_with_rep
        ramps = load('scheduler.rampscheduler')
        self.ramp_down_class, self.ramp_up_class = ramps.RampdownScheduler, ramps.RampScheduler
        self.poly_class = load('scheduler.my_lr_scheduler').PolyLR
        self.matrix_class = load('util.meter').ConfMatrix
        self.mean_iou = load('util.miou').mean_intersection_over_union


def seed_global_generators(seed: int, python: bool = False) -> None:
    """Seed PyTorch and NumPy, and on request Python's ``random``, from which the released code draws."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    if python:
        random.seed(seed)
