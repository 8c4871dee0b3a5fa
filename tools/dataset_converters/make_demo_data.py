"""Make a small data set for the demo, without any download: handwritten digits in cluttered scenes.

The digits are real handwriting, the 1797 images that scikit-learn ships (`sklearn.datasets.load_digits`).
They are enlarged, turned, colored and laid over each other and over distracting strokes and blobs, on
textured ground. There are 11 classes: 0 is the background, 1 to 10 are the digits 0 to 9; the truth is
the ink. Training and validation scenes share no handwritten digit, and unlabeled images have no mask.

Usage: python tools/dataset_converters/make_demo_data.py [data/demo] [--labeled 32] [--unlabeled 480]
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

CLASSES = ('background', 'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
RECIPE = 1  # raise it when the scenes change, so that data of an older script is not taken for current
PARAMS_FILE = 'params.json'
SPLITS = ('train', 'val')
TRAIN_SHARE = 0.7
SMALLEST_SIZE = 32  # below this, the smallest digits are narrower than the 8 pixels they are made from

README = """Demo data for semi-supervised segmentation, made by tools/dataset_converters/make_demo_data.py.

Source: the handwritten digits of scikit-learn (sklearn.datasets.load_digits; UCI "Optical Recognition of
Handwritten Digits", 1797 images of 8 x 8 pixels, CC BY 4.0), enlarged, rotated, colored, occluded and
blurred over generated textures. Scenes in train use the first {train_share:.0%} of each digit's images,
scenes in val the rest.

images/train, images/val            JPEG (quality 95), {size} x {size} pixels
annotations/train, annotations/val  PNG, one byte a pixel: {legend}
labeled.txt                         {labeled} training images with their masks: "image mask"
unlabeled.txt                       {unlabeled} training images without masks: "image"
params.json                         what this folder was made with (seed {seed})
"""


def load_sources() -> dict[str, list[np.ndarray]]:
    """Handwritten digits of each split: ``sources[split][digit]`` is (K, 8, 8) float32 in [0, 1], 1 = ink.

    Within a digit, the first images go to ``train`` and the rest to ``val``. The order is that of the
    original collection, so the split does not depend on any seed, and neighbors (often one writer) stay
    together.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'the demo data are made from the digits that scikit-learn ships, and scikit-learn is not '
            'installed; run: pip install scikit-learn'
        ) from error
    data = load_digits()
    images = (data.images / 16).astype(np.float32)
    sources = {split: [] for split in SPLITS}
    for digit in range(10):
        of_digit = images[data.target == digit]
        border = round(TRAIN_SHARE * len(of_digit))
        sources['train'].append(of_digit[:border])
        sources['val'].append(of_digit[border:])
    return sources


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Random field (size, size), float32 in [0, 1], with about ``cells`` bumps along each side."""
    coarse = rng.random((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Textured ground (size, size, 3), float32 in [0, 255]: a gradient, stripes, or coarse or fine noise.

    It is darker than the ink, as a blackboard is: a small network shall find the ink within the minutes of
    a demo, and spend its labels on telling the digits apart.
    """
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    along = rows * np.sin(angle) + columns * np.cos(angle)
    kind = rng.integers(4)
    if kind == 0:
        field = along + 0.5
    elif kind == 1:
        field = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(3, 12) * along + phase)
        if rng.random() < 0.5:
            field = field.round()
    else:
        field = smooth_noise(rng, size, rng.integers(3, 8) if kind == 2 else rng.integers(15, 40))
    field = field + 0.2 * smooth_noise(rng, size, 6)
    first = rng.uniform(10, 110, 3)
    second = first + rng.normal(0, 30, 3)
    return (first + (second - first) * field[..., None]).clip(0, 255).astype(np.float32)


def digit_ink(rng: np.random.Generator, digit: np.ndarray, center: np.ndarray, size: int) -> np.ndarray:
    """Coverage (size, size), float32 in [0, 1], of a handwritten digit laid into the scene.

    Args:
        rng: draws the height (30 to 50 % of the scene), a rotation of up to 25 degrees (6 and 9 stay
            distinct) and a little stretch and slant.
        digit: (8, 8) in [0, 1].
        center: (2,), x and y of the digit's center in the scene, in pixels.
        size: side of the scene in pixels.
    """
    fine = 8
    enlarged = cv2.resize(np.pad(digit, 1), None, fx=fine, fy=fine, interpolation=cv2.INTER_CUBIC)
    scale = rng.uniform(0.3, 0.5) * size / (8 * fine)
    angle = np.deg2rad(rng.uniform(-25, 25))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stretch = np.array([[rng.uniform(0.85, 1.25), rng.uniform(-0.15, 0.15)], [0, 1]])
    linear = scale * turn @ stretch
    middle = np.full(2, (len(enlarged) - 1) / 2)
    place = np.column_stack([linear, center - linear @ middle])
    placed = cv2.warpAffine(enlarged, place, (size, size), flags=cv2.INTER_LINEAR)
    # The enlarged edge is `scale * fine` pixels wide; an edge of one to two pixels looks like pen on paper.
    return ((placed - 0.5) * max(1, 0.7 * scale * fine) + 0.5).clip(0, 1)


def distractor_ink(rng: np.random.Generator, size: int) -> np.ndarray:
    """Coverage (size, size), float32 in [0, 1], of something that is no digit: a zigzag, a blob or dots."""
    ink = np.zeros((size, size), np.uint8)
    kind = rng.integers(3)
    if kind == 0:
        points = (rng.uniform(0.05, 0.95, (rng.integers(4, 7), 2)) * size).astype(np.int32)
        cv2.polylines(ink, [points], False, 255, int(rng.integers(1, 5)), cv2.LINE_AA)
    elif kind == 1:
        corners = rng.uniform(-0.2, 0.2, (rng.integers(3, 8), 2)) + rng.uniform(0.1, 0.9, 2)
        hull = cv2.convexHull((corners * size).astype(np.int32))
        cv2.fillPoly(ink, [hull], 255, cv2.LINE_AA)
    else:
        for x, y in rng.integers(0, size, (rng.integers(4, 12), 2)).tolist():
            cv2.circle(ink, (x, y), int(rng.integers(2, 6)), 255, -1, cv2.LINE_AA)
    return ink.astype(np.float32) / 255


def paint(rng: np.random.Generator, image: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Lay ``ink`` (H, W) in [0, 1] over ``image`` (H, W, 3) in [0, 255], in a light textured color."""
    color = rng.uniform(130, 255, 3)
    texture = rng.uniform(0, 50) * (smooth_noise(rng, len(image), rng.integers(4, 30))[..., None] - 0.5)
    return image + ink[..., None] * (color + texture - image)


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Blur, change the contrast and brightness of, and add noise to an image (H, W, 3) -> uint8."""
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.2, 0.9))
    image = (image - 128) * rng.uniform(0.7, 1.1) + 128 + rng.uniform(-20, 20)
    image = image + rng.normal(0, rng.uniform(0, 10), image.shape)
    return image.round().clip(0, 255).astype(np.uint8)


def make_scene(rng: np.random.Generator, sources: list[np.ndarray], size: int, top_digit: int) -> tuple:
    """Compose one scene of two to five digits and up to two distractors.

    Args:
        rng: draws everything but the topmost digit.
        sources: ten arrays (K, 8, 8) in [0, 1]: the handwritten 0s, 1s, ..., 9s to choose from.
        size: side of the scene in pixels.
        top_digit: the digit, 0 to 9, that no other object covers.

    Returns:
        The image (size, size, 3) uint8, BGR, and its label map (size, size) uint8: 0 = background,
        1 + d = ink of digit d. What is laid later hides what lies below.
    """
    image = background(rng, size)
    label = np.zeros((size, size), np.uint8)
    layers = [*rng.integers(0, 10, rng.integers(1, 5)), *[None] * rng.integers(0, 3)]
    rng.shuffle(layers)
    layers.append(top_digit)
    # One object a cell of a 3 x 3 grid: digits, which are larger than a cell, overlap but do not pile up.
    cells = rng.permutation(9)[: len(layers)]
    for digit, cell in zip(layers, cells, strict=True):
        if digit is None:
            ink = distractor_ink(rng, size)
        else:
            within = (np.array([cell % 3, cell // 3]) + rng.uniform(0.2, 0.8, 2)) / 3
            center = size * (0.06 + 0.88 * within)
            ink = digit_ink(rng, rng.choice(sources[digit]), center, size)
        image = paint(rng, image, ink)
        label[ink >= 0.5] = 0 if digit is None else 1 + digit
    return photograph(rng, image), label


def make_split(params: dict, split: str, number: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield ``number`` scenes of a split as (name, image, label map), see `make_scene`.

    Scene i depends on the seed, the size, the split and i only. The topmost digits go round 0, 1, ..., 9, so
    ten consecutive scenes hold every class.
    """
    sources = load_sources()[split]
    for index in range(number):
        rng = np.random.default_rng([params['seed'], SPLITS.index(split), index])
        yield f'{split}_{index:04d}', *make_scene(rng, sources, params['size'], index % 10)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f'could not write {path}; is the disk full?')


def write_data(root: Path, params: dict) -> dict[str, np.ndarray]:
    """Write images, masks, lists, read-me and parameters under ``root``.

    Returns:
        Pixels of each class in the labeled part and in the validation set: ``labeled`` and ``val``,
        each (11,) int64.
    """
    pixels = {part: np.zeros(len(CLASSES), np.int64) for part in ('labeled', 'val')}
    lists = {'labeled': [], 'unlabeled': []}
    numbers = {'train': params['labeled'] + params['unlabeled'], 'val': params['val']}
    for split, number in numbers.items():
        for index, (name, image, label) in enumerate(make_split(params, split, number)):
            image_path, mask_path = f'images/{split}/{name}.jpg', f'annotations/{split}/{name}.png'
            _write(root / image_path, image)
            if split == 'train' and index >= params['labeled']:
                lists['unlabeled'].append(image_path)
                continue
            _write(root / mask_path, label)
            if split == 'train':
                lists['labeled'].append(f'{image_path} {mask_path}')
            part = 'labeled' if split == 'train' else 'val'
            pixels[part] += np.bincount(label.ravel(), minlength=len(CLASSES))
    for name, lines in lists.items():
        (root / f'{name}.txt').write_text(''.join(f'{line}\n' for line in lines))
    legend = ', '.join(f'{index} {name}' for index, name in enumerate(CLASSES))
    (root / 'README.txt').write_text(README.format(**params, train_share=TRAIN_SHARE, legend=legend))
    (root / PARAMS_FILE).write_text(json.dumps(params, indent=2) + '\n')
    return pixels


def is_made(out: Path, params: dict, overwrite: bool) -> bool:
    """Whether ``out`` already holds the data of ``params``.

    Raises:
        FileExistsError: ``out`` holds something else; or demo data of other parameters, without
            ``overwrite``. What is not demo data is never overwritten.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    params_file = out / PARAMS_FILE
    try:
        found = json.loads(params_file.read_text())
        recipe = found['recipe']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileExistsError(
            f'{out} exists and is not demo data made by this script (no readable '
            f'{PARAMS_FILE} in it): choose another folder, or remove it yourself'
        ) from error
    if found == params:
        return True
    if not overwrite:
        differing = ', '.join(
            f'{key} = {found.get(key)}, asked for {value}'
            for key, value in params.items()
            if found.get(key) != value
        )
        raise FileExistsError(
            f'{out} holds demo data made otherwise (recipe {recipe}: {differing}); '
            'choose another folder, or give --overwrite to replace them'
        )
    return False


def make_demo_data(out: Path, params: dict, overwrite: bool = False) -> dict[str, np.ndarray] | None:
    """Make the data set in the folder ``out``, whole or not at all.

    Args:
        out: folder to make; demo data with other parameters are replaced only with ``overwrite``.
        params: ``recipe``, ``labeled``, ``unlabeled``, ``val`` (numbers of images), ``size`` (pixels)
            and ``seed``.
        overwrite: replace demo data that were made with other parameters.

    Returns:
        The class pixels as `write_data` gives them; None when ``out`` already holds exactly these data.

    Raises:
        FileExistsError: see `is_made`.
    """
    out = out.resolve()
    if is_made(out, params, overwrite):
        return None
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as scratch:
        new = Path(scratch, 'new')
        new.mkdir()
        pixels = write_data(new, params)
        if out.exists():
            os.replace(out, Path(scratch, 'old'))
        os.replace(new, out)
    return pixels


def shares_table(pixels: dict[str, np.ndarray]) -> str:
    """Table of each class's share of the pixels, in percent, one column a part of the data."""
    lines = [f'{"% of pixels":<12}' + ''.join(f'{part:>10}' for part in pixels)]
    for index, name in enumerate(CLASSES):
        shares = (100 * count[index] / max(1, count.sum()) for count in pixels.values())
        lines.append(f'{name:<12}' + ''.join(f'{share:>10.2f}' for share in shares))
    return '\n'.join(lines)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description='Make a small digit segmentation data set; no download.')
    parser.add_argument('out', type=Path, nargs='?', default=Path('data/demo'), help='folder to make')
    parser.add_argument('--labeled', type=int, default=32, help='training images with a mask')
    parser.add_argument('--unlabeled', type=int, default=480, help='training images without a mask')
    parser.add_argument('--val', type=int, default=100, help='validation images')
    parser.add_argument('--size', type=int, default=97, help='side of the images in pixels')
    parser.add_argument('--seed', type=int, default=0, help='another seed makes other scenes')
    parser.add_argument('--overwrite', action='store_true', help='replace demo data made with other options')
    args = parser.parse_args(arguments)
    for option, least in (('labeled', 1), ('unlabeled', 0), ('val', 1), ('size', SMALLEST_SIZE), ('seed', 0)):
        if (found := getattr(args, option)) < least:
            parser.error(f'--{option} is {found}; expected {least} or more')
    return args


def main(arguments: list[str] | None = None) -> None:
    """Make the data set that the command line describes, and say what it holds."""
    args = parse_args(arguments)
    params = {
        'recipe': RECIPE,
        **{key: getattr(args, key) for key in ('labeled', 'unlabeled', 'val', 'size', 'seed')},
    }
    try:
        pixels = make_demo_data(args.out, params, args.overwrite)
    except (FileExistsError, ModuleNotFoundError) as error:
        raise SystemExit(f'error: {error}') from error
    if pixels is None:
        print(f'{args.out} already holds these demo data (same options): nothing to do')
        return
    print(
        f'{args.out}: {args.labeled} labeled, {args.unlabeled} unlabeled and {args.val} validation images '
        f'of {args.size} x {args.size} pixels\n{shares_table(pixels)}'
    )
    missing = [name for name, count in zip(CLASSES, pixels['labeled'], strict=True) if not count]
    if missing:
        print(f'warning: the labeled part lacks {", ".join(missing)}; 10 labeled images hold every class')


if __name__ == '__main__':
    main()
