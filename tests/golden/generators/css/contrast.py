"""Vectors of CSS's prototypes and contrastive loss (``generalframeworks/loss/loss.py``)."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .record import Draws, Vectors
from .reference import Reference, seed_global_generators
from .tracing import ContrastTrace

CLASSES, DIM = 6, 8
# classes with a valid pixel, and classes without a hard pixel, in five chained steps
CHAIN: list[tuple[list[int], list[int]]] = [
    ([0, 1, 2, 3], [3]),
    ([0, 1, 2, 4], []),
    ([2], []),
    ([0, 1, 2, 3, 4], [0]),
    ([], []),
]


class ContrastInputs(NamedTuple):
    """Arguments of the contrastive loss.

    ``rep`` (N, D, H, W), ``onehot`` (N, C, H, W), ``mask`` (N, 1, H, W) and ``prob`` (N, C, H, W).
    """

    rep: Tensor
    onehot: Tensor
    mask: Tensor
    prob: Tensor


def draw_inputs(
    draws: Draws, present: list[int], n: int = 4, threshold: float = 0.75, easy: tuple | list = ()
) -> ContrastInputs:
    """Draw inputs in which every class of ``present`` has a valid and a hard pixel.

    Args:
        draws: Source of the random numbers.
        present: The classes.
        n: Number of images.
        threshold: Threshold of hard pixels; one pixel lies exactly on it, which makes it easy.
        easy: Classes without a hard pixel.
    """
    size = 4
    rep = draws.grid(n, DIM, size, size) + 0.5
    label = torch.zeros(n, size, size, dtype=torch.long)
    mask = torch.zeros(n, 1, size, size)
    if present:
        label = draws.regions(n, size, size, present)
    onehot = F.one_hot(label, CLASSES).permute(0, 3, 1, 2).float()
    if present:
        mask = (draws.uniform(n, 1, size, size) < 0.85).float()
    for k, c in enumerate(present):
        onehot[k % n, :, k // n, 1] = 0
        onehot[k % n, c, k // n, 1] = 1
        mask[k % n, 0, k // n, 1] = 1
    prob = torch.softmax(onehot * 3.0 + draws.grid(n, CLASSES, size, size), 1)
    for k, c in enumerate(present):
        prob[k % n, c, k // n, 1] = 0.25
    for c in easy:
        prob[:, c] = prob[:, c].clamp(min=0.9)
    b, i, j = (indices[-1] for indices in torch.where(onehot.argmax(1) == label))
    prob[b, label[b, i, j], i, j] = threshold
    if present:
        mask[b, 0, i, j] = 1
    return ContrastInputs(rep, onehot, mask, prob)


def as_bytes(inputs: ContrastInputs) -> dict[str, Tensor]:
    """Return the inputs as they are stored: one-hot labels and masks in uint8."""
    return dict(
        rep=inputs.rep,
        onehot=inputs.onehot.to(torch.uint8),
        mask=inputs.mask.to(torch.uint8),
        prob=inputs.prob,
    )


def record_contrast(
    reference: Reference,
    vectors: Vectors,
    name: str,
    criterion: Any,
    inputs: ContrastInputs,
    prototypes: Tensor,
) -> Tensor:
    """Run the released loss, which updates ``prototypes`` (C, D) in place; return the loss."""
    vectors.put_all(name, **as_bytes(inputs), prototypes_before=prototypes)
    rep = inputs.rep.clone().requires_grad_(True)
    trace = ContrastTrace(reference.losses, criterion)
    with trace.recording():
        loss = criterion(rep, *inputs[1:], prototypes)
    if loss.requires_grad:
        loss.backward()
    trace.store(vectors, name, rep, prototypes)
    vectors.put_all(name, loss=loss.item(), prototypes_after=prototypes.clone())
    vectors.put(f'{name}.grad_rep', torch.zeros_like(rep) if rep.grad is None else rep.grad)
    return loss


def make_criterion(
    reference: Reference,
    queries: int,
    negatives: int,
    temperature: float = 0.5,
    threshold: float = 0.75,
    alpha: float = 0.99,
) -> Any:
    """Build the released contrastive loss."""
    return reference.losses.Contrast_Loss(
        num_queries=queries,
        num_negatives=negatives,
        temp=temperature,
        strong_threshold=threshold,
        alpha=alpha,
    )


def record_constants(
    vectors: Vectors, name: str, queries: int, negatives: int, tau: float, threshold: float, alpha: float
) -> None:
    """Store the constants of a contrastive loss."""
    vectors.put_all(
        name,
        queries_per_class=queries,
        negatives_per_query=negatives,
        tau_c=tau,
        strong_threshold=threshold,
        alpha=alpha,
    )


def record_chain(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record five steps that share their prototypes, and a step with other constants."""
    prototypes = torch.zeros(CLASSES, DIM)
    constants = (8, 10, 0.5, 0.75, 0.99)
    criterion = make_criterion(reference, *constants)
    record_constants(vectors, 'contrast', *constants)
    for t, (present, easy) in enumerate(CHAIN):
        inputs = draw_inputs(draws, present, easy=easy)
        record_contrast(reference, vectors, f'contrast.{t}', criterion, inputs, prototypes)

    prototypes = draws.grid(CLASSES, DIM)
    prototypes[4] = 0
    constants = (5, 16, 0.1, 0.9375, 0.9)
    criterion = make_criterion(reference, *constants)
    record_constants(vectors, 'contrast_b', *constants)
    inputs = draw_inputs(draws, [1, 2, 4, 5], threshold=0.9375)
    record_contrast(reference, vectors, 'contrast_b', criterion, inputs, prototypes)


def record_special_cases(reference: Reference, vectors: Vectors, draws: Draws) -> Any:
    """Record a step without hard pixels, and a stored prototype that is not zero but sums to zero.

    Returns:
        The criterion, which ``record_two_ranks`` also uses.
    """
    criterion = make_criterion(reference, 4, 6)
    inputs = draw_inputs(draws, [0, 2])
    prototypes = draws.grid(CLASSES, DIM)
    inputs = inputs._replace(prob=inputs.prob.clamp(min=0.85))
    name = 'as_released.contrast_all_easy'
    loss = record_contrast(reference, vectors, name, criterion, inputs, prototypes)
    vectors.put(f'{name}.loss_has_graph', bool(loss.requires_grad))

    prototypes = draws.grid(CLASSES, DIM)
    prototypes[2] = torch.tensor([1.0, -1.0] * (DIM // 2))
    name = 'as_released.contrast_sum_zero_prototype'
    record_contrast(reference, vectors, name, criterion, draw_inputs(draws, [0, 2]), prototypes)
    return criterion


def record_two_ranks(
    reference: Reference,
    vectors: Vectors,
    draws: Draws,
    seed: int,
    criterion: Any,
    name: str,
    present: tuple[list[int], list[int]],
) -> None:
    """Record a step on two ranks, whose classes with valid pixels are ``present``."""
    inputs = [draw_inputs(draws, classes, n=2) for classes in present]
    start = draws.grid(CLASSES, DIM)
    start[1] = 0

    def run(rank: int) -> tuple[ContrastTrace, Tensor, Tensor, Tensor]:
        seed_global_generators(seed + rank)
        prototypes, rep = start.clone(), inputs[rank].rep.clone().requires_grad_(True)
        trace = ContrastTrace(reference.losses, criterion)
        with trace.recording():
            loss = criterion(rep, *inputs[rank][1:], prototypes)
        if loss.requires_grad:
            loss.backward()
        return trace, rep, prototypes, loss

    vectors.put(f'{name}.prototypes_before', start)
    for rank, (trace, rep, prototypes, loss) in enumerate(reference.world.run_on_two_ranks(run)):
        prefix = f'{name}.rank{rank}'
        vectors.put_all(prefix, **as_bytes(inputs[rank]))
        vectors.put_all(prefix, prototypes_after=prototypes, loss=loss.item(), grad_rep=rep.grad)
        trace.store(vectors, prefix, rep, prototypes)


def record_group(reference: Reference, vectors: Vectors, draws: Draws, seed: int) -> None:
    """Record everything about prototypes and contrast."""
    record_chain(reference, vectors, draws)
    criterion = record_special_cases(reference, vectors, draws)
    for name, present in (
        ('two_ranks', ([0, 1, 2], [0, 1, 2])),
        ('as_released.two_ranks_local_classes', ([0, 1], [1, 2])),
    ):
        record_two_ranks(reference, vectors, draws, seed, criterion, name, present)
    seed_global_generators(seed)
