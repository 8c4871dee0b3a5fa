"""Class-wise memory of unlabeled channel features (AllSpark, section 3.3)."""

import torch
from mmengine.logging import print_log
from torch import Tensor, nn


class SemanticMemory(nn.Module):
    """A first-in-first-out ring of ``channels`` rows for each class.

    A row is one channel of one unlabeled image: its value at each of the ``num_tokens`` positions.
    Rows are attended to before they are written, too; they start as standard normal noise, as released, or
    as zeros.

    Args:
        num_classes: number of classes K.
        channels: rows for each class, D (the width of the bottleneck).
        num_tokens: length N of a row: positions of the deepest feature map of a training crop.
        init: ``'noise'`` or ``'zeros'``.
    """

    def __init__(self, num_classes: int, channels: int, num_tokens: int, *, init: str = 'noise'):
        super().__init__()
        make = torch.randn if init == 'noise' else torch.zeros
        self.register_buffer('rows', make(num_classes, channels, num_tokens))
        self._lent = False
        self.register_buffer('pointer', torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer('written', torch.zeros(num_classes, dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """(K,) float in [0, 1]: the share of each class's rows that hold features, not noise."""
        return self.written / self.rows.shape[1]

    @torch.no_grad()
    def update(self, tokens: Tensor, classes: Tensor) -> None:
        """Write every channel to the ring of its class: images in order, then channels in order.

        No loop over classes and no wait for the device: where more channels of a class arrive than its
        ring holds, all that meet in one slot write the last one's row, so their order does not matter.

        Args:
            tokens: (B, N, D) float, the unlabeled tokens.
            classes: (B, D) int64, the class of each channel, 0..K-1.
        """
        if self._lent:  # a backward pass may still need what was read
            self.rows = self.rows.clone()
            self._lent = False
        _, capacity, num_tokens = self.rows.shape
        incoming = tokens.transpose(1, 2).reshape(-1, num_tokens).to(self.rows.dtype)  # (B, N, D) -> (B*D, N)
        owner = classes.flatten()
        count = torch.zeros_like(self.pointer).scatter_add_(0, owner, torch.ones_like(owner))  # (K,)
        group, order = owner.sort(stable=True)  # by class, the order of arrival kept
        first = (count.cumsum(0) - count)[group]
        arrival = torch.arange(len(owner), device=owner.device) - first
        slot = group * capacity + (self.pointer[group] + arrival) % capacity
        last = arrival + (count[group] - 1 - arrival) // capacity * capacity
        self.rows.view(-1, num_tokens).index_copy_(0, slot, incoming.index_select(0, order[first + last]))
        self.pointer.add_(count).remainder_(capacity)
        self.written.add_(count).clamp_(max=capacity)

    def read(self) -> Tensor:
        """Return the memory.

        Returns:
            Tensor: (K, D, N), not to be written to; later updates do not reach it.
        """
        self._lent = True
        return self.rows

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        """Keep the fresh memory, with a notice, when the stored one has another shape (another crop)."""
        stored = state_dict.get(prefix + 'rows')
        if stored is not None and stored.shape != self.rows.shape:
            print_log(
                f'{prefix}rows: the checkpoint holds a memory (classes, channels, positions) of '
                f'{tuple(stored.shape)}, this model has {tuple(self.rows.shape)}: the stored memory is '
                'dropped and training would start with an empty one. Prediction does not use it.',
                logger='current',
                level=30,
            )
            for name, value in self.named_buffers():
                state_dict[prefix + name] = value.clone()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
