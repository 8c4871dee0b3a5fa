"""Reading what the released functions computed or drew, without a change to them."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import patched
from torch import Tensor

from .record import Vectors

Locals = dict[str, list[dict[str, Any]]]


@contextlib.contextmanager
def local_values(*functions: Callable) -> Iterator[Locals]:
    """Collect the local variables that functions hold when they return, by the functions' qualified names."""
    names = {function.__code__: function.__qualname__ for function in functions}
    seen: Locals = {name: [] for name in names.values()}
    outer = sys.getprofile()

    def profile(frame: FrameType, event: Any, arg: Any) -> None:
        if event == 'return' and frame.f_code in names:
            seen[names[frame.f_code]].append(dict(frame.f_locals))
        if outer:
            outer(frame, event, arg)

    sys.setprofile(profile)
    try:
        yield seen
    finally:
        sys.setprofile(outer)


def scripted_rand(flips: list[float] | None) -> Callable[..., Tensor]:
    """Return a ``torch.rand`` for the photometric step, which asks for jitter, blur and flip in turn.

    It allows no jitter and no blur. ``flips`` gives the answers for the flips; None draws them.
    """
    count = 0

    def rand(*args: object) -> Tensor:
        nonlocal count
        index, count = count, count + 1
        if index % 3 < 2:
            return torch.tensor([0.0])
        return torch.tensor([float(np.random.rand() if flips is None else flips[index // 3])])

    return rand


def row_bytes(row: Tensor) -> bytes:
    """Return the bytes of a row, by which it is recognized."""
    return row.contiguous().numpy().tobytes()


class ContrastTrace:
    """Finds the pixels that the released contrastive loss drew, from the arguments of the functions it calls.

    Args:
        losses: The module of the released losses.
        criterion: The released contrastive loss.
    """

    def __init__(self, losses: ModuleType, criterion: Any):
        self.forward = losses.Contrast_Loss.forward
        self.queries, self.negatives = criterion.num_queries, criterion.num_negatives
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.class_probs: list[Tensor] = []
        self.class_losses: list[float] = []
        self.seen: Locals = {}

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record the calls of the block."""
        cosine, cross_entropy = torch.cosine_similarity, F.cross_entropy
        categorical = torch.distributions.categorical.Categorical

        def record_cosine(a: Tensor, b: Tensor, dim: int) -> Tensor:
            self.pairs.append((a.detach(), b.detach()))
            return cosine(a, b, dim=dim)

        def record_categorical(probs: Tensor) -> Any:
            self.class_probs.append(probs)
            return categorical(probs=probs)

        def record_cross_entropy(a: Tensor, b: Tensor, **options: Any) -> Tensor:
            loss = cross_entropy(a, b, **options)
            if a.dim() == 2:
                self.class_losses.append(loss.item())
            return loss

        with (
            patched(torch, cosine_similarity=record_cosine),
            patched(torch.distributions.categorical, Categorical=record_categorical),
            patched(F, cross_entropy=record_cross_entropy),
            local_values(self.forward) as self.seen,
        ):
            yield

    def store(self, vectors: Vectors, name: str, rep: Tensor, prototypes: Tensor) -> None:
        """Store the draws as numbers of pixels and classes.

        Args:
            vectors: Where to store.
            name: Prefix of the keys.
            rep: Representations (N, D, H, W) that the loss received.
            prototypes: Prototypes (C, D) after the update.
        """
        classes, dim = len(prototypes), rep.shape[1]
        rows = rep.detach().permute(0, 2, 3, 1).reshape(-1, dim)
        pixel = {row_bytes(row): i for i, row in enumerate(rows)}
        klass = {row_bytes(row): c for c, row in enumerate(prototypes) if bool(row.any())}
        queries = -np.ones((classes, self.queries), int)
        negatives = -np.ones((classes, self.queries, self.negatives), int)
        probs, class_losses = np.zeros((classes, classes), np.float32), np.zeros(classes, np.float32)
        calls = zip(self.pairs[::2], self.pairs[1::2], self.class_probs, self.class_losses, strict=False)
        for (own, others), (anchors, candidates), class_probs, loss in calls:
            c = klass[row_bytes(own[0])]
            class_losses[c] = loss
            for other, prob in zip(others, class_probs, strict=False):
                probs[c, klass[row_bytes(other)]] = float(prob)
            queries[c] = [pixel[row_bytes(row)] for row in anchors[:, 0]]
            negatives[c] = [[pixel[row_bytes(row)] for row in per_query[1:]] for per_query in candidates]
        vectors.put_all(
            name,
            queries=queries,
            negatives=negatives,
            negative_class_prob=probs,
            class_loss=class_losses,
            valid_and_hard=self._counts(klass, classes),
        )

    def _counts(self, klass: dict[bytes, int], classes: int) -> np.ndarray:
        """Return the numbers of valid and of hard pixels of each class (C, 2)."""
        variables = self.seen[self.forward.__qualname__][0]
        counts = np.zeros((classes, 2), int)
        lists = (variables[key] for key in ('proto_rep_list', 'num_list', 'rep_hard_list'))
        for prototype, valid, hard in zip(*lists, strict=False):
            counts[klass[row_bytes(prototype[0])]] = valid, len(hard)
        return counts
