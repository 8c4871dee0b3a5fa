"""Command ``inference``: the cost of the bottleneck in prediction."""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from torch import Tensor

from .measure import Case, Result
from .networks import autocast, segformer


def inference(options: argparse.Namespace) -> Iterator[Case]:
    """Compare the logits of one image with the bottleneck (ours) and without it (reference)."""
    dtype = options.dtype or 'fp32'
    yield Case(
        f'inference {options.backbone} {options.preset} (K={options.classes}, 1 x {options.crop}^2), {dtype}',
        ours=partial(prediction, options, dtype, with_bottleneck=True),
        reference=partial(prediction, options, dtype, with_bottleneck=False),
    )


def prediction(options: argparse.Namespace, dtype: str, *, with_bottleneck: bool) -> Callable[[], Tensor]:
    """Build a network and a random image.

    Args:
        options (Namespace): Sizes, device and backbone.
        dtype (str): Key of ``DTYPES``.
        with_bottleneck (bool): Whether the network has the bottleneck.

    Returns:
        Callable: Returns the logits ``(1, K, h, w)``.
    """
    torch.manual_seed(0)
    net = MODELS.build(ConfigDict(segformer(options, with_bottleneck=with_bottleneck)))
    net.to(options.device).eval()
    image = torch.randn(1, 3, options.crop, options.crop, device=options.device)

    @torch.inference_mode()
    def run() -> Tensor:
        with autocast(options.device, dtype):
            return net(image)

    return run


def overhead(result: Result) -> str:
    """Say how much time the bottleneck adds."""
    return f'The bottleneck adds {100 / result.speedup - 100:.1f} % to the time of the forward pass.'
