"""The AllSpark bottleneck, written exactly as its formulas, without optimization of time or memory.

``python -m benchmarks bottleneck`` compares the package's bottleneck with this one, and the tests use it as a
reference. It computes the same as the authors' release, in the same order and with the same redundant work.
It stores whole score maps. It copies the keys and values of the memory for each labeled image. It writes rows
class by class, with one device synchronization per class. In evaluation, it computes the unlabeled stream and
drops its result.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plain_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Attend between channels; the score map is normalized as a whole.

    Args:
        query (Tensor): ``(B, H, M, N)``.
        key (Tensor): ``(B, H, L, N)``.
        value (Tensor): ``(B, H, L, N)``.
        dropout (float): Probability that an attention weight is dropped.

    Returns:
        Tensor: ``(B, H, M, N)``.
    """
    scores = query @ key.transpose(-2, -1)
    weights = F.instance_norm(scores).softmax(dim=-1)
    return F.dropout(weights, dropout) @ value


@torch.no_grad()
def plain_grouping(pseudo_logits: Tensor, tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Assign each channel to a class (AllSpark, section 3.3).

    Args:
        pseudo_logits (Tensor): ``(B, K, H, W)``.
        tokens (Tensor): ``(B, N, D)`` with N = h * w.
        size (Sequence[int]): (h, w).

    Returns:
        Tensor: ``(B, D)`` int64.
    """
    maps = F.interpolate(pseudo_logits, size=tuple(size), mode='bilinear', align_corners=False).flatten(2)
    similarity = F.normalize(maps, dim=2) @ F.normalize(tokens, dim=1)  # (B, K, N) x (B, N, D)
    return similarity.argmax(dim=1)


@torch.no_grad()
def plain_memory_update(rows: Tensor, pointer: Tensor, tokens: Tensor, classes: Tensor) -> None:
    """Write every channel to the ring buffer of its class, in place.

    Args:
        rows (Tensor): ``(K, D, N)``, D slots per class.
        pointer (Tensor): ``(K,)`` int64, the next slot of each class.
        tokens (Tensor): ``(B, N, D)``.
        classes (Tensor): ``(B, D)`` int64.
    """
    capacity = rows.shape[1]
    for image, owners in zip(tokens, classes, strict=True):
        for owner in owners.unique().cpu().tolist():
            arriving = image[:, owners == owner].T  # (channels of the class, N), in increasing channel order
            start = int(pointer[owner])
            slots = [(start + i) % capacity for i in range(len(arriving))]
            rows[owner, slots] = arriving.to(rows.dtype)
            pointer[owner] = (start + len(arriving)) % capacity


class PlainMemory(nn.Module):
    """The buffers of ``SemanticMemory``, written in a loop.

    Args:
        num_classes (int): Number of classes K.
        channels (int): Slots D per class.
        num_tokens (int): Length N of a row.
    """

    rows: Tensor
    pointer: Tensor
    written: Tensor

    def __init__(self, num_classes: int, channels: int, num_tokens: int) -> None:
        super().__init__()
        self.register_buffer('rows', torch.randn(num_classes, channels, num_tokens))
        self.register_buffer('pointer', torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer('written', torch.zeros(num_classes, dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """Share of the written rows of each class, ``(K,)`` float in [0, 1]."""
        return self.written / self.rows.shape[1]

    def update(self, tokens: Tensor, classes: Tensor) -> None:
        """Write tokens ``(B, N, D)`` of classes ``(B, D)`` int64."""
        plain_memory_update(self.rows, self.pointer, tokens, classes)
        arrived = classes.flatten().bincount(minlength=len(self.rows))
        self.written.copy_((self.written + arrived).clamp(max=self.rows.shape[1]))


class PlainBottleneck(nn.Module):
    """The bottleneck with the parameter names of ``AllSparkBottleneck``; it loads its state dict.

    Args:
        in_channels (int): Channels C of the feature.
        num_classes (int): Number of classes K.
        crop_size (int | tuple[int, int]): (height, width) of a training crop in pixels, or one number for
            both.
        channels (int, optional): Width D. Default: C.
        num_heads (int): Heads H.
        stride (int): Pixels between positions of the feature.
        dropout (float): Probability, for the attention weights and for the output of both streams.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        crop_size: int | tuple[int, int],
        channels: int | None = None,
        num_heads: int = 2,
        stride: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        width = in_channels if channels is None else channels
        height_px, width_px = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        self.num_heads = num_heads
        self.dropout = dropout
        self.map_in = nn.Sequential(nn.Conv2d(in_channels, width, 1), nn.GELU())
        self.norm_in = nn.LayerNorm(width, eps=1e-6)
        self.unlabeled_attention = self._projections(width)
        self.labeled_attention = self._projections(width)
        self.memory = PlainMemory(num_classes, width, -(-height_px // stride) * -(-width_px // stride))
        self.norm_out = nn.LayerNorm(width, eps=1e-6)
        self.map_out = nn.Sequential(nn.Conv2d(width, in_channels, 1), nn.GELU())

    def _projections(self, width: int) -> nn.ModuleDict:
        wide = self.num_heads * width
        sizes = dict(query=(width, wide), key=(width, wide), value=(width, wide), out=(wide, width))
        return nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()})

    def forward_semi(
        self, feature: Tensor, num_labeled: int, pseudo_logits: Tensor, *, read_memory: bool = True
    ) -> Tensor:
        """Compute a training step; see ``AllSparkBottleneck.forward_semi``.

        Args:
            feature (Tensor): ``(N_l + N_u, C, h, w)``, labeled images first.
            num_labeled (int): N_l.
            pseudo_logits (Tensor): ``(N_u, K, H, W)``.
            read_memory (bool): Whether the keys of the labeled images come from the memory. Otherwise they
                come from the unlabeled images.

        Returns:
            Tensor: ``(N_l + N_u, C, h, w)``.
        """
        tokens, normed = self._tokens(feature)
        labeled, unlabeled = normed[:num_labeled], normed[num_labeled:]
        classes = plain_grouping(pseudo_logits, unlabeled, feature.shape[2:])
        self.memory.update(unlabeled, classes)
        source = self.memory.rows.transpose(1, 2).clone() if read_memory else unlabeled
        attended = torch.cat([self._cross_attention(labeled, source), self._self_attention(unlabeled)])
        return self._map(tokens, attended, feature)

    def forward(self, feature: Tensor, *, per_image: bool = False) -> Tensor:
        """Evaluate as released: the batch is doubled, one half per stream, and one half is dropped.

        Args:
            feature (Tensor): ``(B, C, h, w)``.
            per_image (bool): Whether each image is evaluated alone, without the channels of the others.

        Returns:
            Tensor: ``(B, C, h, w)``.
        """
        if per_image and len(feature) > 1:
            return torch.cat([self(image[None]) for image in feature])
        doubled = torch.cat([feature, feature])
        tokens, normed = self._tokens(doubled)
        labeled, unlabeled = normed.chunk(2)
        attended = torch.cat([self._cross_attention(labeled, unlabeled), self._self_attention(unlabeled)])
        return self._map(tokens, attended, doubled)[: len(feature)]

    def _self_attention(self, tokens: Tensor) -> Tensor:
        """Self-attention of the unlabeled images: ``(B, N, D)`` -> ``(B, N, D)``."""
        images, positions, width = tokens.shape
        query, key, value = (
            self.unlabeled_attention[name](tokens)
            .view(images, positions, self.num_heads, width)
            .permute(0, 2, 3, 1)  # (B, H, D, N)
            for name in ('query', 'key', 'value')
        )
        mixed = plain_attention(query, key, value, self._rate)
        # channel-major: index d * H + j
        joined = mixed.permute(0, 3, 2, 1).reshape(images, positions, width * self.num_heads)
        return F.dropout(self.unlabeled_attention['out'](joined), self._rate)

    def _cross_attention(self, tokens: Tensor, source: Tensor) -> Tensor:
        """Attention of the labeled images ``(B, N, D)`` to all channels of the source ``(S, N, D)``."""
        query = self.labeled_attention['query'](tokens).transpose(1, 2)[:, None]  # (B, 1, H*D, N)
        key, value = (
            self.labeled_attention[name](source)  # (S, N, H*D)
            .transpose(1, 2)
            .flatten(0, 1)
            .repeat(len(tokens), 1, 1, 1)  # (B, 1, S*H*D, N)
            for name in ('key', 'value')
        )
        mixed = plain_attention(query, key, value, self._rate)
        return F.dropout(self.labeled_attention['out'](mixed[:, 0].transpose(1, 2)), self._rate)

    @property
    def _rate(self) -> float:
        return self.dropout if self.training else 0.0

    def _tokens(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.map_in(feature).flatten(2).transpose(1, 2)
        return tokens, self.norm_in(tokens)

    def _map(self, tokens: Tensor, attended: Tensor, feature: Tensor) -> Tensor:
        out = self.norm_out(tokens + attended).transpose(1, 2)
        return self.map_out(out.reshape(len(feature), -1, *feature.shape[2:]))
