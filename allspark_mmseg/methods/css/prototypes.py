"""Class prototypes: moving averages of the representations of each class."""

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn


class ClassPrototypes(nn.Module):
    """Moving averages of the representations of each class, equal on all processes.

    A class is *seen* from the first step in which any process has a pixel of it; its prototype starts as the
    mean of that step. The buffers are ``value`` (K, D) float, 0 for classes not seen, and ``seen`` (K,) bool.

    Args:
        num_classes (int): Number of classes K.
        channels (int): Length D of a representation.
        momentum (float): Share of the new mean, in (0, 1]; 0.01 is a decay of 0.99.
    """

    value: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, channels: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(num_classes, channels))
        self.register_buffer('seen', torch.zeros(num_classes, dtype=torch.bool))

    def similarity(self, representations: Tensor) -> Tensor:
        """Compute the cosines of representations and prototypes.

        Args:
            representations (Tensor): (N, D, h, w) float.

        Returns:
            Tensor: (N, K, h, w) float32 in [-1, 1]; 0 for classes not seen.
        """
        unit = F.normalize(representations.float(), dim=1)
        with torch.autocast(unit.device.type, enabled=False):
            return torch.einsum('ndhw,kd->nkhw', unit, F.normalize(self.value, dim=1))

    def logits(self, similarity: Tensor, temperature: float) -> Tensor:
        """Turn similarities into logits of the classes seen.

        Args:
            similarity (Tensor): (N, K, H, W) float, from ``similarity``, of any resolution.
            temperature (float): Divides the similarities.

        Returns:
            Tensor: (N, K, H, W) float, -inf for classes not seen, unless no class is seen.
        """
        hidden = ~self.seen & self.seen.any()
        return (similarity / temperature).masked_fill(hidden[:, None, None], -torch.inf)

    def softmax_similarity(self, representations: Tensor, temperature: float) -> Tensor:
        """Compute the softmax of the similarities over the classes seen.

        Args:
            representations (Tensor): (N, D, h, w) float.
            temperature (float): Divides the similarities.

        Returns:
            Tensor: (N, K, h, w) float32 probabilities; 0 for classes not seen, or 1 / K if no class is seen.
        """
        return self.logits(self.similarity(representations), temperature).softmax(dim=1)

    @torch.no_grad()
    def update(self, representations: Tensor, label: Tensor) -> None:
        """Move the prototypes toward the class means over the pixels of all processes.

        Args:
            representations (Tensor): (P, D) float32, of the pixels of this process.
            label (Tensor): (P,) int64, in 0..K-1, or 255.
        """
        classes = torch.arange(len(self.seen), device=label.device)[:, None]
        members = (label == classes).to(representations.dtype)  # (K, P)
        with torch.autocast(label.device.type, enabled=False):
            sums_and_counts = torch.cat([members @ representations, members.sum(dim=1, keepdim=True)], dim=1)
        all_reduce(sums_and_counts)
        sums, counts = sums_and_counts[:, :-1], sums_and_counts[:, -1:]
        mean = sums / counts.clamp(min=1)
        average = torch.where(self.seen[:, None], self.value.lerp(mean, self.momentum), mean)
        self.value.copy_(torch.where(counts > 0, average, self.value))
        self.seen.logical_or_(counts[:, 0] > 0)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Raise ``ValueError`` for prototypes of another shape, which MMEngine would skip with a warning."""
        stored = state_dict.get(prefix + 'value')
        if stored is not None and stored.shape != self.value.shape:
            raise ValueError(
                f'{prefix}value: the checkpoint holds prototypes (classes, channels) of '
                f'{tuple(stored.shape)}, this model has {tuple(self.value.shape)}. Set num_classes and '
                'representation_channels of the decode head to those of the checkpoint; to start with other '
                f'classes, remove {prefix}value and {prefix}seen from the checkpoint.'
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
