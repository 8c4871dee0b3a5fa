"""The AllSpark bottleneck: labeled features reborn from unlabeled ones (arXiv 2403.01818, section 3.2)."""

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather
from mmengine.model import BaseModule
from torch import Tensor, nn

from .channel_attention import ChannelCrossAttention, ChannelSelfAttention
from .semantic_memory import SemanticMemory

_NORM_EPS = 1e-6


@torch.no_grad()
def group_channels(class_maps: Tensor, tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Channel-wise semantic grouping: give each channel the class whose map it resembles most.

    Both the class maps and the channels are scaled to unit L2 norm over the positions; the class of a
    channel is the one with the largest inner product (section 3.3; the first wins a tie).

    Args:
        class_maps: (B, K, H, W), logits or probabilities of any size; resized to ``size``.
        tokens: (B, N, D), N = h * w.
        size: (h, w) of the tokens' map.

    Returns:
        Tensor: (B, D) int64, 0..K-1.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        maps = F.interpolate(class_maps.float(), size=size, mode='bilinear', align_corners=False)
        classes = F.normalize(maps.flatten(2), dim=2)  # (B, K, N)
        channels = F.normalize(tokens.float(), dim=1)  # (B, N, D)
        return (classes @ channels).argmax(dim=1)


class AllSparkBottleneck(BaseModule):
    """Cross-attention of labeled channels to unlabeled ones, in place of the deepest feature map.

    In training, unlabeled images go through channel-wise self-attention, and labeled ones attend to
    the unlabeled images of the batch (warm-up) or to a class-wise memory of such channels. In evaluation
    every image goes through the labeled stream's weights, with its own channels as keys.

    Args:
        in_channels: channels C of the feature it replaces.
        num_classes: number of classes K.
        crop_size: (height, width) in pixels of a training crop; fixes the positions a memory row holds.
        channels: width D; the reference's is C, the default.
        num_heads: heads H of the attention.
        stride: pixels between positions of the feature; 32 for the deepest stage of most backbones.
        dropout: probability in the attention.
        grouping: the maps that channels are compared with: ``'logits'``, as released, or
            ``'probabilities'``, as the paper says; once normalized the two group differently.
        memory_sync: in distributed training, ``'all'``: every rank writes the channels of all ranks, so that
            all memories are equal; ``'rank'``: each rank writes its own (a checkpoint then holds rank 0's).
        memory_init: rows not yet written are ``'noise'``, as released, or ``'zeros'``, which add nothing to
            the keys and values.

    Raises:
        ValueError: a number is not positive, or a word is unknown.
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
        grouping: str = 'logits',
        memory_sync: str = 'all',
        memory_init: str = 'noise',
    ):
        super().__init__()
        channels = in_channels if channels is None else channels
        crop_size = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
        for name, number in dict(
            in_channels=in_channels, num_classes=num_classes, channels=channels, num_heads=num_heads,
            stride=stride, crop_height=crop_size[0], crop_width=crop_size[1],
        ).items():  # fmt: skip
            if number < 1:
                raise ValueError(f'AllSparkBottleneck: {name} must be at least 1, got {number}.')
        for name, word, known in (
            ('grouping', grouping, ('logits', 'probabilities')),
            ('memory_sync', memory_sync, ('all', 'rank')),
            ('memory_init', memory_init, ('noise', 'zeros')),
        ):
            if word not in known:
                raise ValueError(f'AllSparkBottleneck: {name} is {word!r}, expected one of {known}.')
        self.grouping = grouping
        self.memory_sync = memory_sync
        self.crop_size = crop_size
        self.num_classes = num_classes
        self.map_size = tuple(-(-side // stride) for side in crop_size)
        self.map_in = nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.GELU())
        self.norm_in = nn.LayerNorm(channels, eps=_NORM_EPS)
        self.unlabeled_attention = ChannelSelfAttention(channels, num_heads, dropout)
        self.labeled_attention = ChannelCrossAttention(channels, num_heads, dropout)
        self.memory = SemanticMemory(
            num_classes, channels, self.map_size[0] * self.map_size[1], init=memory_init
        )
        self.norm_out = nn.LayerNorm(channels, eps=_NORM_EPS)
        self.map_out = nn.Sequential(nn.Conv2d(channels, in_channels, 1), nn.GELU())

    def forward(self, feature: Tensor, *, per_image: bool = False) -> Tensor:
        """Send every image through the labeled stream, without the memory.

        Args:
            feature: (B, C, h, w).
            per_image: keys are the image's own channels (prediction), not those of the whole batch (the
                pseudo-label pass as released).

        Returns:
            Tensor: (B, C, h, w).
        """
        tokens, normed = self._tokens(feature)
        mixed = self.labeled_attention(normed, normed.transpose(1, 2), per_image=per_image)
        return self._map(tokens, mixed, feature)

    def forward_semi(
        self, feature: Tensor, num_labeled: int, pseudo_logits: Tensor, *, read_memory: bool
    ) -> Tensor:
        """Train on labeled and unlabeled images together, and write the unlabeled ones to the memory.

        Args:
            feature: (Bl + Bu, C, h, w), labeled images first.
            num_labeled: Bl, at least 1; Bu need not be equal to it.
            pseudo_logits: (Bu, K, H, W), what the network predicts for the unlabeled images.
            read_memory: labeled images attend to the memory; else to the unlabeled images of the batch.

        Returns:
            Tensor: (Bl + Bu, C, h, w).

        Raises:
            ValueError: the feature does not have the size that the memory was made for.
        """
        size = tuple(feature.shape[2:])
        self.check_map_size(size)
        tokens, normed = self._tokens(feature)
        labeled, unlabeled = normed[:num_labeled], normed[num_labeled:]
        class_maps = pseudo_logits if self.grouping == 'logits' else pseudo_logits.float().softmax(dim=1)
        # before the attention: the batch is already in the memory that it reads
        self._remember(unlabeled.detach(), group_channels(class_maps, unlabeled, size))
        source = self.memory.read() if read_memory else unlabeled.transpose(1, 2)
        mixed_unlabeled = self.unlabeled_attention(unlabeled)
        mixed_labeled = self.labeled_attention(labeled, source)
        return self._map(tokens, torch.cat([mixed_labeled, mixed_unlabeled]), feature)

    def check_map_size(self, size: tuple[int, int]) -> None:
        """Check that a training feature map fits the memory.

        Args:
            size: (h, w) of the feature map.

        Raises:
            ValueError: it does not.
        """
        if tuple(size) != self.map_size:
            raise ValueError(
                f'AllSpark: the feature map is {size[0]} x {size[1]}, but the memory was made for '
                f'{self.map_size[0]} x {self.map_size[1]} (bottleneck.crop_size={self.crop_size}). Set '
                'bottleneck.crop_size to the crop of the training pipeline, and bottleneck.stride to the '
                'stride of the feature; a memory of another crop cannot be used.'
            )

    def _remember(self, tokens: Tensor, classes: Tensor) -> None:
        if self.memory_sync == 'all':  # in rank order; MMEngine does not broadcast buffers
            tokens, classes = (torch.cat(all_gather(part)) for part in (tokens.contiguous(), classes))
        self.memory.update(tokens, classes)

    def _tokens(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> tokens (B, h*w, D), the same after the layer norm."""
        tokens = self.map_in(feature).flatten(2).transpose(1, 2)
        return tokens, self.norm_in(tokens)

    def _map(self, tokens: Tensor, attended: Tensor, feature: Tensor) -> Tensor:
        """(B, h*w, D) twice -> (B, C, h, w)."""
        out = self.norm_out(tokens + attended).transpose(1, 2)
        return self.map_out(out.unflatten(2, feature.shape[2:]))
