"""The AllSpark bottleneck: labeled features from unlabeled features (arXiv 2403.01818, section 3.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...utils import require
from .channel_attention import ChannelCrossAttention, ChannelSelfAttention
from .semantic_memory import SemanticMemory

_NORM_EPS = 1e-6

_CHOICES = {
    'grouping': ('logits', 'probabilities'),
    'memory_sync': ('all', 'rank'),
    'memory_init': ('noise', 'zeros'),
}


@torch.no_grad()
def group_channels(class_maps: Tensor, tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Assign each channel to the class with the most similar map (semantic grouping, section 3.3).

    Class maps and channels are scaled to unit L2 norm over the positions. The class of a channel is the class
    with the largest inner product. In a tie, the first class wins.

    Args:
        class_maps (Tensor): (B, K, H, W) float, logits or probabilities; resized to ``size``.
        tokens (Tensor): (B, N, D) float, N = h * w.
        size (Sequence[int]): (h, w) of the tokens' map.

    Returns:
        Tensor: (B, D) int64, in 0..K-1.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        maps = F.interpolate(class_maps.float(), size=tuple(size), mode='bilinear', align_corners=False)
        classes = F.normalize(maps.flatten(2), dim=2)  # (B, K, N)
        channels = F.normalize(tokens.float(), dim=1)  # (B, N, D)
        return (classes @ channels).argmax(dim=1)


class AllSparkBottleneck(BaseModule):
    """Cross-attention from labeled to unlabeled channels, in place of the deepest feature map.

    In training, the unlabeled images go through channel-wise self-attention. The labeled images attend to the
    unlabeled images of the batch (warm-up), or to a memory of unlabeled channels grouped by class. In
    evaluation, every image goes through the labeled stream and attends to its own channels.

    Args:
        in_channels (int): Channels C of the feature map.
        num_classes (int): Number of classes K.
        crop_size (int or tuple[int, int]): (height, width) of a training crop in pixels. It determines the
            length of the memory's rows.
        channels (int, optional): Width D of the tokens; by default C, as in the reference.
        num_heads (int): Number of attention heads H.
        stride (int): Pixels per position of the feature map; 32 for the deepest stage of most backbones.
        dropout (float): Probability of dropout in the attention, in [0, 1).
        grouping (str): The class maps that are compared with the channels: ``'logits'``, as released, or
            ``'probabilities'``, as in the paper. The results differ.
        memory_sync (str): Synchronization in distributed training. ``'all'``: every process writes the
            channels of all processes, so all memories are equal. ``'rank'``: each process writes its own
            channels. A checkpoint then has the memory of rank 0.
        memory_init (str): Initial content of the rows: ``'noise'``, as released, or ``'zeros'``.

    Raises:
        ValueError: An argument is out of range or unknown.
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
    ) -> None:
        super().__init__()
        channels = in_channels if channels is None else channels
        height, width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        sizes = dict(in_channels=in_channels, num_classes=num_classes, channels=channels)
        sizes |= dict(num_heads=num_heads, stride=stride, crop_height=height, crop_width=width)
        for name, number in sizes.items():
            require('AllSparkBottleneck', name, number, number >= 1, 'a number of at least 1')
        choices = dict(grouping=grouping, memory_sync=memory_sync, memory_init=memory_init)
        for name, word in choices.items():
            require('AllSparkBottleneck', name, word, word in _CHOICES[name], f'one of {_CHOICES[name]}')
        self.grouping = grouping
        self.memory_sync = memory_sync
        self.crop_size = (height, width)
        self.num_classes = num_classes
        self.map_size = (-(-height // stride), -(-width // stride))
        self.map_in = nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.GELU())
        self.norm_in = nn.LayerNorm(channels, eps=_NORM_EPS)
        self.unlabeled_attention = ChannelSelfAttention(channels, num_heads, dropout)
        self.labeled_attention = ChannelCrossAttention(channels, num_heads, dropout)
        positions = self.map_size[0] * self.map_size[1]
        self.memory = SemanticMemory(num_classes, channels, positions, init=memory_init)
        self.norm_out = nn.LayerNorm(channels, eps=_NORM_EPS)
        self.map_out = nn.Sequential(nn.Conv2d(channels, in_channels, 1), nn.GELU())

    def forward(self, feature: Tensor, *, per_image: bool = False) -> Tensor:
        """Send every image through the labeled stream, without the memory.

        Args:
            feature (Tensor): (B, C, h, w).
            per_image (bool): If True, the keys of an image are its own channels (prediction). Otherwise, they
                are the channels of the whole batch (pseudo-labeling as released).

        Returns:
            Tensor: (B, C, h, w).
        """
        tokens, normed = self._to_tokens(feature)
        attended = self.labeled_attention(normed, normed.transpose(1, 2), per_image=per_image)
        return self._to_map(tokens + attended, feature.shape[2:])

    def forward_semi(
        self, feature: Tensor, num_labeled: int, pseudo_logits: Tensor, *, read_memory: bool
    ) -> Tensor:
        """Train on labeled and unlabeled images, and write the unlabeled channels to the memory.

        Args:
            feature (Tensor): (Bl + Bu, C, h, w), labeled images first.
            num_labeled (int): Bl, at least 1; Bu may differ from it.
            pseudo_logits (Tensor): (Bu, K, H, W), the network's logits of the unlabeled images.
            read_memory (bool): Labeled images attend to the memory, not to the unlabeled images of the batch.

        Returns:
            Tensor: (Bl + Bu, C, h, w).

        Raises:
            ValueError: The feature map has another size than the rows of the memory.
        """
        size = feature.shape[2:]
        self.check_map_size(size)
        tokens, normed = self._to_tokens(feature)
        labeled, unlabeled = normed[:num_labeled], normed[num_labeled:]
        class_maps = pseudo_logits if self.grouping == 'logits' else pseudo_logits.float().softmax(dim=1)
        # before the attention, because the attention also reads the channels of this batch
        self._write_memory(unlabeled.detach(), group_channels(class_maps, unlabeled, size))
        source = self.memory.read() if read_memory else unlabeled.transpose(1, 2)
        attended_unlabeled = self.unlabeled_attention(unlabeled)
        attended_labeled = self.labeled_attention(labeled, source)
        return self._to_map(tokens + torch.cat([attended_labeled, attended_unlabeled]), size)

    def check_map_size(self, size: Sequence[int]) -> None:
        """Check that the feature map of a training crop fits the memory.

        Args:
            size (Sequence[int]): (h, w) of the feature map.

        Raises:
            ValueError: It has another size than the rows of the memory.
        """
        if tuple(size) != self.map_size:
            raise ValueError(
                f'AllSpark: the feature map is {size[0]} x {size[1]}, but the memory was made for '
                f'{self.map_size[0]} x {self.map_size[1]} (bottleneck.crop_size={self.crop_size}). Set '
                'bottleneck.crop_size to the crop of the training pipeline, and bottleneck.stride to the '
                'stride of the feature.'
            )

    def _write_memory(self, tokens: Tensor, classes: Tensor) -> None:
        """Write tokens (B, N, D) with the classes (B, D) of their channels."""
        if self.memory_sync == 'all':  # in the order of ranks; MMEngine does not broadcast buffers
            tokens, classes = (torch.cat(all_gather(part)) for part in (tokens.contiguous(), classes))
        self.memory.update(tokens, classes)

    def _to_tokens(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map a feature (B, C, h, w) to tokens (B, h*w, D), without and with layer normalization."""
        tokens = self.map_in(feature).flatten(2).transpose(1, 2)
        return tokens, self.norm_in(tokens)

    def _to_map(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Map tokens (B, h*w, D) to a feature (B, C, h, w)."""
        out = self.norm_out(tokens).transpose(1, 2)
        return self.map_out(out.unflatten(2, tuple(size)))
