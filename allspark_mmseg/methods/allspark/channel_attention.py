"""Attention between channels: a token is a channel, described by its values at all positions."""

import torch.nn.functional as F
from torch import Tensor, nn


def channel_attention(query: Tensor, key: Tensor, value: Tensor, dropout: nn.Module) -> Tensor:
    """Attention with instance-normalised scores (AllSpark, equation 3).

    Scores are not scaled by a root of the width; each map is normalised as a whole instead (mean, biased
    variance, eps 1e-5), so that softmax sees unit variance whatever the number of keys.

    Args:
        query: (B, H, M, N), M query channels of N positions.
        key: (B or 1, H, L, N).
        value: as ``key``.
        dropout: applied to the attention weights.

    Returns:
        Tensor: (B, H, M, N).
    """
    scores = F.instance_norm(query @ key.transpose(-2, -1))
    return dropout(scores.softmax(dim=-1)) @ value


class ChannelAttention(nn.Module):
    """Projections that both streams have, without bias: D -> H*D, and H*D -> D.

    Args:
        channels: width D of the tokens.
        num_heads: heads H.
        dropout: probability, on the attention weights and on the output; the reference's is 0.1.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.1):
        super().__init__()
        wide = num_heads * channels
        self.num_heads = num_heads
        self.query = nn.Linear(channels, wide, bias=False)
        self.key = nn.Linear(channels, wide, bias=False)
        self.value = nn.Linear(channels, wide, bias=False)
        self.out = nn.Linear(wide, channels, bias=False)
        self.weight_dropout = nn.Dropout(dropout)
        self.out_dropout = nn.Dropout(dropout)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)


class ChannelSelfAttention(ChannelAttention):
    """The unlabelled stream: multi-head self-attention between the channels of one image."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend.

        Args:
            tokens: (B, N, D).

        Returns:
            Tensor: (B, N, D).
        """

        def heads(projected: Tensor) -> Tensor:  # (B, N, H*D) -> (B, H, D, N)
            return projected.unflatten(2, (self.num_heads, -1)).permute(0, 2, 3, 1)

        mixed = channel_attention(
            heads(self.query(tokens)), heads(self.key(tokens)), heads(self.value(tokens)), self.weight_dropout
        )
        # (B, H, D, N) -> (B, N, D*H): channel-major here, unlike the projections; released weights need it
        return self.out_dropout(self.out(mixed.permute(0, 3, 2, 1).flatten(2)))


class ChannelCrossAttention(ChannelAttention):
    """The labelled stream: all H*D query channels of an image share one map over the key channels."""

    def forward(self, tokens: Tensor, source: Tensor, *, per_image: bool = False) -> Tensor:
        """Attend to the channels of ``source``.

        Args:
            tokens: (B, N, D), the queries.
            source: (S, N, D), where keys and values come from: other images, or the memory's classes.
            per_image: image i sees the channels of ``source[i]`` alone (S = B), not those of all.

        Returns:
            Tensor: (B, N, D).
        """

        def channels(projected: Tensor) -> Tensor:  # (S, N, H*D) -> (S, 1, H*D, N) or (1, 1, S*H*D, N)
            projected = projected.transpose(1, 2)
            return projected[:, None] if per_image else projected.flatten(0, 1)[None, None]

        query = self.query(tokens).transpose(1, 2)[:, None]  # (B, N, H*D) -> (B, 1, H*D, N)
        mixed = channel_attention(
            query, channels(self.key(source)), channels(self.value(source)), self.weight_dropout
        )
        return self.out_dropout(self.out(mixed.squeeze(1).transpose(1, 2)))  # (B, 1, H*D, N) -> (B, N, D)
