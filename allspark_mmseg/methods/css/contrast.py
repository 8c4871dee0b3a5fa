"""The contrastive loss of CSS: hard pixels drawn to their class's prototype, and away from other classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pseudo_label import IGNORE_INDEX

NOT_DRAWN = -1


def negative_classes(prototypes: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Probability with which a negative of a class's query comes from each other class present.

    Args:
        prototypes: (K, D).
        present: (K,) bool, the classes with pixels to draw from.
        temperature: of the softmax over the prototypes' cosines.

    Returns:
        Tensor: (K, K) float, p(column | row), rows summing to 1; 0 on the diagonal and for absent classes,
        unless no other class is present.
    """
    unit = F.normalize(prototypes, dim=1)
    cosine = unit @ unit.T
    excluded = ~present | torch.eye(len(present), dtype=torch.bool, device=present.device)
    return (cosine / temperature).masked_fill(excluded, torch.finfo(cosine.dtype).min).softmax(dim=1)


@torch.no_grad()
def draw(
    label: Tensor, hard: Tensor, negative_probability: Tensor, num_queries: int, num_negatives: int
) -> tuple[Tensor, Tensor]:
    """Draw each class's queries and their negatives, all with replacement, from the device's generator.

    A query is one of the class's hard pixels. A negative's class is drawn first, then one of that class's
    pixels, hard or not. Nothing waits for the device. Takes up to 50 K Q M bytes for the moment: 140 MB with
    K = 21, Q = 256, M = 512.

    Args:
        label: (P,) int64, 0..K-1 or 255.
        hard: (P,) bool.
        negative_probability: (K, K), from ``negative_classes``.
        num_queries: Q, for each class.
        num_negatives: M, for each query.

    Returns:
        tuple: pixel numbers in 0..P-1, int64: queries (K, Q) and negatives (K, Q, M). -1 for a class without
        a hard pixel, and for all where only one class has pixels.
    """
    num_classes, device = len(negative_probability), label.device

    def chance(count: int) -> Tensor:
        # float64: in float32 a draw below 1 could round up to the end of its range
        return torch.rand(num_classes, count, device=device, dtype=torch.float64)

    hard_label = label.masked_fill(~hard, IGNORE_INDEX)
    own = torch.arange(num_classes, device=device)[:, None]
    queries = _pick(hard_label, num_classes, own, chance(num_queries))

    # a product rather than cumsum, which CUDA lacks in deterministic mode
    probability = negative_probability.double()
    cumulative = probability @ torch.ones_like(probability).triu()
    along = chance(num_queries * num_negatives) * cumulative[:, -1:]
    classes = torch.searchsorted(cumulative, along, right=True).clamp(max=num_classes - 1)
    negatives = _pick(label, num_classes, classes, chance(num_queries * num_negatives))

    several = (class_counts(label, num_classes) > 0).sum() > 1
    drawn = (class_counts(hard_label, num_classes) > 0) & several
    queries = queries.masked_fill(~drawn[:, None], NOT_DRAWN)
    negatives = negatives.masked_fill(~drawn[:, None], NOT_DRAWN)
    return queries, negatives.unflatten(1, (num_queries, num_negatives))


def class_counts(label: Tensor, num_classes: int) -> Tensor:
    """(K,) int64: number of pixels of each class in labels of any shape, 0..K-1 or 255."""
    # not bincount, which waits for the device
    return (label.flatten() == torch.arange(num_classes, device=label.device)[:, None]).sum(dim=1)


def _pick(label: Tensor, num_classes: int, classes: Tensor, chance: Tensor) -> Tensor:
    """A pixel of each class in ``classes``, by a chance in [0, 1) of the same shape; any, if it has none."""
    order = label.argsort(stable=True)  # by class, 255 last
    counts = class_counts(label, num_classes)
    first = counts.cumsum(0) - counts
    place = first[classes] + (chance * counts[classes]).long()
    return order[place.clamp(max=len(label) - 1)]


def contrastive_loss(
    representations: Tensor,
    prototypes: Tensor,
    present: Tensor,
    queries: Tensor,
    negatives: Tensor,
    temperature: float,
) -> Tensor:
    r"""Contrast queries with their class's prototype and with negatives (CSS; after ReCo, ICLR 2022).

    .. math::

        L = \frac{1}{|\{present\}|} \sum_{c\ drawn} \frac{1}{Q} \sum_q
            -\log \frac{e^{\cos(z_q, p_c) / \tau}}
                       {e^{\cos(z_q, p_c) / \tau} + \sum_m e^{\cos(z_q, z_{q m}) / \tau}}

    Only the queries have a gradient. Kept for the backward pass: the normalized representations, 4 P D
    bytes, and about 20 K Q M bytes of indices and similarities. The similarities of a class's queries to all
    pixels take 4 Q P bytes for the moment (69 MB with Q = 256 and 16 crops of 65 x 65).

    Args:
        representations: (P, D) float, of any length.
        prototypes: (K, D).
        present: (K,) bool, the classes with pixels.
        queries: (K, Q) int64, from ``draw``.
        negatives: (K, Q, M) int64, from ``draw``.
        temperature: tau.

    Returns:
        Tensor: scalar; 0, with a gradient of zeros, where no class is drawn.
    """
    drawn = queries[:, 0] != NOT_DRAWN
    query = F.normalize(representations[queries.clamp(min=0)], dim=2)  # (K, Q, D)
    rows = F.normalize(representations.detach(), dim=1)
    positive = (query * F.normalize(prototypes, dim=1)[:, None]).sum(dim=2, keepdim=True)
    negative = _GatheredProducts.apply(query, rows, negatives.clamp(min=0))
    similarity = torch.cat([positive, negative], dim=2) / temperature  # (K, Q, 1 + M)
    of_class = (similarity.logsumexp(dim=2) - similarity[..., 0]).mean(dim=1)
    return (of_class * drawn).sum() / present.sum().clamp(min=1)


class _GatheredProducts(torch.autograd.Function):
    """Products of queries (K, Q, D) with gathered rows, (K, Q, M), without gathering (K, Q, M, D) numbers.

    All products of a class, and then a choice among them, are several times faster than copying the rows,
    and so is a fused weighted sum on the way back, where autograd would scatter. The rows get no gradient.
    """

    @staticmethod
    def forward(ctx, queries: Tensor, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(rows, index)
        return torch.stack([(query @ rows.T).gather(1, of) for query, of in zip(queries, index, strict=True)])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, index = ctx.saved_tensors
        bags, weights = index.flatten(0, 1), grad.flatten(0, 1)
        summed = F.embedding_bag(bags, rows, per_sample_weights=weights, mode='sum')
        return summed.unflatten(0, index.shape[:2]), None, None
