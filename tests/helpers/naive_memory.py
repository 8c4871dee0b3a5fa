"""AllSpark's memory, one write at a time."""

import torch


class NaiveMemory:
    """The ring buffers of the paper."""

    def __init__(self, rows: torch.Tensor):
        self.rows = rows.clone()
        self.pointer = [0] * len(rows)
        self.written = [0] * len(rows)

    def update(self, tokens: torch.Tensor, classes: torch.Tensor) -> None:
        capacity = self.rows.shape[1]
        for image, owners in zip(tokens, classes.tolist(), strict=True):
            for channel, owner in enumerate(owners):
                self.rows[owner, self.pointer[owner]] = image[:, channel]
                self.pointer[owner] = (self.pointer[owner] + 1) % capacity
                self.written[owner] = min(self.written[owner] + 1, capacity)
