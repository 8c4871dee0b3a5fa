"""A random rescaling of images, their labels and confidences together, batched and on their device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...pseudo_label import IGNORE_INDEX


@dataclass(frozen=True)
class Rescale:
    """Resize each image by its own factor, pad below and right, and crop to the size it had.

    The image is resized as PIL's bilinear filter does, averaging over source pixels when it shrinks, and
    padded by reflection, without repeating the edge. Maps take PIL's nearest pixel; padding is ignored there.

    Attributes:
        size: (H, W) of the images.
        resized: (N, 2) int64, height and width after resizing.
        corner: (N, 2) int64, top and left of the crop in the padded image.
    """

    size: tuple[int, int]
    resized: Tensor
    corner: Tensor

    @classmethod
    def draw(
        cls,
        count: int,
        size: tuple[int, int],
        scale_range: tuple[float, float],
        device: torch.device | str = 'cpu',
    ) -> 'Rescale':
        """Draw a factor and a corner for each image, uniform, from the device's global generator.

        Args:
            count: number of images N.
            size: (H, W).
            scale_range: of the factor.
            device: where.
        """
        low, high = scale_range
        scale = torch.rand(count, device=device, dtype=torch.float64) * (high - low) + low
        # float64: in float32 a draw below 1 could round up to the end of the room
        chance = torch.rand(count, 2, device=device, dtype=torch.float64)
        resized = torch.stack([(scale * side).long().clamp(min=1) for side in size], dim=1)
        room = torch.stack([(resized[:, axis] - size[axis]).clamp(min=0) + 1 for axis in (0, 1)], dim=1)
        return cls(size, resized, (chance * room).long())

    def image(self, images: Tensor) -> Tensor:
        """Rescale images (N, C, H, W)."""
        rows, columns = (self._weights(axis).to(images.dtype) for axis in (0, 1))  # (N, H, H), (N, W, W)
        # resizing, reflecting and cropping are linear in rows and in columns
        with torch.autocast(images.device.type, enabled=False):
            return rows[:, None] @ images @ columns[:, None].transpose(2, 3)

    def label(self, labels: Tensor) -> Tensor:
        """Rescale labels (N, V, H, W); 255 in the padding."""
        return self._nearest(labels, IGNORE_INDEX)

    def confidence(self, confidence: Tensor) -> Tensor:
        """Rescale confidences (N, V, H, W); 0 in the padding."""
        return self._nearest(confidence, 0)

    def _places(self, axis: int) -> tuple[Tensor, Tensor]:
        """Where the crop's rows (or columns) lie in the resized image (N, H), and its length (N, 1)."""
        steps = torch.arange(self.size[axis], device=self.corner.device)
        return self.corner[:, axis, None] + steps, self.resized[:, axis, None]

    def _weights(self, axis: int) -> Tensor:
        """Weight (N, H, H) float32 of each source row (last) in each row of the crop."""
        place, length = self._places(axis)
        period = (2 * (length - 1)).clamp(min=1)
        place = place % period
        place = torch.where(place < length, place, period - place)
        step = self.size[axis] / length.double()
        center = (place + 0.5) * step
        source = torch.arange(self.size[axis], device=place.device) + 0.5
        distance = (source - center[..., None]).abs() / step.clamp(min=1)[..., None]
        weight = (1 - distance).clamp(min=0)
        return (weight / weight.sum(dim=2, keepdim=True)).float()

    def _nearest(self, maps: Tensor, outside: float) -> Tensor:
        picked, beyond = [], []
        for axis in (0, 1):
            place, length = self._places(axis)
            # floor((place + 0.5) * H / length), in integers
            picked.append(((2 * place + 1) * self.size[axis] // (2 * length)).clamp(max=self.size[axis] - 1))
            beyond.append(place >= length)
        image = torch.arange(len(maps), device=maps.device)[:, None, None]
        found = maps.transpose(0, 1)[:, image, picked[0][:, :, None], picked[1][:, None, :]]
        return found.masked_fill(beyond[0][:, :, None] | beyond[1][:, None, :], outside).transpose(0, 1)


def flipped(maps: Tensor, chosen: Tensor) -> Tensor:
    """Flip the chosen (N,) bool of images or maps (N, C, H, W) from left to right."""
    return torch.where(chosen[:, None, None, None], maps.flip(3), maps)
