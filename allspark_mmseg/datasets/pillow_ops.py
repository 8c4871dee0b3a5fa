"""Fast versions of PIL's image operations. The results equal PIL's results up to one gray level.

UniMatch and AllSpark augment images with PIL. OpenCV's own operations differ from PIL's by up to 13 gray
levels in hue and 40 in blur. The functions here reproduce PIL's rounding with the fastest library.

Images are (H, W, C) or (H, W) arrays of type uint8, uint16 or float32, and three bands are BGR. PIL has one
byte per band and at most four bands; for other images, the functions compute PIL's formulas. Each band is
treated by itself, as an image of one band. The functions of color mix the bands: they need three bands, and
leave an image of one band as it is, because PIL does so with a gray image in three bands. Integers are
rounded and clipped to the range of their type. float32 is neither rounded nor clipped.

Every function returns a contiguous array, or the image itself if nothing changes, and never writes to its
argument.
"""

import functools
import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageFilter


def resize(img: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize with PIL's ``BILINEAR``, which averages over the source pixels when it shrinks an image.

    Args:
        img (np.ndarray): Image of shape (H, W, C) or (H, W).
        height (int): New height in pixels.
        width (int): New width in pixels.

    Returns:
        np.ndarray: Image of shape (height, width, C) or (height, width), of the same type.
    """
    if img.shape[:2] == (height, width):
        return img
    if height >= img.shape[0] and width >= img.shape[1]:
        enlarged = cv2.resize(img, (width, height), interpolation=cv2.INTER_LINEAR)
        return enlarged.reshape(height, width, *img.shape[2:])  # OpenCV drops an axis of one band
    # OpenCV does not average when it shrinks an image; PyTorch's antialiased resize differs by two levels in
    # a few pixels
    return resize_pil(img, height, width)


def resize_pil(img: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize as :func:`resize` does, but with PIL also when the image grows."""
    if _is_pil_color(img):
        return np.array(Image.fromarray(img).resize((width, height), Image.Resampling.BILINEAR))
    # PIL takes four bands for RGBA and weights the first three by the fourth
    return _by_band(lambda band: _resize_band(band, height, width), img)


def _resize_band(band: np.ndarray, height: int, width: int) -> np.ndarray:
    if band.dtype == np.uint8:
        return np.array(Image.fromarray(band).resize((width, height), Image.Resampling.BILINEAR))
    values = Image.fromarray(band.astype(np.float32))
    return _as_type(np.array(values.resize((width, height), Image.Resampling.BILINEAR)), band.dtype)


def _is_pil_color(img: np.ndarray) -> bool:
    return img.dtype == np.uint8 and img.shape[2:] == (3,)


def _by_band(function: Callable[[np.ndarray], np.ndarray], img: np.ndarray) -> np.ndarray:
    """Apply a function of an image (H, W) to each band of an image (H, W, C) or (H, W)."""
    if img.ndim == 2:
        return function(img)
    bands = [function(np.ascontiguousarray(img[..., band])) for band in range(img.shape[2])]
    return np.stack(bands, axis=-1)


def _as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert floats to a type: round and clip to its range if it has integers."""
    if np.issubdtype(dtype, np.floating):
        return values.astype(dtype, copy=False)
    return np.rint(values).clip(0, np.iinfo(dtype).max).astype(dtype)


def nearest(old_length: int, new_length: int) -> np.ndarray:
    """Return the source position of each row or column of a map that PIL resizes with ``NEAREST``.

    Args:
        old_length (int): Old height or width in pixels.
        new_length (int): New height or width in pixels.

    Returns:
        np.ndarray: Positions of shape (new_length,), in [0, old_length).
    """
    # a cumulative sum, as in PIL, because products differ from it at positions close to integers
    steps = np.full(new_length, old_length / new_length)
    steps[0] /= 2
    return np.cumsum(steps).astype(np.intp)


def brightness(img: np.ndarray, factor: float) -> np.ndarray:
    """Blend an image (H, W, C) with black by a factor >= 0, as PIL's ``ImageEnhance.Brightness``."""
    return _blend(img, 0, factor)


def contrast(img: np.ndarray, factor: float) -> np.ndarray:
    """Blend an image (H, W, C) with its mean by a factor >= 0, as PIL's ``ImageEnhance.Contrast``.

    The mean is that of the gray version if there are three bands; otherwise each band has its own mean.
    """
    if img.shape[2:] != (3,):
        return _by_band(lambda band: _blend(band, cv2.mean(band)[0], factor), img)
    return _blend(img, cv2.mean(cv2.cvtColor(img, cv2.COLOR_BGR2GRAY))[0], factor)


def _blend(img: np.ndarray, level: float, factor: float) -> np.ndarray:
    """Blend all pixels with one value."""
    if img.dtype == np.uint8:
        return cv2.LUT(img, _blend_table(int(level + 0.5), factor)).reshape(img.shape)
    return _as_type(level + np.float32(factor) * (img.astype(np.float32) - np.float32(level)), img.dtype)


def _blend_table(level: int, factor: float) -> np.ndarray:
    blended = level + np.float32(factor) * (np.arange(256, dtype=np.float32) - level)
    return blended.clip(0, 255).astype(np.uint8)


def saturation(img: np.ndarray, factor: float) -> np.ndarray:
    """Blend an image (H, W, 3) with its gray version by a factor >= 0, as PIL's ``ImageEnhance.Color``."""
    if _is_gray(img):
        return img
    # PIL truncates and OpenCV rounds: -0.49 instead of -0.5 keeps integers
    return cv2.addWeighted(img, factor, grayscale(img), 1 - factor, -0.49 if img.dtype == np.uint8 else 0)


def grayscale(img: np.ndarray) -> np.ndarray:
    """Convert an image (H, W, 3) to PIL's mode ``L`` and repeat it in three channels."""
    if _is_gray(img):
        return img
    return cv2.cvtColor(cv2.cvtColor(img, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


def _is_gray(img: np.ndarray) -> bool:
    return img.ndim == 2 or img.shape[2] == 1


def hue(img: np.ndarray, shift: float) -> np.ndarray:
    """Shift PIL's 8-bit hue, as torchvision's ``adjust_hue`` does for PIL images.

    Let v be the largest channel, s the saturation and h the shifted hue, the last two truncated to 8 bits as
    in PIL's mode ``HSV``. Each channel becomes v * (1 - s * k(h)). k is 0 on the third of the color circle
    around the color of the channel, 1 on the opposite third, and linear in between.

    Args:
        img (np.ndarray): Image of shape (H, W, 3), BGR. For uint16 and float32, the hue is not truncated.
        shift (float): Shift as a fraction of the color circle, in [-1, 1].

    Returns:
        np.ndarray: Image of shape (H, W, 3), BGR.
    """
    if _is_gray(img):
        return img
    if img.dtype != np.uint8:
        hsv = cv2.cvtColor(img.astype(np.float32), cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0] + shift * 360) % 360
        return _as_type(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), img.dtype)
    blue, green, red = cv2.split(img)
    low, high = cv2.min(red, green), cv2.max(red, green)
    value = cv2.max(high, blue)
    middle = cv2.max(low, cv2.min(high, blue))
    low = cv2.min(low, blue)
    chroma = cv2.subtract(value, low)
    order = (green > blue) | np.uint8(2) * (blue > red) | np.uint8(4) * (red > green)
    hues = _look_up(_hue_table(), chroma, cv2.subtract(middle, low), order)
    spread = cv2.divide(chroma, np.maximum(value, 1), scale=255, dtype=cv2.CV_32F)
    np.floor(spread, out=spread)
    spread = cv2.multiply(spread, value, scale=1 / 255, dtype=cv2.CV_32F)
    position = (np.arange(256) + int(shift * 255)) % 256 * (6 / 255)
    channels = []
    for center in (4, 2, 0):  # blue, green, red
        distance = np.abs((position - center + 3) % 6 - 3)
        loss = cv2.LUT(hues, np.clip(distance - 1, 0, 1).astype(np.float32))
        channels.append(cv2.subtract(value, cv2.multiply(spread, loss, dtype=cv2.CV_8U)))
    return cv2.merge(channels)


def _look_up(table: np.ndarray, low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> np.ndarray:
    # reading four adjacent bytes as one index is ten times faster than computing the index
    index = cv2.merge([low, middle, high, np.zeros_like(low)]).view('<i4')[..., 0]
    return table.take(index, mode='clip')


@functools.cache
def _hue_table() -> np.ndarray:
    """Make a table of PIL's hues, (8 * 256 * 256,) uint8.

    A hue is a function of the order of the channels (6 of 8 codes), of middle minus smallest, and of largest
    minus smallest channel. The table is read from PIL's conversion of images with all combinations. A formula
    does not reproduce PIL's truncation of values just below an integer.
    """
    middle, chroma = np.mgrid[:256, :256]
    sorted_channels = [np.full_like(chroma, 255), np.clip(255 - chroma + middle, 0, 255), 255 - chroma]
    table = np.zeros((8, 256, 256), dtype=np.uint8)
    for order, channels in {5: 'RGB', 1: 'GRB', 3: 'GBR', 2: 'BGR', 6: 'BRG', 4: 'RBG'}.items():
        color = np.stack([sorted_channels[channels.index(name)] for name in 'RGB'], axis=2)
        table[order] = np.array(Image.fromarray(color.astype(np.uint8)).convert('HSV'))[..., 0]
    return table.ravel()


def gaussian_blur(img: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with PIL's ``GaussianBlur``: three box filters in each direction. The result equals PIL's exactly.

    For sigma < sqrt(2), a box covers three pixels: a pixel b between a and c becomes b + w * (a - 2b + c),
    rounded. So a pass rounds products of w with integers in [-510, 510]. If no product is close to a
    half-integer, OpenCV's floating-point filter rounds like PIL. Otherwise this function calls PIL.

    Args:
        img (np.ndarray): Image of shape (H, W, C) or (H, W).
        sigma (float): Standard deviation in pixels (PIL's radius), at least 0.

    Returns:
        np.ndarray: Blurred image of the same shape and type.
    """
    if img.dtype != np.uint8:
        return _as_type(_filter(img.astype(np.float32), _box(sigma)), img.dtype)
    weight = sigma**2 / 6  # a pass has the variance 2w, three passes have sigma^2
    products = weight * np.arange(511)
    # the float32 error of a sum of three products below 255 is less than 1e-4
    if sigma**2 >= 2 or np.abs(products % 1 - 0.5).min() < 1e-4:
        blur = ImageFilter.GaussianBlur(sigma)
        if _is_pil_color(img):
            return np.array(Image.fromarray(img).filter(blur))
        return _by_band(lambda band: np.array(Image.fromarray(band).filter(blur)), img)
    return _filter(img, np.array([[weight, 1 - 2 * weight, weight]], dtype=np.float32))


def _box(sigma: float) -> np.ndarray:
    """Make PIL's box filter (1, n) float32, three of which have the variance of a Gaussian.

    The box has the radius r + w: 2 r + 1 pixels of equal weight, and a pixel of the weight w < 1 at each end.
    """
    variance = sigma**2 / 3
    radius = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    end = (2 * radius + 1) * (radius * (radius + 1) - 3 * variance) / (6 * (variance - (radius + 1) ** 2))
    kernel = np.array([[end, *[1.0] * (2 * radius + 1), end]], dtype=np.float32)
    return kernel / kernel.sum()


def _filter(img: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Apply a filter (1, n) three times in each direction."""
    shape = img.shape
    for direction in (kernel, kernel.T.copy()):
        for _ in range(3):
            img = cv2.filter2D(img, -1, direction, borderType=cv2.BORDER_REPLICATE)
    return img.reshape(shape)
