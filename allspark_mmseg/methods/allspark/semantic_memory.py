"""Class-wise memory of unlabeled channels (AllSpark, arXiv 2403.01818, section 3.3)."""

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn


class SemanticMemory(nn.Module):
    """A first-in-first-out ring buffer of channels for each class.

    A row is one channel of one unlabeled image: its value at each position. Reading also returns rows that
    are not written yet. They hold standard normal noise, as released, or zeros.

    The buffers are ``rows`` (K, D, N) float, ``pointer`` (K,) int64 and ``written`` (K,) int64. ``pointer``
    is the slot for the next channel of each class. ``written`` is the number of rows that hold channels.

    Args:
        num_classes (int): Number of classes K.
        channels (int): Rows per class D, the width of the bottleneck.
        num_tokens (int): Length N of a row: the positions of the feature map of a training crop.
        init (str): ``'noise'`` or ``'zeros'``.
    """

    rows: Tensor
    pointer: Tensor
    written: Tensor

    def __init__(self, num_classes: int, channels: int, num_tokens: int, *, init: str = 'noise') -> None:
        super().__init__()
        make = torch.randn if init == 'noise' else torch.zeros
        self.register_buffer('rows', make(num_classes, channels, num_tokens))
        self.register_buffer('pointer', torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer('written', torch.zeros(num_classes, dtype=torch.int64))
        self._copy_on_write = False

    @property
    def filled(self) -> Tensor:
        """(K,) float in [0, 1]: the share of each class's rows that hold channels."""
        return self.written / self.rows.shape[1]

    @torch.no_grad()
    def update(self, tokens: Tensor, classes: Tensor) -> None:
        """Write every channel to the ring of its class: image by image, channel by channel.

        There is no loop over classes and no device synchronization. If a class gets more channels than its
        ring holds, several writes go to the same slot. All of them write the last channel of this slot, so
        their order does not matter.

        Args:
            tokens (Tensor): (B, N, D) float, the unlabeled tokens.
            classes (Tensor): (B, D) int64, the class of each channel, in 0..K-1.
        """
        if self._copy_on_write:  # a backward pass may still need the rows that were read
            self.rows = self.rows.clone()
            self._copy_on_write = False
        _, capacity, num_tokens = self.rows.shape
        incoming = tokens.transpose(1, 2).reshape(-1, num_tokens).to(self.rows.dtype)  # (B, N, D) -> (B*D, N)
        owner = classes.flatten()
        count = torch.zeros_like(self.pointer).scatter_add_(0, owner, torch.ones_like(owner))  # (K,)
        group, order = owner.sort(stable=True)  # by class, in the order of arrival
        first = (count.cumsum(0) - count)[group]
        arrival = torch.arange(len(owner), device=owner.device) - first
        slot = group * capacity + (self.pointer[group] + arrival) % capacity
        last = arrival + (count[group] - 1 - arrival) // capacity * capacity
        self.rows.view(-1, num_tokens).index_copy_(0, slot, incoming.index_select(0, order[first + last]))
        self.pointer.add_(count).remainder_(capacity)
        self.written.add_(count).clamp_(max=capacity)

    def read(self) -> Tensor:
        """Return the rows (K, D, N). Do not write to them; later updates do not change them."""
        self._copy_on_write = True
        return self.rows

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Keep the new memory, and log it, when the stored one has another shape (another crop)."""
        stored = state_dict.get(prefix + 'rows')
        if stored is not None and stored.shape != self.rows.shape:
            print_log(
                f'{prefix}rows: the checkpoint holds a memory (classes, channels, positions) of '
                f'{tuple(stored.shape)}, this model has {tuple(self.rows.shape)}. The stored memory is '
                'dropped; training would start with an empty one. Prediction does not use it.',
                logger='current',
                level=logging.WARNING,
            )
            for name, value in self.named_buffers():
                state_dict[prefix + name] = value.clone()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
