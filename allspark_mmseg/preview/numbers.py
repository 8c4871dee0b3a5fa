"""Numbers of the views as the network gets them: after the data preprocessor."""

from dataclasses import dataclass, field

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseDataPreprocessor
from mmseg.registry import MODELS

from ..prediction.pipelines import find_preprocessor
from ..pseudo_label import IGNORE_INDEX
from .draws import Draw


def build_preprocessor(cfg: Config) -> BaseDataPreprocessor:
    """Build the data preprocessor of a config, without the network.

    Args:
        cfg (Config): The config of a run.

    Returns:
        BaseDataPreprocessor: The one that the model would have.
    """
    return MODELS.build(find_preprocessor(cfg))


@dataclass
class ViewNumbers:
    """Numbers of one view over all its draws.

    Attributes:
        name (str): Name of the view.
        low, high (float): Smallest and largest value after the normalization.
        sums (np.ndarray): Sum, sum of squares and number of the values, (3,) float64.
        sizes (set): (height, width) of the batches.
        ignored (int): Pixels with the label 255: ignored, or padding.
        pixels (int): All pixels of the maps.
        classes (np.ndarray): Pixels of each class, (K,) int64.
    """

    name: str
    classes: np.ndarray
    low: float = np.inf
    high: float = -np.inf
    sums: np.ndarray = field(default_factory=lambda: np.zeros(3))
    sizes: set[tuple[int, int]] = field(default_factory=set)
    ignored: int = 0
    pixels: int = 0

    @property
    def mean(self) -> float:
        """Mean of the normalized values."""
        return float(self.sums[0] / self.sums[2])

    @property
    def std(self) -> float:
        """Standard deviation of the normalized values."""
        return float(np.sqrt(max(self.sums[1] / self.sums[2] - self.mean**2, 0)))

    @property
    def ignored_share(self) -> float:
        """Share of the pixels with the label 255, in percent."""
        return 100 * self.ignored / max(self.pixels, 1)

    @property
    def class_share(self) -> np.ndarray:
        """Share of each class among the pixels that are not ignored, (K,) in percent."""
        return 100 * self.classes / max(self.classes.sum(), 1)

    def add(self, values: np.ndarray, mask: np.ndarray | None) -> None:
        """Add one image.

        Args:
            values (np.ndarray): Normalized image (C, H, W).
            mask (np.ndarray, optional): Its map (H, W) after padding.
        """
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.sums += [values.sum(dtype=float), np.square(values).sum(dtype=float), values.size]
        self.sizes.add(values.shape[1:])
        if mask is not None:
            self.pixels += mask.size
            self.ignored += int((mask == IGNORE_INDEX).sum())
            counts = np.bincount(mask.ravel(), minlength=len(self.classes))
            self.classes += counts[: len(self.classes)]


def measure(
    numbers: dict[str, ViewNumbers],
    draw: Draw,
    training: bool,
    preprocessor: BaseDataPreprocessor,
    count: int,
) -> None:
    """Add the views of a draw to the numbers of a stream, as the network gets them.

    Args:
        numbers (dict): View -> its numbers so far. It is changed in place.
        draw (Draw): The draw.
        training (bool): Whether the data preprocessor pads as in training.
        preprocessor (BaseDataPreprocessor): The data preprocessor of the config.
        count (int): Number of classes K.
    """
    for view in draw.views:
        entry = numbers.setdefault(view.name, ViewNumbers(view.name, np.zeros(count, np.int64)))
        # a copy, because the preprocessor pads the map in place
        item = dict(inputs=view.inputs, data_samples=view.sample.clone())
        batch = preprocessor(pseudo_collate([item]), training)
        sample = batch['data_samples'][0]
        mask = sample.gt_sem_seg.data[0].cpu().numpy() if 'gt_sem_seg' in sample else None
        entry.add(batch['inputs'][0].cpu().numpy(), mask)
