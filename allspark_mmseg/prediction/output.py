"""The files that a prediction writes: masks, overlays and confidence."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..output import complete_file
from .predictor import Prediction

SETTINGS = 'predict.json'
PARTS = ('masks', 'overlays', 'confidence')
_MOST_JPEG = 65500  # pixels on a side that a JPEG can have
_ROWS = 256


class OutputFolder:
    """The results of a folder of images: ``masks/NAME.png``, ``overlays/NAME.jpg``, ``confidence/NAME.png``.

    * A mask holds class numbers. With ``reduce_zero_label`` they are larger by 1, as in the training masks.
    * An overlay is the image with half of the class colors.
    * Confidence is the probability of the class in the mask, times 255, rounded.

    A file gets its name when it is complete.

    Args:
        folder (str | Path): The folder.
        parts (Sequence[str]): Those of ``PARTS`` that are written.
        palette (Sequence): (K, 3) RGB colors in [0, 255].
        first_class (int): Number of the first class in the masks, 0 or 1.
    """

    def __init__(
        self, folder: str | Path, parts: Sequence[str], palette: Sequence, first_class: int = 0
    ) -> None:
        self.folder, self.parts, self.first_class = Path(folder), tuple(parts), first_class
        self.colors = np.asarray(palette, np.uint8)[:, ::-1]

    def check_settings(self, settings: dict[str, Any], again: bool) -> None:
        """Write the settings to ``predict.json``, or compare them with those of an earlier run.

        Args:
            settings (dict): What changes the predictions, and ``classes``.
            again (bool): Replace the settings of the earlier run.

        Raises:
            ValueError: The folder holds predictions with other settings, or files that no prediction wrote.
        """
        path = self.folder / SETTINGS
        if not path.is_file():
            self._check_empty()
        settings = json.loads(json.dumps(settings))
        if path.is_file() and not again:
            earlier = json.loads(path.read_text())
            changed = [key for key in settings if earlier.get(key) != settings[key]]
            if changed:
                key = changed[0]
                raise ValueError(
                    f'{self.folder} holds predictions with {key} {earlier.get(key)!r}, but now {key} is '
                    f'{settings[key]!r}. Name another folder with --out, or predict all images with --again.'
                )
            return
        with complete_file(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1) + '\n')

    def _check_empty(self) -> None:
        for part in self.parts:
            if (self.folder / part).is_dir() and any((self.folder / part).iterdir()):
                raise ValueError(
                    f'{self.folder / part} has files of something else: there is no {SETTINGS} beside it. '
                    'Name another folder with --out.'
                )

    def paths(self, name: str) -> dict[str, Path]:
        """Return the files of an image, by part, for its name without suffix."""
        return {
            part: self.folder / part / f'{name}{".jpg" if part == "overlays" else ".png"}'
            for part in self.parts
        }

    def is_done(self, name: str, image: Path) -> bool:
        """Tell whether all files of an image exist, and are not older than the image and the settings."""
        changed = max(path.stat().st_mtime for path in (image, self.folder / SETTINGS))
        return all(path.is_file() and path.stat().st_mtime >= changed for path in self.paths(name).values())

    def write(self, name: str, prediction: Prediction, picture: np.ndarray) -> None:
        """Write the files of an image. The mask is the last one.

        Args:
            name (str): Name of the image without suffix.
            prediction (Prediction): Labels and confidence (H, W).
            picture (np.ndarray): The image (H, W, 3) uint8 BGR. The overlay is drawn into it.

        Raises:
            OSError: A file cannot be written.
        """
        contents: dict[str, Callable[[], np.ndarray]] = {
            'masks': lambda: prediction.labels + self.first_class if self.first_class else prediction.labels,
            'overlays': lambda: self.draw(picture, prediction.labels),
            'confidence': lambda: prediction.confidence,
        }
        for part, path in reversed(self.paths(name).items()):
            _write_image(path, contents[part]())

    def draw(self, picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Draw the colors of the classes over an image, in place if the image can be written to.

        Args:
            picture (np.ndarray): (h, w, 3) uint8 BGR. It is resized to the size of the labels.
            labels (np.ndarray): Classes (H, W).

        Returns:
            np.ndarray: The overlay (H, W, 3) uint8 BGR.
        """
        if picture.shape[:2] != labels.shape:
            picture = cv2.resize(picture, labels.shape[::-1], interpolation=cv2.INTER_AREA)
        picture = np.require(picture, requirements=['C', 'W'])
        for first in range(0, len(labels), _ROWS):
            rows = picture[first : first + _ROWS]
            cv2.addWeighted(rows, 0.5, self.colors[labels[first : first + _ROWS]], 0.5, 0, dst=rows)
        return picture


def _write_image(path: Path, pixels: np.ndarray) -> None:
    with complete_file(path) as temporary:
        # OpenCV chooses the format by the suffix; a JPEG has a largest size
        suffix = '.png' if max(pixels.shape[:2]) > _MOST_JPEG else path.suffix
        done, data = cv2.imencode(suffix, pixels)
        if not done:
            raise OSError(f'{path} cannot be encoded as {suffix}')
        data.tofile(temporary)
