"""The rows of the command ``all``."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from allspark_mmseg.methods.allspark import AllSparkBottleneck

from .bottleneck import bottleneck_pass, memory
from .data import consume, make_images, make_mask
from .inference import prediction
from .measure import Run
from .networks import DTYPES
from .options import PRESETS
from .pipelines import our_images
from .plain_bottleneck import PlainBottleneck
from .step import training_step
from .unimatch_v2 import unimatch_v2_step

PRECISIONS = ('fp32', 'tf32', 'bf16')
GEMM = {False: 8192, True: 64}  # side of the matrices; True: tiny
TINY = dict(classes=3, crop=65, images=(1, 1), channels=8, stored=(80, 60), backbone='mit-b0')
_PRODUCTS = {'ours': 7, 'plain': 6}  # matrix products as large as the score map; the blocks make one again
_HEADS = 2


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name (str): Unique name.
        build (Callable): Builds inputs and network, and returns the function to measure.
        precision (str): One of ``PRECISIONS``.
        plain (str, optional): Name of the row of the plain implementation in the same precision.
        images (tuple[int, int], optional): Labeled and unlabeled images per run of a training step.
        flops (float): Floating-point operations of the large matrix products of a run.
        calls (int): Divisor of the measured time.
        device (str, optional): Device of the run, if it is not that of the command.
    """

    name: str
    build: Callable[[], Run]
    precision: str = 'fp32'
    plain: str | None = None
    images: tuple[int, int] | None = None
    flops: float = 0.0
    calls: int = 1
    device: str | None = None


def all_rows(device: str, tiny: bool) -> Iterator[Row]:
    """Yield all rows, the most important ones first.

    Args:
        device (str): ``'cpu'`` or ``'cuda'``.
        tiny (bool): Whether all sizes are tiny.
    """
    yield from gemm_rows(device, GEMM[tiny])
    for preset in ('coco', 'voc', 'cityscapes'):
        yield from bottleneck_rows(make_options(preset, device, tiny))
    yield from data_rows(make_options('voc', device, tiny), count=2 if tiny else 24)
    for preset, images in (('voc', (2, 2)), ('voc', (4, 4)), ('cityscapes', (2, 2))):
        few = (1, images[1] // 2)  # the names stay different
        yield from step_rows(make_options(preset, device, tiny, few if tiny else images))
    for size in ('s', 'b'):
        images = (1, 1) if tiny else (4, 4)
        yield from unimatch_v2_rows(make_options('voc', device, tiny, images), size, tiny)
    yield from memory_rows(make_options('coco', device, tiny))
    yield from inference_rows(make_options('voc', device, tiny))


def make_options(
    preset: str, device: str, tiny: bool, images: tuple[int, int] | None = None
) -> argparse.Namespace:
    """Return the sizes of a preset, with other numbers of images if ``images`` is given."""
    values: dict[str, Any] = {
        **PRESETS[preset],
        'backbone': 'mit-b5',
        'dropout': 0.1,
        **(TINY if tiny else {}),
    }
    values['images'] = images or values['images']
    return argparse.Namespace(**values, preset=preset, device=device)


def describe(options: argparse.Namespace) -> str:
    """Format the sizes of a row."""
    labeled, unlabeled = options.images
    return f'{options.preset} K={options.classes}, {labeled}+{unlabeled} x {options.crop}^2'


def gemm_rows(device: str, side: int) -> Iterator[Row]:
    """Yield the products of two square matrices: the limit of the device."""

    def build(dtype: torch.dtype) -> Run:
        left, right = torch.randn(2, side, side, device=device).to(dtype)
        return lambda: left @ right

    for precision in PRECISIONS:
        dtype = DTYPES.get(precision, torch.float32)
        yield Row(gemm_name(precision), partial(build, dtype), precision, flops=2.0 * side**3)


def gemm_name(precision: str) -> str:
    """Return the name of the row of the limit in a precision."""
    return f'matrix product, {precision}'


def bottleneck_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield forward and backward pass of the bottleneck with memory and dropout, of both sides."""
    labeled, positions = options.images[0], (-(-options.crop // 32)) ** 2
    queries, keys = labeled * _HEADS * options.channels, options.classes * _HEADS * options.channels
    product = 2.0 * queries * keys * positions
    for side, kind in (('plain', PlainBottleneck), ('ours', AllSparkBottleneck)):
        for precision in PRECISIONS:
            name = f'bottleneck {describe(options)}, {{}}, {precision}'
            yield Row(
                name.format(side),
                partial(bottleneck_pass, kind, options, autocast_name(precision), options.dropout),
                precision,
                plain=name.format('plain') if side == 'ours' else None,
                flops=_PRODUCTS[side] * product,
            )


def autocast_name(precision: str) -> str:
    """Return the key of ``DTYPES`` of a precision; TensorFloat-32 is a setting, not a dtype."""
    return 'fp32' if precision == 'tf32' else precision


def step_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield a training step of AllSpark, of both sides."""
    for side in ('plain', 'ours'):
        for precision in PRECISIONS:
            name = f'AllSpark step {options.backbone}, {describe(options)}, {{}}, {precision}'
            yield Row(
                name.format(side),
                partial(training_step, options, autocast_name(precision), plain=side == 'plain'),
                precision,
                plain=name.format('plain') if side == 'ours' else None,
                images=options.images,
            )


def unimatch_v2_rows(options: argparse.Namespace, size: str, tiny: bool) -> Iterator[Row]:
    """Yield a training step of UniMatch V2 with DINOv2-S or DINOv2-B."""
    options.crop = 28 if tiny else 518
    for precision in PRECISIONS:
        yield Row(
            f'UniMatch V2 step DINOv2-{size.upper()}, {describe(options)}, {precision}',
            partial(unimatch_v2_step, options, autocast_name(precision), size, tiny=tiny),
            precision,
            images=options.images,
        )


def memory_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the update of the semantic memory, of both sides."""
    (case,) = memory(options)
    name = f'memory update {describe(options)}, {{}}'
    yield Row(name.format('plain'), case.reference)
    yield Row(name.format('ours'), case.ours, plain=name.format('plain'))


def inference_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the prediction of one image, with and without the bottleneck."""
    for precision in PRECISIONS:
        for text, with_bottleneck in (('without bottleneck', False), ('with bottleneck', True)):
            yield Row(
                f'inference {options.backbone}, 1 x {options.crop}^2, {text}, {precision}',
                partial(prediction, options, autocast_name(precision), with_bottleneck=with_bottleneck),
                precision,
            )


def data_name(view: str) -> str:
    """Return the name of the row of a view's pipeline."""
    return f'data pipeline, {view} image, one core'


def data_rows(options: argparse.Namespace, count: int) -> Iterator[Row]:
    """Yield the training pipelines per image, on generated images."""

    def build(view: str) -> Run:
        cv2.setNumThreads(0)  # as in a worker of a data loader
        temporary = tempfile.TemporaryDirectory()
        folder = make_images(Path(temporary.name), options.stored, number=count)
        paths = [(str(path), make_mask(path, folder)) for path in sorted(folder.glob('*.jpg'))]
        consume_images = consume(our_images, paths, options.crop, view == 'labeled')
        return lambda: (consume_images(), temporary)  # the folder exists as long as this function

    for view in ('labeled', 'unlabeled'):
        yield Row(data_name(view), partial(build, view), calls=count, device='cpu')
