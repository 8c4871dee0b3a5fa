"""PatchShuffle: permutes blocks of an image; their features return to the original places."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...utils import require


class PatchShuffle:
    """Draws permutations of the blocks of images (S4Former, CVPR 2024).

    The vision transformer sees the shuffled image with its position embeddings in place; the features are
    unshuffled before the decode head. Images may be oblong.

    Args:
        block_size (int): Side of a block, in pixels.
        prob (float): Probability that an image is shuffled.

    Raises:
        ValueError: ``block_size`` is not a positive integer, or ``prob`` is not in [0, 1].
    """

    def __init__(self, block_size: int = 128, prob: float = 0.5) -> None:
        valid = type(block_size) is int and block_size >= 1
        require('PatchShuffle', 'block_size', block_size, valid, 'a positive integer')
        require('PatchShuffle', 'prob', prob, 0 <= prob <= 1, 'a probability in [0, 1]')
        self.block_size = block_size
        self.prob = prob

    def grid(self, size: Sequence[int]) -> tuple[int, int]:
        """Count the blocks of an image.

        Args:
            size (Sequence[int]): (H, W) of the image.

        Returns:
            tuple[int, int]: Rows and columns of blocks.

        Raises:
            ValueError: A side is not a multiple of the block size.
        """
        height, width = size
        if height % self.block_size or width % self.block_size:
            raise ValueError(
                f'PatchShuffle: blocks of block_size={self.block_size} pixels cannot tile the crop of '
                f'{height} x {width} (H x W); choose a crop of multiples of {self.block_size}, or a '
                'block_size that divides both sides and is a multiple of the patch size.'
            )
        return height // self.block_size, width // self.block_size

    def draw(self, count: int, grid: tuple[int, int], device: torch.device | str = 'cpu') -> Tensor:
        """Draw permutations from the device's global generator.

        Args:
            count (int): Number of images N.
            grid (tuple[int, int]): Rows and columns of blocks.
            device (torch.device or str): Device of the permutations.

        Returns:
            Tensor: (N, K) int64, K = rows * columns. Entry k is the index of the block that moves to place k,
            in row-major order; images that are not shuffled have the identity.
        """
        blocks = grid[0] * grid[1]
        permutation = torch.rand(count, blocks, device=device).argsort(dim=1)
        identity = torch.arange(blocks, device=device)
        return torch.where(torch.rand(count, 1, device=device) < self.prob, permutation, identity)


def shuffle(images: Tensor, permutation: Tensor, grid: tuple[int, int]) -> Tensor:
    """Permute blocks: place k gets block ``permutation[k]``.

    Args:
        images (Tensor): (N, C, H, W); H and W are multiples of the rows and columns of ``grid``.
        permutation (Tensor): (N, K) int64.
        grid (tuple[int, int]): Rows and columns of blocks, K in total.

    Returns:
        Tensor: (N, C, H, W).
    """
    rows, columns = grid
    # (N, C, H, W) -> (N, C, rows, h, columns, w) -> (N, K, C, h, w)
    blocks = images.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
    blocks = blocks.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    image = torch.arange(len(images), device=images.device)[:, None]
    # (N, K, C, h, w) -> (N, rows, columns, C, h, w) -> (N, C, H, W)
    shuffled = blocks[image, permutation].unflatten(1, grid)
    return shuffled.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def unshuffle(features: Tensor, permutation: Tensor, grid: tuple[int, int]) -> Tensor:
    """Apply the inverse of ``shuffle`` to maps of any resolution.

    Args:
        features (Tensor): (N, C, h, w); h and w are multiples of the rows and columns of ``grid``.
        permutation (Tensor): (N, K) int64, as given to ``shuffle``.
        grid (tuple[int, int]): Rows and columns of blocks, K in total.

    Returns:
        Tensor: (N, C, h, w).

    Raises:
        ValueError: A side of the maps is not a multiple of the rows or columns.
    """
    if any(side % blocks for side, blocks in zip(features.shape[2:], grid, strict=True)):
        raise ValueError(
            f'PatchShuffle: a feature map of {tuple(features.shape[2:])} cannot be put back in blocks of a '
            f'{grid} grid; choose a block_size that is a multiple of the stride of every feature.'
        )
    return shuffle(features, permutation.argsort(dim=1), grid)
