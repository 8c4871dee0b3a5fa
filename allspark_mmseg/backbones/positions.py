"""Resampling of trained position embeddings."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def resample_positions(trained: Tensor, height: int, width: int, offset: float) -> Tensor:
    """Resample position embeddings to another grid, bicubically, as the official code of DINOv2.

    Args:
        trained (Tensor): (1, C, h, w) float32 or float64.
        height (int): Rows of the new grid.
        width (int): Columns of the new grid.
        offset (float): Number of rows and columns that is added to the new size for the sampling positions.

    Returns:
        Tensor: (1, C, height, width).
    """
    size = trained.shape[2:]
    if torch.jit.is_tracing():
        # the sizes are tensors, which interpolate refuses as factors
        same = (torch.as_tensor(height) == size[0]) & (torch.as_tensor(width) == size[1])
        shift = torch.where(same, 0.0, offset)  # the trained grid is not resampled
        y, x = (2 * (torch.arange(side) + 0.5) / (side + shift) - 1 for side in (height, width))
        grid = torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], dim=-1)[None].to(trained)
        return F.grid_sample(trained, grid, mode='bicubic', padding_mode='border', align_corners=False)
    # the factor also determines the sampling positions, so the two calls differ in more than the size
    target: dict[str, Any]
    if offset:
        target = {'scale_factor': ((height + offset) / size[0], (width + offset) / size[1])}
    else:
        target = {'size': (height, width)}
    return F.interpolate(trained, mode='bicubic', align_corners=False, **target)
