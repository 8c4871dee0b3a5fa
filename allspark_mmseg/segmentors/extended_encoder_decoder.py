"""MMSegmentation's plain segmentor with two more ways to test, as UniMatch and UniMatch V2 released them."""

import torch
from mmseg.models import EncoderDecoder
from mmseg.models.utils import resize
from torch import Tensor

from ..registry import MODELS

AVERAGED = ('slide_probs_clipped', 'slide_probs_shifted')  # modes that average the probabilities of windows
MODES = ('whole', 'slide', *AVERAGED)


@MODELS.register_module()
class ExtendedEncoderDecoder(EncoderDecoder):
    """MMSegmentation's ``EncoderDecoder``, which can also test by other windows and at multiples of a size.

    **Windows clipped at the border**:

    .. code-block:: python

        segmentor=dict(
            type='allspark_mmseg.ExtendedEncoderDecoder', ...,
            test_cfg=dict(mode='slide_probs_clipped', crop_size=(801, 801), stride=(534, 534)))

    This is how the released code of UniMatch (arXiv 2208.09910) and AllSpark (arXiv 2403.01818) evaluates
    on Cityscapes, its stride int(2/3 crop). In each direction a window starts at 0, s, 2s, ... while that is
    inside the image, and ends at the border if it would cross it; the softmax probabilities of the windows
    over a pixel are averaged (released: added, the same argmax). MMSegmentation's ``slide`` moves the last
    window back inside and averages logits.

    So windows differ in size. One may lie inside another: of an image larger than the stride, but not than
    the crop, the border is seen twice. The last may be one pixel wide, so the network must take windows as
    small as the images leave (MiT: 29 pixels or more); 1024 x 2048 leaves 490 x 446.

    **Windows shifted at the border**:

    .. code-block:: python

        test_cfg=dict(mode='slide_probs_shifted', crop_size=(798, 798), stride=(532, 532))

    This is how the released code of UniMatch V2 (arXiv 2410.10777) evaluates on Cityscapes: the windows are
    those of MMSegmentation's ``slide``, but their probabilities are averaged, not their logits.

    **Whole images at multiples of a size**, for a vision transformer that takes whole patches only:

    .. code-block:: python

        test_cfg=dict(mode='whole', size_multiple=14)

    This is how the released code of UniMatch V2 (arXiv 2410.10777) evaluates on Pascal, ADE20K and COCO: each
    side is resized to the nearest multiple (halves go up, 0 becomes one multiple), bilinearly and with the
    head's ``align_corners``, and the logits are resized back likewise. The pipeline need not resize.

    Modes ``whole`` without ``size_multiple`` and ``slide`` are MMSegmentation's own.

    Args:
        kwargs: as in MMSegmentation; ``test_cfg`` of windows has ``crop_size`` and ``stride``, both (height,
            width) in pixels; that of ``whole`` may have ``size_multiple``, in pixels.

    Raises:
        ValueError: ``test_cfg`` has an unknown mode; or, in the two modes above, no proper ``crop_size``
            or ``stride``, a stride that leaves gaps, or a decode head with a single, sigmoid channel; or
            a ``size_multiple`` that is no positive number of pixels, or is given for windows.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        mode = (self.test_cfg or {}).get('mode', 'whole')
        if mode not in MODES:
            raise ValueError(f'ExtendedEncoderDecoder: test_cfg.mode is {mode!r}, expected one of {MODES}.')
        if mode in AVERAGED:
            self._check_windows(mode)
        self._check_size_multiple(mode)

    def _check_size_multiple(self, mode: str) -> None:
        multiple = (self.test_cfg or {}).get('size_multiple')
        if multiple is None:
            return
        if type(multiple) is not int or multiple < 1:
            raise ValueError(
                f'ExtendedEncoderDecoder: test_cfg.size_multiple is {multiple!r}, expected a whole number of pixels '
                'from 1 on.'
            )
        if mode != 'whole':
            raise ValueError(
                f'ExtendedEncoderDecoder: test_cfg.size_multiple is for whole images, but test_cfg.mode is {mode!r}; '
                f"use mode 'whole', or windows whose crop_size is a multiple of {multiple}."
            )

    def _check_windows(self, mode: str) -> None:
        crop_size, stride = (self._pair(mode, key) for key in ('crop_size', 'stride'))
        if any(step > size for step, size in zip(stride, crop_size, strict=True)):
            raise ValueError(
                f'ExtendedEncoderDecoder: test_cfg.stride {stride} is larger than test_cfg.crop_size {crop_size}, so '
                'the windows would leave gaps; choose a stride of at most the crop size.'
            )
        if self.out_channels == 1:
            raise ValueError(
                f'ExtendedEncoderDecoder: test_cfg.mode {mode!r} averages softmax probabilities, but '
                "decode_head.out_channels is 1 (a sigmoid); use mode 'slide', or two channels."
            )

    def _pair(self, mode: str, key: str) -> tuple[int, int]:
        value = self.test_cfg.get(key)
        proper = isinstance(value, list | tuple) and len(value) == 2
        if not (proper and all(isinstance(side, int) and side > 0 for side in value)):
            raise ValueError(
                f'ExtendedEncoderDecoder: test_cfg.{key} is {value!r}; mode {mode!r} expects '
                '(height, width), two positive numbers of pixels.'
            )
        return tuple(value)

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits (N, K, H, W) of images (N, 3, H, W), in the mode that ``test_cfg`` names.

        Args:
            inputs: (N, 3, H, W), normalized.
            batch_img_metas: meta information of each image, as in MMSegmentation.
        """
        if (self.test_cfg or {}).get('mode') in AVERAGED:
            return self.averaged_inference(inputs, batch_img_metas)
        return super().inference(inputs, batch_img_metas)

    def whole_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Predict whole images, resized to multiples of ``test_cfg.size_multiple`` if there is one.

        Args:
            inputs: (N, 3, H, W), normalized.
            batch_img_metas: meta information of each image.

        Returns:
            Tensor: logits (N, K, H, W).
        """
        given = inputs.shape[2:]
        multiple = self.test_cfg.get('size_multiple') or 1
        size = tuple(nearest_multiple(side, multiple) for side in given)
        if size == tuple(given):
            return super().whole_inference(inputs, batch_img_metas)
        options = dict(mode='bilinear', align_corners=self.align_corners, warning=False)
        inputs = resize(inputs, size=size, **options)
        # a torch.Size tells MMSegmentation's heads to give logits of this size
        metas = [{**meta, 'img_shape': inputs.shape[2:]} for meta in batch_img_metas]
        return resize(self.encode_decode(inputs, metas), size=tuple(given), **options)

    def averaged_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Predict window by window.

        Args:
            inputs: (N, 3, H, W), normalized.
            batch_img_metas: meta information of each image.

        Returns:
            Tensor: (N, K, H, W) float32, the logarithm of the probability averaged over the windows, so its
            softmax is that average.
        """
        height, width = inputs.shape[2:]
        total = inputs.new_zeros((len(inputs), self.out_channels, height, width), dtype=torch.float32)
        count = total.new_zeros((height, width))
        (crop_height, crop_width), (down, right) = self.test_cfg['crop_size'], self.test_cfg['stride']
        windows = clipped_windows if self.test_cfg['mode'] == 'slide_probs_clipped' else shifted_windows
        for rows in windows(height, crop_height, down):
            for columns in windows(width, crop_width, right):
                window = inputs[:, :, rows, columns]
                # a torch.Size tells MMSegmentation's heads to give logits of this size
                metas = [{**meta, 'img_shape': window.shape[2:]} for meta in batch_img_metas]
                logits = self.encode_decode(window, metas)
                total[:, :, rows, columns] += logits.softmax(dim=1, dtype=torch.float32)
                count[rows, columns] += 1
        # in place: at 1024 x 2048 pixels and 19 classes each copy takes 160 MB. A probability that
        # underflowed to 0 must not become -inf, which the resize to the original size would make NaN.
        return total.div_(count).clamp_(min=torch.finfo(total.dtype).tiny).log_()


def nearest_multiple(side: int, multiple: int) -> int:
    """The multiple nearest to a side, in pixels: int(side / multiple + 1/2) times it, and at least one."""
    return max((2 * side + multiple) // (2 * multiple), 1) * multiple


def clipped_windows(size: int, crop: int, stride: int) -> list[slice]:
    """Windows along one direction: from 0, stride, 2 stride, ... while inside, clipped at the end.

    Args:
        size: of the image, in pixels.
        crop: of a window.
        stride: from one start to the next.
    """
    return [slice(start, min(start + crop, size)) for start in range(0, size, stride)]


def shifted_windows(size: int, crop: int, stride: int) -> list[slice]:
    """Windows along one direction: from 0, stride, 2 stride, ..., the last moved back to end at the end.

    Args:
        size: of the image, in pixels.
        crop: of a window; of the image, if that is smaller.
        stride: from one start to the next.
    """
    last = max(size - crop, 0)
    starts = [min(start, last) for start in range(0, last + stride, stride)]
    return [slice(start, min(start + crop, size)) for start in starts]
