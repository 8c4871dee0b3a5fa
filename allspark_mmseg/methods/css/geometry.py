"""Random rescaling and flipping of images, labels and confidences, in batches on their device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...pseudo_label import IGNORE_INDEX


@dataclass(frozen=True)
class Rescale:
    """Resizes each image by its own factor, pads it below and on the right, and crops it to its former size.

    Images are resized like PIL's bilinear filter, which averages source pixels when it shrinks, and padded by
    reflection without repeating the edge. Labels and confidences are resized like PIL's nearest filter; their
    padding is ignored.

    Attributes:
        size (Sequence[int]): (H, W) of the images.
        resized (Tensor): (N, 2) int64, height and width after resizing.
        corner (Tensor): (N, 2) int64, top and left of the crop in the padded image.
    """

    size: Sequence[int]
    resized: Tensor
    corner: Tensor

    @classmethod
    def draw(
        cls,
        count: int,
        size: Sequence[int],
        scale_range: tuple[float, float],
        device: torch.device | str = 'cpu',
    ) -> 'Rescale':
        """Draw a factor and a corner for each image, uniformly, from the device's global generator.

        Args:
            count (int): Number of images N.
            size (Sequence[int]): (H, W) of the images.
            scale_range (tuple[float, float]): Range of the factor.
            device (torch.device or str): Device of the result.

        Returns:
            Rescale: Factors and corners of N images.
        """
        low, high = scale_range
        # float64: in float32 a product could round up to the end of its range
        scale = torch.rand(count, device=device, dtype=torch.float64) * (high - low) + low
        uniform = torch.rand(count, 2, device=device, dtype=torch.float64)
        resized = torch.stack([(scale * side).long().clamp(min=1) for side in size], dim=1)
        room = torch.stack([(resized[:, axis] - size[axis]).clamp(min=0) + 1 for axis in (0, 1)], dim=1)
        return cls(size, resized, (uniform * room).long())

    def image(self, images: Tensor) -> Tensor:
        """Rescale images (N, C, H, W) float; return (N, C, H, W)."""
        rows, columns = (self._weights(axis).to(images.dtype) for axis in (0, 1))  # (N, H, H), (N, W, W)
        # resizing, padding and cropping are linear in the rows and in the columns
        with torch.autocast(images.device.type, enabled=False):
            return rows[:, None] @ images @ columns[:, None].transpose(2, 3)

    def label(self, labels: Tensor) -> Tensor:
        """Rescale labels (N, V, H, W) int64; return (N, V, H, W) with 255 in the padding."""
        return self._nearest(labels, IGNORE_INDEX)

    def confidence(self, confidence: Tensor) -> Tensor:
        """Rescale confidences (N, V, H, W) float; return (N, V, H, W) with 0 in the padding."""
        return self._nearest(confidence, 0)

    def _positions(self, axis: int) -> tuple[Tensor, Tensor]:
        """Return positions (N, H) of the crop's rows or columns in the resized image, and its side (N, 1)."""
        offset = torch.arange(self.size[axis], device=self.corner.device)
        return self.corner[:, axis, None] + offset, self.resized[:, axis, None]

    def _weights(self, axis: int) -> Tensor:
        """Weight (N, H, H) float32 of each source row (last dimension) in each row of the crop."""
        position, length = self._positions(axis)
        period = (2 * (length - 1)).clamp(min=1)
        position = position % period
        position = torch.where(position < length, position, period - position)  # reflection
        step = self.size[axis] / length.double()
        center = (position + 0.5) * step
        source = torch.arange(self.size[axis], device=position.device) + 0.5
        distance = (source - center[..., None]).abs() / step.clamp(min=1)[..., None]
        weight = (1 - distance).clamp(min=0)
        return (weight / weight.sum(dim=2, keepdim=True)).float()

    def _nearest(self, maps: Tensor, padding: float) -> Tensor:
        """Rescale maps (N, V, H, W) by the nearest source pixel, with ``padding`` outside of the image."""
        index, outside = [], []
        for axis in (0, 1):
            position, length = self._positions(axis)
            # floor((position + 0.5) * H / length), in integers
            nearest = (2 * position + 1) * self.size[axis] // (2 * length)
            index.append(nearest.clamp(max=self.size[axis] - 1))
            outside.append(position >= length)
        image = torch.arange(len(maps), device=maps.device)[:, None, None]
        resized = maps.transpose(0, 1)[:, image, index[0][:, :, None], index[1][:, None, :]]
        return resized.masked_fill(outside[0][:, :, None] | outside[1][:, None, :], padding).transpose(0, 1)


def flip_horizontally(maps: Tensor, chosen: Tensor) -> Tensor:
    """Flip some images of a batch from left to right.

    Args:
        maps (Tensor): (N, C, H, W), any dtype.
        chosen (Tensor): (N,) bool, True for images to flip.

    Returns:
        Tensor: (N, C, H, W).
    """
    return torch.where(chosen[:, None, None, None], maps.flip(3), maps)
