"""MMSegmentation's ``EncoderDecoder`` with the evaluation modes of UniMatch and UniMatch V2."""

from typing import Any

import torch
from mmseg.models import EncoderDecoder
from mmseg.models.utils import resize
from torch import Tensor

from ..registry import MODELS
from ..utils import nearest_multiple, require

OWNER = 'ExtendedEncoderDecoder'
AVERAGED = ('slide_probs_clipped', 'slide_probs_shifted')  # modes that average probabilities over windows
MODES = ('whole', 'slide', *AVERAGED)


@MODELS.register_module()
class ExtendedEncoderDecoder(EncoderDecoder):
    """``EncoderDecoder`` with two more sliding-window modes and whole images at multiples of a size.

    **Sliding windows, clipped at the border**:

    .. code-block:: python

        segmentor=dict(
            type='allspark_mmseg.ExtendedEncoderDecoder', ...,
            test_cfg=dict(mode='slide_probs_clipped', crop_size=(801, 801), stride=(534, 534)))

    The released code of UniMatch (arXiv 2208.09910) and AllSpark (arXiv 2403.01818) evaluates on Cityscapes
    in this way, with stride ``int(2/3 * crop)``. In each direction, windows start at 0, s, 2s, ... inside the
    image. Windows are clipped at the border. Softmax probabilities are averaged over the windows of each
    pixel (the released code adds them; the argmax is the same). MMSegmentation's ``slide`` moves the last
    window back inside the image and averages logits.

    The windows have different sizes, and one can lie inside another. The last window can be one pixel wide.
    The network must accept the smallest window of the images (MiT needs 29 pixels). For 1024 x 2048 images
    and the config above, it is 490 x 446.

    **Sliding windows, shifted at the border**:

    .. code-block:: python

        test_cfg=dict(mode='slide_probs_shifted', crop_size=(798, 798), stride=(532, 532))

    The released code of UniMatch V2 (arXiv 2410.10777) evaluates on Cityscapes in this way. The windows are
    those of MMSegmentation's ``slide``, but probabilities are averaged instead of logits.

    **Whole images at multiples of a size**, for vision transformers that need whole patches:

    .. code-block:: python

        test_cfg=dict(mode='whole', size_multiple=14)

    The released code of UniMatch V2 (arXiv 2410.10777) evaluates on Pascal, ADE20K and COCO in this way. Each
    side is resized to the nearest multiple (:func:`nearest_multiple`), bilinearly and with the head's
    ``align_corners``. The logits are resized back in the same way. The pipeline needs no resize.

    The modes ``slide`` and ``whole`` without ``size_multiple`` are MMSegmentation's.

    Args:
        *args: Positional arguments of MMSegmentation's ``EncoderDecoder``.
        **kwargs: Keyword arguments of MMSegmentation's ``EncoderDecoder``. In the two new modes, ``test_cfg``
            has ``crop_size`` and ``stride``, both (height, width) in pixels. In mode ``whole``, it can have
            ``size_multiple``, in pixels.

    Raises:
        ValueError: ``test_cfg.mode`` is unknown; ``crop_size``, ``stride`` or ``size_multiple`` is missing or
            out of its range; or a decode head with one sigmoid channel is used in a mode that averages
            probabilities.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mode = (self.test_cfg or {}).get('mode', 'whole')
        require(OWNER, 'test_cfg.mode', mode, mode in MODES, f'one of {MODES}')
        if mode in AVERAGED:
            self._check_windows(mode)
        self._check_size_multiple(mode)

    def _check_size_multiple(self, mode: str) -> None:
        multiple = (self.test_cfg or {}).get('size_multiple')
        if multiple is None:
            return
        valid = type(multiple) is int and multiple >= 1
        require(OWNER, 'test_cfg.size_multiple', multiple, valid, 'a number of pixels, 1 or more')
        if mode != 'whole':
            raise ValueError(
                f"{OWNER}: test_cfg.size_multiple needs mode 'whole', but test_cfg.mode is {mode!r}. Use "
                f"mode 'whole', or a crop_size that is a multiple of {multiple}."
            )

    def _check_windows(self, mode: str) -> None:
        crop_size, stride = (self._read_size(key) for key in ('crop_size', 'stride'))
        no_gaps = all(step <= size for step, size in zip(stride, crop_size, strict=True))
        require(OWNER, 'test_cfg.stride', stride, no_gaps, f'at most test_cfg.crop_size {crop_size}')
        if self.out_channels == 1:
            raise ValueError(
                f'{OWNER}: test_cfg.mode {mode!r} averages softmax probabilities, but '
                "decode_head.out_channels is 1 (a sigmoid). Use mode 'slide', or a head with two channels."
            )

    def _read_size(self, key: str) -> tuple[int, int]:
        value = self.test_cfg.get(key)
        valid = (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(isinstance(side, int) and side > 0 for side in value)
        )
        require(OWNER, f'test_cfg.{key}', value, valid, '(height, width) in pixels, both 1 or more')
        return tuple(value)

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Predict logits in the mode of ``test_cfg``.

        Args:
            inputs (Tensor): Normalized images of shape (N, 3, H, W).
            batch_img_metas (list[dict]): Meta information of each image.

        Returns:
            Tensor: Logits of shape (N, K, H, W).
        """
        if (self.test_cfg or {}).get('mode') in AVERAGED:
            return self.averaged_inference(inputs, batch_img_metas)
        return super().inference(inputs, batch_img_metas)

    def whole_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Predict logits of whole images, resized to multiples of ``test_cfg.size_multiple`` if it is set.

        Args:
            inputs (Tensor): Normalized images of shape (N, 3, H, W).
            batch_img_metas (list[dict]): Meta information of each image.

        Returns:
            Tensor: Logits of shape (N, K, H, W).
        """
        original = tuple(inputs.shape[2:])
        multiple = self.test_cfg.get('size_multiple') or 1
        size = tuple(nearest_multiple(side, multiple) for side in original)
        if size == original:
            return super().whole_inference(inputs, batch_img_metas)
        options = dict(mode='bilinear', align_corners=self.align_corners, warning=False)
        inputs = resize(inputs, size=size, **options)
        # with a torch.Size as img_shape, encode_decode returns logits of this size
        metas = [{**meta, 'img_shape': inputs.shape[2:]} for meta in batch_img_metas]
        return resize(self.encode_decode(inputs, metas), size=original, **options)

    def averaged_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Predict with sliding windows and average the probabilities.

        Args:
            inputs (Tensor): Normalized images of shape (N, 3, H, W).
            batch_img_metas (list[dict]): Meta information of each image.

        Returns:
            Tensor: Logarithms of the averaged probabilities, of shape (N, K, H, W), float32. Their softmax is
            the average.
        """
        height, width = inputs.shape[2:]
        total = inputs.new_zeros((len(inputs), self.out_channels, height, width), dtype=torch.float32)
        count = total.new_zeros((height, width))
        (crop_height, crop_width), (down, right) = self.test_cfg['crop_size'], self.test_cfg['stride']
        windows = clipped_windows if self.test_cfg['mode'] == 'slide_probs_clipped' else shifted_windows
        for rows in windows(height, crop_height, down):
            for columns in windows(width, crop_width, right):
                window = inputs[:, :, rows, columns]
                # with a torch.Size as img_shape, encode_decode returns logits of this size
                metas = [{**meta, 'img_shape': window.shape[2:]} for meta in batch_img_metas]
                logits = self.encode_decode(window, metas)
                total[:, :, rows, columns] += logits.softmax(dim=1, dtype=torch.float32)
                count[rows, columns] += 1
        # in place, because a copy needs 160 MB at 1024 x 2048 pixels and 19 classes. The clamp avoids -inf
        # for probabilities that underflow to 0: the resize to the original size would turn -inf into NaN.
        return total.div_(count).clamp_(min=torch.finfo(total.dtype).tiny).log_()


def clipped_windows(size: int, crop: int, stride: int) -> list[slice]:
    """Return the windows along one direction. They start at 0, stride, 2 * stride, ... and end at the border.

    Args:
        size (int): Size of the image in pixels.
        crop (int): Size of a window in pixels.
        stride (int): Distance of two starts in pixels.

    Returns:
        list[slice]: The windows, clipped at ``size``.
    """
    return [slice(start, min(start + crop, size)) for start in range(0, size, stride)]


def shifted_windows(size: int, crop: int, stride: int) -> list[slice]:
    """Return the windows along one direction. The last window is moved back to end at the border.

    Args:
        size (int): Size of the image in pixels.
        crop (int): Size of a window in pixels. A smaller image has one window of its own size.
        stride (int): Distance of two starts in pixels.

    Returns:
        list[slice]: The windows.
    """
    last = max(size - crop, 0)
    starts = [min(start, last) for start in range(0, last + stride, stride)]
    return [slice(start, min(start + crop, size)) for start in starts]
