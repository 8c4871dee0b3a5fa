"""PIL's operations on images as arrays, by whichever library is fastest and equal within one gray level.

UniMatch and AllSpark augment with PIL, whose rounding is part of their distribution: OpenCV's counterparts
are up to 13 gray levels off in hue and 40 in blur. Images are (H, W, 3) uint8 in BGR; each function returns a
contiguous array, the image itself where nothing changes, and never writes to its argument.
"""

import functools

import cv2
import numpy as np
from PIL import Image, ImageFilter


def resize(img: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image as PIL's ``BILINEAR``, which averages over the source pixels where it shrinks."""
    if img.shape[:2] == (height, width):
        return img
    if height >= img.shape[0] and width >= img.shape[1]:
        return cv2.resize(img, (width, height), interpolation=cv2.INTER_LINEAR)
    # OpenCV's interpolation skips pixels where it shrinks; Torch's, with antialiasing, is two levels off in
    # rare pixels
    return np.array(Image.fromarray(img).resize((width, height), Image.BILINEAR))


def nearest(old_length: int, new_length: int) -> np.ndarray:
    """Return the old position of each new row (or column) of a map that PIL resizes with ``NEAREST``."""
    # summed up one by one, as PIL does: products would differ where a position is nearly whole
    steps = np.full(new_length, old_length / new_length)
    steps[0] /= 2
    return np.cumsum(steps).astype(np.intp)


def brightness(img: np.ndarray, factor: float) -> np.ndarray:
    """Blend with black, as ``ImageEnhance.Brightness``."""
    return cv2.LUT(img, _blend_with(0, factor))


def contrast(img: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the mean of the gray version, as ``ImageEnhance.Contrast``."""
    mean = cv2.mean(cv2.cvtColor(img, cv2.COLOR_BGR2GRAY))[0]
    return cv2.LUT(img, _blend_with(int(mean + 0.5), factor))


def _blend_with(level: int, factor: float) -> np.ndarray:
    blended = level + np.float32(factor) * (np.arange(256, dtype=np.float32) - level)
    return blended.clip(0, 255).astype(np.uint8)


def saturation(img: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the gray version, as ``ImageEnhance.Color``."""
    # PIL truncates; OpenCV rounds, so whole numbers need a little more than minus one half to stay
    return cv2.addWeighted(img, factor, grayscale(img), 1 - factor, -0.49)


def grayscale(img: np.ndarray) -> np.ndarray:
    """Repeat the gray version, PIL's mode ``L``, in three channels."""
    return cv2.cvtColor(cv2.cvtColor(img, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


def hue(img: np.ndarray, turn: float) -> np.ndarray:
    """Turn PIL's 8-bit hue by ``turn`` of the circle, -1 to 1, as torchvision's ``adjust_hue`` of PIL images.

    With v the largest channel, s the saturation and h the turned hue, both truncated to 8 bits as in PIL's
    mode ``HSV``, each channel becomes v (1 - s k(h)), where k is 0 on the third of the color circle around
    the channel's own color, 1 on the opposite third, and linear between them.
    """
    blue, green, red = cv2.split(img)
    low, high = cv2.min(red, green), cv2.max(red, green)
    value = cv2.max(high, blue)
    middle = cv2.max(low, cv2.min(high, blue))
    low = cv2.min(low, blue)
    chroma = cv2.subtract(value, low)
    order = (green > blue) | np.uint8(2) * (blue > red) | np.uint8(4) * (red > green)
    hues = _look_up(_hues(), chroma, cv2.subtract(middle, low), order)
    spread = cv2.divide(chroma, cv2.max(value, 1), scale=255, dtype=cv2.CV_32F)
    np.floor(spread, out=spread)
    spread = cv2.multiply(spread, value, scale=1 / 255, dtype=cv2.CV_32F)
    position = (np.arange(256) + int(turn * 255)) % 256 * (6 / 255)
    channels = []
    for center in (4, 2, 0):  # blue, green, red
        distance = np.abs((position - center + 3) % 6 - 3)
        loss = cv2.LUT(hues, np.clip(distance - 1, 0, 1).astype(np.float32))
        channels.append(cv2.subtract(value, cv2.multiply(spread, loss, dtype=cv2.CV_8U)))
    return cv2.merge(channels)


def _look_up(table: np.ndarray, low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> np.ndarray:
    # three bytes beside each other are an index, which costs a tenth of what its arithmetic would
    index = cv2.merge([low, middle, high, np.zeros_like(low)]).view('<i4')[..., 0]
    return table.take(index, mode='clip')


@functools.cache
def _hues() -> np.ndarray:
    """Make the table of PIL's hues.

    A hue follows from the order of the channels (an octet of which two are not used), the middle less the
    smallest channel, and the largest less the smallest, so it is read from images that have all of these.
    Where PIL's floating point falls just below a whole number it truncates to the one before: a formula
    would have to do so in the same places.
    """
    middle, chroma = np.mgrid[:256, :256]
    sorted_channels = [np.full_like(chroma, 255), np.clip(255 - chroma + middle, 0, 255), 255 - chroma]
    table = np.zeros((8, 256, 256), dtype=np.uint8)
    for order, channels in {5: 'RGB', 1: 'GRB', 3: 'GBR', 2: 'BGR', 6: 'BRG', 4: 'RBG'}.items():
        color = np.stack([sorted_channels[channels.index(name)] for name in 'RGB'], axis=2)
        table[order] = np.array(Image.fromarray(color.astype(np.uint8)).convert('HSV'))[..., 0]
    return table.ravel()


def gaussian_blur(img: np.ndarray, sigma: float) -> np.ndarray:
    """Blur as PIL's ``GaussianBlur`` of radius ``sigma``, three box filters a direction. Equal to PIL.

    Below sigma = sqrt(2) a box reaches over three pixels: b between a and c becomes b + w (a - 2b + c),
    rounded. So a pass rounds only products of w and a number from -510 to 510; if none of them lies near a
    half, OpenCV's floating point rounds as PIL's integers do. Otherwise PIL does it.
    """
    weight = sigma**2 / 6  # the variance of a pass is 2w, that of three is sigma^2
    products = weight * np.arange(511)
    # a float32 sum of three products below 255 is wrong by less than 1e-4
    if sigma**2 >= 2 or np.abs(products % 1 - 0.5).min() < 1e-4:
        return np.array(Image.fromarray(img).filter(ImageFilter.GaussianBlur(sigma)))
    kernel = np.array([[weight, 1 - 2 * weight, weight]], dtype=np.float32)
    for direction in (kernel, kernel.T.copy()):
        for _ in range(3):
            img = cv2.filter2D(img, -1, direction, borderType=cv2.BORDER_REPLICATE)
    return img
