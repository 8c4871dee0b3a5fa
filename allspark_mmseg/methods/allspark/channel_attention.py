"""Attention between channels. A token is a channel; its vector holds the values at all positions."""

import torch.nn.functional as F
from torch import Tensor, nn

from ...utils import require
from .attention_blocks import is_cpu
from .fast_attention import fast_channel_attention
from .score_moments import EPS


def channel_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    r"""Attend from query channels to key channels (AllSpark, arXiv 2403.01818, equation 3).

    .. math::

        \mathrm{Dropout}(\mathrm{softmax}(\mathrm{InstanceNorm}(Q K^T)))\, V

    The instance normalization uses the mean and the biased variance of the whole score map. It replaces the
    usual scaling of the scores, so the softmax sees unit variance for any number of keys. This function
    states the formula. The modules below call ``fast_channel_attention``, which gives the same result without
    the score map.

    Args:
        query (Tensor): (B, H, M, N) float: M channels, each with N positions.
        key (Tensor): (B, H, L, N) float.
        value (Tensor): (B, H, L, N) float.
        dropout (float): Probability that an attention weight is dropped, in [0, 1).

    Returns:
        Tensor: (B, H, M, N).
    """
    scores = query @ key.transpose(2, 3)  # (B, H, M, L)
    mean = scores.mean(dim=(2, 3), keepdim=True)
    variance = scores.var(dim=(2, 3), correction=0, keepdim=True)
    normalized = (scores - mean) * (variance + EPS).rsqrt()
    weights = F.dropout(normalized.softmax(dim=3), dropout)
    return weights @ value


class ChannelAttention(nn.Module):
    """The bias-free projections of both streams: D -> H*D for query, key and value, H*D -> D for the output.

    Args:
        channels (int): Width D of the tokens.
        num_heads (int): Number of heads H.
        dropout (float): Probability of dropout on the attention weights and on the output, in [0, 1); 0.1 in
            the reference.

    Raises:
        ValueError: ``dropout`` is not in [0, 1).
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        require('AllSparkBottleneck', 'dropout', dropout, 0 <= dropout < 1, 'a probability in [0, 1)')
        wide = num_heads * channels
        self.num_heads = num_heads
        self.query = nn.Linear(channels, wide, bias=False)
        self.key = nn.Linear(channels, wide, bias=False)
        self.value = nn.Linear(channels, wide, bias=False)
        self.out = nn.Linear(wide, channels, bias=False)
        self.dropout = dropout
        self.out_dropout = nn.Dropout(dropout)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)

    def attend(self, query: Tensor, source: Tensor) -> Tensor:
        """Attend to the channels of ``source``.

        Args:
            query (Tensor): (B, H', M, N), projected queries with H' maps of scores per image.
            source (Tensor): (B or 1, S, D, N), S groups of D channels, not yet projected to keys and values.

        Returns:
            Tensor: (B, H', M, N).
        """
        key_weight, value_weight = (
            linear.weight.unflatten(0, (query.shape[1], -1)) for linear in (self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        # a graph is exported in eval mode on a CPU
        blocked = self.training or not is_cpu(query.device)
        return fast_channel_attention(query, source, key_weight, value_weight, dropout, blocked=blocked)


class ChannelSelfAttention(ChannelAttention):
    """The unlabeled stream: multi-head self-attention between the channels of one image (section 3.2)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute the attention.

        Args:
            tokens (Tensor): (B, N, D).

        Returns:
            Tensor: (B, N, D).
        """
        query = self.query(tokens).unflatten(2, (self.num_heads, -1)).permute(0, 2, 3, 1)  # (B, H, D, N)
        # contiguous, because otherwise every later operation makes and keeps a copy
        attended = self.attend(query.contiguous(), tokens.transpose(1, 2)[:, None])
        # (B, H, D, N) -> (B, N, D*H): channel-major, unlike the projections, because released weights need it
        return self.out_dropout(self.out(attended.permute(0, 3, 2, 1).flatten(2)))


class ChannelCrossAttention(ChannelAttention):
    """The labeled stream: the H*D query channels of an image share one map of scores (section 3.2)."""

    def forward(self, tokens: Tensor, source: Tensor, *, per_image: bool = False) -> Tensor:
        """Attend to the channels of ``source``.

        Args:
            tokens (Tensor): (B, N, D), the queries.
            source (Tensor): (S, D, N), channels of other images or of the classes of the memory.
            per_image (bool): If True, image i attends only to ``source[i]`` (S = B). Otherwise, it attends to
                all of ``source``.

        Returns:
            Tensor: (B, N, D).
        """
        query = self.query(tokens).transpose(1, 2).contiguous()[:, None]  # (B, N, H*D) -> (B, 1, H*D, N)
        attended = self.attend(query, source[:, None] if per_image else source[None])
        return self.out_dropout(self.out(attended.squeeze(1).transpose(1, 2)))  # (B, 1, H*D, N) -> (B, N, D)
