"""Commands ``bottleneck`` and ``memory``: AllSpark's bottleneck and the update of its semantic memory."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor

from allspark_mmseg.methods.allspark import AllSparkBottleneck, SemanticMemory

from .measure import Case
from .networks import autocast, sizes
from .plain_bottleneck import PlainBottleneck, plain_memory_update

TOLERANCE = 1e-4
Bottleneck = type[AllSparkBottleneck] | type[PlainBottleneck]


def bottleneck(options: argparse.Namespace) -> Iterator[Case]:
    """Compare forward and backward pass of the bottleneck, with memory.

    Raises:
        SystemExit: The two sides do not agree.
    """
    if options.side is None:
        check_agreement(options)
    passes = [('fp32', 'fp32', 0.0), ('fp32', 'fp32', 0.1), ('bf16', 'fp32', 0.1)]
    if options.dtype or options.dropout is not None:
        dtype = options.dtype or 'fp32'
        passes = [(dtype, dtype, 0.1 if options.dropout is None else options.dropout)]
    for ours, reference, p in passes:
        dtypes = ours if ours == reference else f'ours {ours}, reference {reference}'
        yield Case(
            f'bottleneck {sizes(options)}, dropout {p:g}, {dtypes}',
            ours=partial(bottleneck_pass, AllSparkBottleneck, options, ours, p),
            reference=partial(bottleneck_pass, PlainBottleneck, options, reference, p),
        )


def bottleneck_pass(
    kind: Bottleneck,
    options: argparse.Namespace,
    dtype: str,
    dropout: float,
    state: Mapping[str, Tensor] | None = None,
) -> Callable[[], tuple[Tensor, Tensor]]:
    """Build a bottleneck and its inputs.

    Args:
        kind (type): Class of the bottleneck.
        options (Namespace): Sizes and device.
        dtype (str): Key of ``DTYPES``.
        dropout (float): Dropout of the bottleneck.
        state (Mapping, optional): State dict to load.

    Returns:
        Callable: Runs forward and backward pass and returns the output and the gradient of the feature, both
        ``(N_l + N_u, C, h, w)``.
    """
    torch.manual_seed(0)
    labeled, unlabeled = options.images
    side, decoded = -(-options.crop // 32), -(-options.crop // 4)
    feature = torch.randn(labeled + unlabeled, options.channels, side, side, device=options.device)
    logits = torch.randn(unlabeled, options.classes, decoded, decoded, device=options.device)
    direction = torch.randn_like(feature)
    net = kind(options.channels, options.classes, crop_size=options.crop, dropout=dropout)
    if state is not None:
        net.load_state_dict(state)
    net.to(options.device).train()

    def run() -> tuple[Tensor, Tensor]:
        net.zero_grad()
        leaf = feature.detach().requires_grad_()
        with autocast(options.device, dtype):
            out = net.forward_semi(leaf, labeled, logits, read_memory=True)
        out.backward(direction.to(out.dtype))
        return out.detach(), cast(Tensor, leaf.grad)

    return run


def check_agreement(options: argparse.Namespace) -> None:
    """Compare outputs and gradients of both bottlenecks in float32, without dropout.

    Raises:
        SystemExit: They differ by more than ``TOLERANCE``, relative to the largest value.
    """
    allow_tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    torch.manual_seed(1)
    state = AllSparkBottleneck(options.channels, options.classes, crop_size=options.crop).state_dict()
    ours = bottleneck_pass(AllSparkBottleneck, options, 'fp32', 0.0, state)()
    reference = bottleneck_pass(PlainBottleneck, options, 'fp32', 0.0, state)()
    torch.backends.cudnn.allow_tf32 = allow_tf32
    output, gradient = (
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, reference, strict=True)
    )
    difference = f'output {output:.1e}, gradient {gradient:.1e}, relative to the largest value'
    if not max(output, gradient) <= TOLERANCE:
        raise SystemExit(
            f'bottleneck: ours and the reference differ ({difference}); expected at most {TOLERANCE:g}.'
        )
    print(f'Largest difference of the two sides (fp32, dropout 0): {difference}.')


def memory(options: argparse.Namespace) -> Iterator[Case]:
    """Compare the update of the semantic memory with the unlabeled channels of one step."""

    def update(*, plain: bool) -> Callable[[], None]:
        torch.manual_seed(0)
        unlabeled, positions = options.images[1], (-(-options.crop // 32)) ** 2
        ring = SemanticMemory(options.classes, options.channels, positions).to(options.device)
        tokens = torch.randn(unlabeled, positions, options.channels, device=options.device)
        classes = torch.randint(options.classes, (unlabeled, options.channels), device=options.device)
        if plain:
            rows, pointer = ring.get_buffer('rows'), ring.get_buffer('pointer')
            return lambda: plain_memory_update(rows, pointer, tokens, classes)
        return lambda: ring.update(tokens, classes)

    name = f'memory update {sizes(options)}'
    yield Case(name, ours=lambda: update(plain=False), reference=lambda: update(plain=True))
