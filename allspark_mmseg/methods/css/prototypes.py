"""One representation for each class, which follows the student's slowly."""

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn


class ClassPrototypes(nn.Module):
    """A moving average, for each class, of the representations of its pixels; the same on all processes.

    A class is *seen* from the first step in which any process has a pixel of it; its prototype starts as
    that step's mean. Buffers, so that they are in the checkpoint: ``value`` (K, D) float, zeros before a
    class is seen, and ``seen`` (K,) bool.

    Args:
        num_classes: number of classes K.
        channels: length D of a representation.
        momentum: the new mean's share, as MMEngine counts it; 0.01 is a decay of 0.99.
    """

    def __init__(self, num_classes: int, channels: int, momentum: float = 0.01):
        super().__init__()
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(num_classes, channels))
        self.register_buffer('seen', torch.zeros(num_classes, dtype=torch.bool))

    def similarity(self, representations: Tensor) -> Tensor:
        """Cosine of representations and prototypes.

        Args:
            representations: (N, D, h, w).

        Returns:
            Tensor: (N, K, h, w) float32 in [-1, 1]; 0 for classes not seen.
        """
        unit = F.normalize(representations.float(), dim=1)
        with torch.autocast(unit.device.type, enabled=False):
            return torch.einsum('ndhw,kd->nkhw', unit, F.normalize(self.value, dim=1))

    def logits(self, similarity: Tensor, temperature: float) -> Tensor:
        """Logits among the classes seen.

        Args:
            similarity: (N, K, H, W), of ``similarity``, perhaps resized.
            temperature: by which similarities are divided.

        Returns:
            Tensor: (N, K, H, W), whose softmax is 0 for classes not seen, or 1 / K where none is.
        """
        hidden = ~self.seen & self.seen.any()
        return (similarity / temperature).masked_fill(hidden[:, None, None], -torch.inf)

    @torch.no_grad()
    def update(self, representations: Tensor, label: Tensor) -> None:
        """Follow the means over all processes of the classes that any of them has pixels of.

        Args:
            representations: (P, D) float32, of this process's pixels.
            label: (P,) int64, 0..K-1 or 255.
        """
        classes = torch.arange(len(self.seen), device=label.device)[:, None]
        members = (label == classes).to(representations.dtype)
        with torch.autocast(label.device.type, enabled=False):
            everywhere = torch.cat([members @ representations, members.sum(dim=1, keepdim=True)], dim=1)
        all_reduce(everywhere)
        sums, counts = everywhere[:, :-1], everywhere[:, -1:]
        mean = sums / counts.clamp(min=1)
        followed = torch.where(self.seen[:, None], self.value.lerp(mean, self.momentum), mean)
        self.value.copy_(torch.where(counts > 0, followed, self.value))
        self.seen.logical_or_(counts[:, 0] > 0)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        """Refuse prototypes of other classes, which MMEngine would skip with a warning."""
        stored = state_dict.get(prefix + 'value')
        if stored is not None and stored.shape != self.value.shape:
            raise ValueError(
                f'{prefix}value: the checkpoint holds prototypes (classes, channels) of '
                f'{tuple(stored.shape)}, this model has {tuple(self.value.shape)}. Set num_classes and '
                'representation_channels of the decode head to those of the checkpoint; to start with other '
                f'classes, remove {prefix}value and {prefix}seen from the checkpoint.'
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
