"""Predict loaded images: small ones whole and in batches, large ones window by window."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmseg.models import BaseSegmentor, EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor

from ..methods import SemiSegmentor
from ..segmentors.extended_encoder_decoder import AVERAGED, clipped_windows, shifted_windows
from ..utils import require
from .loading import LoadedImage
from .windows import Window, average_windows, resize_strips

LARGE = 2048 * 2048  # pixels; an image with more is predicted in windows
_ABOUT = 1024  # side of a window in pixels, if the network has none


@dataclass
class Prediction:
    """The prediction of one image.

    Attributes:
        labels (np.ndarray): Class of each pixel, (H, W) uint8; uint16 for more than 256 classes.
        confidence (np.ndarray): Probability of this class in units of 1/255, rounded, (H, W) uint8.
    """

    labels: np.ndarray
    confidence: np.ndarray


class Predictor:
    """Predicts loaded images with a segmentor.

    The prediction of a small image is the one of ``tools/test.py``. The probabilities of test-time
    augmentation are the means over the views, as in MMSegmentation's ``SegTTAModel``.

    A large image is predicted in windows that overlap. Their probabilities are averaged, or their logits if
    ``test_cfg.mode`` of the segmentor is ``slide``.

    Args:
        model (BaseSegmentor): The model, in evaluation mode.
        window (int, optional): Side of the windows in pixels, of the image as the network takes it. 0: all
            images are predicted as ``tools/test.py`` does. Default: windows for images of more than ``LARGE``
            pixels only, of ``test_cfg.crop_size``, otherwise of about 1024 pixels.
        stride (int, optional): Distance of two windows in pixels. Default: ``test_cfg.stride``, otherwise 3/4
            of the window.
        batch_size (int): Images, or windows, that are predicted at once.

    Raises:
        ValueError: An argument is out of its range, or the network has no windows.
    """

    def __init__(
        self,
        model: BaseSegmentor,
        window: int | None = None,
        stride: int | None = None,
        batch_size: int = 1,
    ) -> None:
        self.model, self.batch_size, self.given_window = model, batch_size, window
        self.segmentor: Any = model.predictor if isinstance(model, SemiSegmentor) else model
        self.config: Any = getattr(self.segmentor, 'test_cfg', None) or {}
        self.mode = self.config.get('mode', 'whole')
        own = self.mode != 'whole' and not window
        sizes = [getattr(each.data_preprocessor, 'size', None) for each in (model, self.segmentor)]
        side = window or _window_side(sizes[0] or sizes[1])
        self.window = tuple(self.config['crop_size']) if own else (side, side)
        step = max(side * 3 // 4, 1) if stride is None else stride
        self.stride = tuple(self.config['stride']) if own and stride is None else (step, step)
        require('predict', '--batch-size', batch_size, batch_size >= 1, 'at least 1')
        require('predict', '--window', window, not window or window > 0, '0 or a number of pixels')
        in_range = all(1 <= step <= side for step, side in zip(self.stride, self.window, strict=True))
        require('predict', '--stride', stride, in_range, f'1 to the window of {min(self.window)} pixels')

    def is_large(self, pixels: int) -> bool:
        """Tell whether an image with this number of pixels is predicted in windows."""
        return self.given_window != 0 and pixels > (self.given_window or LARGE**0.5) ** 2

    @torch.no_grad()
    def predict(self, images: Sequence[LoadedImage]) -> list[Prediction]:
        """Predict a batch of small images.

        Args:
            images (Sequence[LoadedImage]): Images of the same ``shapes``.

        Returns:
            list[Prediction]: One prediction per image.
        """
        total: list[Tensor] = []
        for view in range(len(images[0].inputs)):
            batch = pseudo_collate(
                [dict(inputs=each.inputs[view], data_samples=each.data_samples[view]) for each in images]
            )
            samples = self.model.test_step(batch)
            if len(images[0].inputs) == 1:
                return [self._read_sample(sample) for sample in samples]
            for index, sample in enumerate(samples):
                values = _sample_probabilities(sample)
                if view == 0:
                    total.append(values)
                else:
                    total[index] += values
        return [self._decide(values / len(images[0].inputs)) for values in total]

    def _read_sample(self, sample: SegDataSample) -> Prediction:
        prediction = self._decide(_sample_probabilities(sample))
        labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
        return Prediction(labels.astype(prediction.labels.dtype), prediction.confidence)

    def _decide(self, probability: Tensor) -> Prediction:
        """Take the most probable class of probabilities (K, n, W), or (1, n, W) of a sigmoid."""
        if len(probability) > 1:
            confidence, labels = probability.max(dim=0)
        else:
            labels = (probability[0] > self.segmentor.decode_head.threshold).long()
            confidence = torch.where(labels == 1, probability[0], 1 - probability[0])
        dtype = np.uint8 if len(probability) <= 256 else np.uint16
        scaled = (confidence * 255).round().clamp(0, 255).to(torch.uint8)
        return Prediction(labels.cpu().numpy().astype(dtype), scaled.cpu().numpy())

    @torch.no_grad()
    def predict_strips(self, image: LoadedImage) -> Iterator[Prediction]:
        """Predict a large image in strips of rows. Memory does not grow with its height.

        Args:
            image (LoadedImage): The image.

        Yields:
            Prediction: The next rows, at most ``windows.CHUNK`` of them.

        Raises:
            ValueError: The segmentor has no ``whole_inference``.
        """
        if not isinstance(self.segmentor, EncoderDecoder):
            raise ValueError(
                f'a {type(self.segmentor).__name__} cannot be predicted in windows; expected an '
                'EncoderDecoder. Use --window 0.'
            )
        views = [
            self._strips(inputs, sample, image.size)
            for inputs, sample in zip(image.inputs, image.data_samples, strict=True)
        ]
        for strips in zip(*views, strict=True):
            yield self._decide(torch.stack(strips).mean(dim=0) if len(strips) > 1 else strips[0])

    def _strips(self, inputs: Tensor, sample: SegDataSample, size: tuple[int, int]) -> Iterator[Tensor]:
        """Yield probabilities (K, n, W) of one view, resized to ``size`` and not flipped any more."""
        height, width = inputs.shape[1:]
        flip = (sample.get('flip_direction') or '') if sample.get('flip') else ''
        average_logits = self.mode == 'slide'
        if self.mode == 'whole' and not self.is_large(height * width):
            rows, columns, average_logits = [slice(0, height)], [slice(0, width)], True
        else:
            cut = clipped_windows if self.mode == 'slide_probs_clipped' else shifted_windows
            own = self.mode in AVERAGED and not self.given_window
            cut = cut if own else shifted_windows
            rows, columns = (
                cut(side, *steps)
                for side, *steps in zip((height, width), self.window, self.stride, strict=True)
            )

        def scores(windows: list[Window]) -> Tensor:
            logits = self._window_logits(inputs, windows, flip)
            return logits if average_logits else to_probabilities(logits, dim=1)

        strips = average_windows(scores, rows, columns, self.batch_size)
        resized = resize_strips(strips, (height, width), size, self.segmentor.align_corners)
        return (to_probabilities(strip, dim=0) if average_logits else strip for strip in resized)

    def _window_logits(self, inputs: Tensor, windows: list[Window], flip: str) -> Tensor:
        """Return logits (B, K, h, w) float32 of windows of the image that is not flipped."""
        places = [_in_flipped(window, inputs.shape[1:], flip) for window in windows]
        crops = [inputs[:, rows, columns] for rows, columns in places]
        batch = dict(inputs=crops, data_samples=[SegDataSample() for _ in crops])
        batch = self.model.data_preprocessor(batch, False)
        images = batch['inputs']
        metas = [{**sample.metainfo, 'img_shape': images.shape[2:]} for sample in batch['data_samples']]
        logits = self.segmentor.whole_inference(images, metas).float()
        left, right, top, bottom = metas[0].get('img_padding_size') or metas[0].get('padding_size') or [0] * 4
        logits = logits[..., top : logits.shape[2] - bottom, left : logits.shape[3] - right]
        axes = [axis for axis, name in ((-1, 'horizontal'), (-2, 'vertical')) if flip in (name, 'diagonal')]
        return logits.flip(axes)


def _sample_probabilities(sample: SegDataSample) -> Tensor:
    """Return probabilities (K, H, W). MMSegmentation stores a single channel after the sigmoid."""
    scores = sample.seg_logits.data
    return scores.softmax(dim=0) if len(scores) > 1 else scores


def to_probabilities(logits: Tensor, dim: int) -> Tensor:
    """Return the softmax over the classes of logits, or the sigmoid if there is one channel.

    Args:
        logits (Tensor): (K, H, W) or (N, K, H, W).
        dim (int): The dimension of the K channels.

    Returns:
        Tensor: Probabilities of the same shape.
    """
    return logits.softmax(dim) if logits.shape[dim] > 1 else logits.sigmoid()


def _in_flipped(window: Window, size: Sequence[int], flip: str) -> Window:
    """Return the place, in a flipped image, of a window of the image before the flip."""
    names = ('vertical', 'horizontal')
    rows, columns = (
        slice(side - part.stop, side - part.start) if flip in (name, 'diagonal') else part
        for part, side, name in zip(window, size, names, strict=True)
    )
    return rows, columns


def _window_side(crop_size: Sequence[int] | None) -> int:
    """Return a side of about 1024 pixels that suits the network: a multiple of the crop size of the training.

    For an odd crop size it is odd, too, because the padding of some networks depends on the parity.
    """
    if not crop_size:
        return _ABOUT
    side = max(crop_size)
    odd = side % 2
    return max(round(_ABOUT / side), 1) * (side - odd) + odd
