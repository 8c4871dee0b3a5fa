"""PatchShuffle: blocks of an image change places, and their features change back."""

import torch
from torch import Tensor


class PatchShuffle:
    """Permutes the blocks of images (S4Former, CVPR 2024).

    A vision transformer sees the shuffled image, its positions as they are; the features are put back before
    the decode head. Images need not be square.

    Args:
        block_size: side of a block, in pixels.
        prob: probability that an image is shuffled.

    Raises:
        ValueError: ``block_size`` is not positive, or ``prob`` not in [0, 1].
    """

    def __init__(self, block_size: int = 128, prob: float = 0.5):
        if type(block_size) is not int or block_size < 1:
            raise ValueError(f'PatchShuffle: block_size is {block_size!r}, expected a positive whole number.')
        if not 0 <= prob <= 1:
            raise ValueError(f'PatchShuffle: prob is {prob}, expected a probability in [0, 1].')
        self.block_size = block_size
        self.prob = prob

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of blocks in images of ``size`` (H, W).

        Raises:
            ValueError: whole blocks do not fill the image.
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
        """Draw permutations, from the device's global generator.

        Args:
            count: number of images N.
            grid: rows and columns of blocks.
            device: where.

        Returns:
            Tensor: (N, K) int64, K = rows x columns: the block that comes to each place, row by row; the
            identity for images that are not shuffled.
        """
        blocks = grid[0] * grid[1]
        drawn = torch.rand(count, blocks, device=device).argsort(dim=1)
        identity = torch.arange(blocks, device=device)
        return torch.where(torch.rand(count, 1, device=device) < self.prob, drawn, identity)


def shuffle(images: Tensor, permutation: Tensor, grid: tuple[int, int]) -> Tensor:
    """Move blocks: place k gets block ``permutation[k]``.

    Args:
        images: (N, C, H, W), of which ``grid`` makes whole blocks.
        permutation: (N, K) int64.
        grid: rows and columns of blocks, K in all.

    Returns:
        Tensor: like ``images``.
    """
    rows, columns = grid
    # (N, C, H, W) -> (N, C, rows, h, columns, w) -> (N, K, C, h, w)
    blocks = images.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
    blocks = blocks.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    image = torch.arange(len(images), device=images.device)[:, None]
    moved = blocks[image, permutation].unflatten(1, grid)
    return moved.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def unshuffle(features: Tensor, permutation: Tensor, grid: tuple[int, int]) -> Tensor:
    """Put blocks back: the inverse of ``shuffle``, for maps of any resolution.

    Args:
        features: (N, C, h, w), of which ``grid`` makes whole blocks.
        permutation: (N, K) int64, as given to ``shuffle``.
        grid: rows and columns of blocks, K in all.

    Returns:
        Tensor: like ``features``.

    Raises:
        ValueError: a map has no whole number of cells in a block.
    """
    if any(side % blocks for side, blocks in zip(features.shape[2:], grid, strict=True)):
        raise ValueError(
            f'PatchShuffle: a feature map of {tuple(features.shape[2:])} cannot be put back in blocks of a '
            f'{grid} grid; choose a block_size that is a multiple of the stride of every feature.'
        )
    return shuffle(features, permutation.argsort(dim=1), grid)
