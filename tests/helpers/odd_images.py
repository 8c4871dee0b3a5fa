"""Image files of every kind that users have, made of noise."""

import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (20, 30)  # height, width


def noise(*bands: int, dtype: str = 'uint8', high: int | None = None) -> np.ndarray:
    top = high or np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (*SIZE, *bands), endpoint=True).astype(dtype)


def write_tiff(path: Path, pixels: np.ndarray) -> None:
    """Write an uncompressed TIFF of any number of bands above two. Pillow writes at most four."""
    height, width, bands = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder('<')).tobytes()
    bits = np.full(bands, pixels.itemsize * 8, '<u2').tobytes()
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, bands, 8 + len(data)),  # offset of the bits; bands > 2
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, bands),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]
    table = struct.pack('<H', len(entries)) + b''.join(struct.pack('<HHII', *entry) for entry in entries)
    header = struct.pack('<2sHI', b'II', 42, 8 + len(data) + len(bits))
    path.write_bytes(header + data + bits + table + b'\0\0\0\0')


def write(kind: str, path: Path) -> Path:
    """Write an image of a kind, named as the suffix and the mode; return the path."""
    suffix, _, mode = kind.partition(' ')
    path = path.with_suffix(f'.{suffix}')
    if mode == 'RGB16':
        cv2.imwrite(str(path), noise(3, dtype='uint16'))
    elif mode == 'L16':
        Image.fromarray(noise(dtype='uint16', high=4030)).save(path)
    elif mode == '7x16':
        write_tiff(path, noise(7, dtype='uint16'))
    elif mode == '4x8':
        write_tiff(path, noise(4))
    elif mode == 'F':
        Image.fromarray(noise().astype(np.float32)).save(path)
    elif mode == 'rotated':
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(noise(3)).save(path, exif=exif)
    elif mode in ('RGBA', 'LA'):
        Image.fromarray(noise(4), 'RGBA').convert(mode).save(path)
    else:
        Image.fromarray(noise(3)).convert(mode).save(path)
    return path


def cut(path: Path, keep: float = 0.6) -> Path:
    """Remove the end of a file, as an interrupted copy does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path
