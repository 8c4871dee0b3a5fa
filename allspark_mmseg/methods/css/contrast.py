"""The contrastive loss of CSS. It pulls hard pixels toward the prototype of their class."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pseudo_label import IGNORE_INDEX

NOT_DRAWN = -1


def negative_classes(prototypes: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Compute the probability of each class of a negative, for queries of each class.

    Args:
        prototypes (Tensor): (K, D) float.
        present (Tensor): (K,) bool, True for classes that have pixels.
        temperature (float): Temperature of the softmax over the cosines of the prototypes.

    Returns:
        Tensor: (K, K) float, p(column | row); rows sum to 1. It is 0 on the diagonal and for absent classes,
        unless no other class is present.
    """
    unit = F.normalize(prototypes, dim=1)
    cosine = unit @ unit.T
    excluded = ~present | torch.eye(len(present), dtype=torch.bool, device=present.device)
    return (cosine / temperature).masked_fill(excluded, torch.finfo(cosine.dtype).min).softmax(dim=1)


@torch.no_grad()
def draw_pixels(
    label: Tensor, hard: Tensor, negative_probability: Tensor, num_queries: int, num_negatives: int
) -> tuple[Tensor, Tensor]:
    """Draw queries of each class and their negatives, with replacement, from the device's global generator.

    A query is a hard pixel of its class. The class of a negative is drawn first, then a pixel of that class,
    hard or not. There is no device synchronization. The temporary memory is up to 50 K Q M bytes: 140 MB for
    K = 21, Q = 256, M = 512.

    Args:
        label (Tensor): (P,) int64, in 0..K-1, or 255.
        hard (Tensor): (P,) bool.
        negative_probability (Tensor): (K, K) float, from ``negative_classes``.
        num_queries (int): Q, queries per class.
        num_negatives (int): M, negatives per query.

    Returns:
        tuple[Tensor, Tensor]: Pixel indices in 0..P-1, int64: queries (K, Q) and negatives (K, Q, M). They
        are -1 for a class without a hard pixel, and for every class if only one class has pixels.
    """
    num_classes, device = len(negative_probability), label.device

    def uniform(count: int) -> Tensor:
        # float64: in float32 a product could round up to the end of its range
        return torch.rand(num_classes, count, device=device, dtype=torch.float64)

    hard_label = label.masked_fill(~hard, IGNORE_INDEX)
    own = torch.arange(num_classes, device=device)[:, None]
    queries = _pick_pixel(hard_label, num_classes, own, uniform(num_queries))

    # a matrix product instead of cumsum, which has no deterministic algorithm on CUDA
    probability = negative_probability.double()
    cumulative = probability @ torch.ones_like(probability).triu()
    position = uniform(num_queries * num_negatives) * cumulative[:, -1:]
    classes = torch.searchsorted(cumulative, position, right=True).clamp(max=num_classes - 1)
    negatives = _pick_pixel(label, num_classes, classes, uniform(num_queries * num_negatives))

    several = (class_counts(label, num_classes) > 0).sum() > 1
    drawn = (class_counts(hard_label, num_classes) > 0) & several
    queries = queries.masked_fill(~drawn[:, None], NOT_DRAWN)
    negatives = negatives.masked_fill(~drawn[:, None], NOT_DRAWN)
    return queries, negatives.unflatten(1, (num_queries, num_negatives))


def class_counts(label: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of each class.

    Args:
        label (Tensor): (...) int64, in 0..K-1, or 255.
        num_classes (int): Number of classes K.

    Returns:
        Tensor: (K,) int64.
    """
    # not bincount, which synchronizes with the device
    return (label.flatten() == torch.arange(num_classes, device=label.device)[:, None]).sum(dim=1)


def _pick_pixel(label: Tensor, num_classes: int, classes: Tensor, uniform: Tensor) -> Tensor:
    """Pick a pixel of each class in ``classes`` (K, n), by ``uniform`` (K, n) in [0, 1).

    A class without pixels gets an arbitrary pixel.
    """
    order = label.argsort(stable=True)  # by class, 255 last
    counts = class_counts(label, num_classes)
    first = counts.cumsum(0) - counts
    position = first[classes] + (uniform * counts[classes]).long()
    return order[position.clamp(max=len(label) - 1)]


def contrastive_loss(
    representations: Tensor,
    prototypes: Tensor,
    present: Tensor,
    queries: Tensor,
    negatives: Tensor,
    temperature: float,
) -> Tensor:
    r"""Compute the contrast of queries with their class's prototype and with negatives.

    The loss is that of the release of CSS, after ReCo (ICLR 2022):

    .. math::

        L = \frac{1}{|\{present\}|} \sum_{c\ drawn} \frac{1}{Q} \sum_q
            -\log \frac{e^{\cos(z_q, p_c) / \tau}}
                       {e^{\cos(z_q, p_c) / \tau} + \sum_m e^{\cos(z_q, z_{q m}) / \tau}}

    Only the queries have a gradient. The backward pass keeps the normalized representations (4 P D bytes) and
    indices and similarities (about 20 K Q M bytes). The similarities of the queries of a class to all pixels
    take 4 Q P bytes temporarily: 69 MB for Q = 256 and 16 crops of 65 x 65.

    Args:
        representations (Tensor): (P, D) float, of any norm.
        prototypes (Tensor): (K, D) float.
        present (Tensor): (K,) bool, True for classes that have pixels.
        queries (Tensor): (K, Q) int64, from ``draw_pixels``.
        negatives (Tensor): (K, Q, M) int64, from ``draw_pixels``.
        temperature (float): tau.

    Returns:
        Tensor: Scalar; 0 with a zero gradient when no class is drawn.
    """
    drawn = queries[:, 0] != NOT_DRAWN
    query = F.normalize(representations[queries.clamp(min=0)], dim=2)  # (K, Q, D)
    rows = F.normalize(representations.detach(), dim=1)  # (P, D)
    positive = (query * F.normalize(prototypes, dim=1)[:, None]).sum(dim=2, keepdim=True)  # (K, Q, 1)
    negative = _GatheredProducts.apply(query, rows, negatives.clamp(min=0))  # (K, Q, M)
    similarity = torch.cat([positive, negative], dim=2) / temperature
    per_class = (similarity.logsumexp(dim=2) - similarity[..., 0]).mean(dim=1)  # (K,)
    return (per_class * drawn).sum() / present.sum().clamp(min=1)


class _GatheredProducts(torch.autograd.Function):
    """Inner products of queries with gathered rows, without a copy (K, Q, M, D) of the rows.

    Computing all products of a class and then gathering them is several times faster than gathering the rows.
    In the backward pass, a fused weighted sum replaces the scatter of autograd. The rows get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, rows: Tensor, index: Tensor) -> Tensor:
        """Return (K, Q, M) from queries (K, Q, D), rows (P, D) and index (K, Q, M)."""
        ctx.save_for_backward(rows, index)
        return torch.stack(
            [(query @ rows.T).gather(1, chosen) for query, chosen in zip(queries, index, strict=True)]
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient (K, Q, D) of the queries."""
        rows, index = ctx.saved_tensors
        bags, weights = index.flatten(0, 1), grad.flatten(0, 1)
        summed = F.embedding_bag(bags, rows, per_sample_weights=weights, mode='sum')
        return summed.unflatten(0, index.shape[:2]), None, None
