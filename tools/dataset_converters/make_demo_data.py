"""Make a small data set for the demo without a download: handwritten digits in cluttered scenes.

    python tools/dataset_converters/make_demo_data.py [data/demo] [--labeled 128] [--unlabeled 872]

The digits are real handwriting: the 1797 images of scikit-learn (`sklearn.datasets.load_digits`). They are
enlarged, rotated, colored, and drawn over each other, over distracting strokes and shapes, and over a
textured background. There are 11 classes: 0 is the background, 1 to 10 are the digits 0 to 9. The mask marks
the ink. Training and validation scenes share no handwritten digit. Unlabeled images have no mask.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from demo_scenes import CLASSES, SPLITS, TRAIN_SHARE, load_sources, make_scene

RECIPE = 1  # increase it when the scenes change, so that older data are not used
PARAMS_FILE = 'params.json'
SMALLEST_SIZE = 32  # in smaller scenes the smallest digits are narrower than their 8 source pixels

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


def make_split(params: dict, split: str, number: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield scenes of a split.

    Scene i depends only on the seed, the size, the split and i. The topmost digits cycle through 0, 1, ...,
    9, so ten consecutive scenes contain every class.

    Args:
        params (dict): ``seed`` and ``size``, see `make_demo_data`.
        split (str): ``'train'`` or ``'val'``.
        number (int): Number of scenes.

    Yields:
        tuple[str, np.ndarray, np.ndarray]: Name, image and label map, see `make_scene`.
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
    """Write images, masks, lists, README and parameters below ``root``.

    Args:
        root (Path): Folder to write to.
        params (dict): See `make_demo_data`.

    Returns:
        dict[str, np.ndarray]: Pixels of each class in the labeled part (``labeled``) and in the validation
        set (``val``), each ``(11,)`` int64.
    """
    pixels = {part: np.zeros(len(CLASSES), np.int64) for part in ('labeled', 'val')}
    lists: dict[str, list[str]] = {'labeled': [], 'unlabeled': []}
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
    """Return whether ``out`` already contains the data of ``params``.

    Args:
        out (Path): The folder.
        params (dict): See `make_demo_data`.
        overwrite (bool): Whether demo data with other parameters may be replaced.

    Raises:
        FileExistsError: ``out`` contains other files, or demo data with other parameters and ``overwrite`` is
            False.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    params_file = out / PARAMS_FILE
    try:
        found = json.loads(params_file.read_text())
        recipe = found['recipe']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileExistsError(
            f'{out} exists and is not demo data of this script (it has no readable {PARAMS_FILE}): choose '
            'another folder, or remove it yourself'
        ) from error
    if found == params:
        return True
    if not overwrite:
        differing = ', '.join(
            f'{key} = {found.get(key)}, expected {value}'
            for key, value in params.items()
            if found.get(key) != value
        )
        raise FileExistsError(
            f'{out} contains demo data with other parameters (recipe {recipe}: {differing}); '
            'choose another folder, or replace them with --overwrite'
        )
    return False


def make_demo_data(out: Path, params: dict, overwrite: bool = False) -> dict[str, np.ndarray] | None:
    """Make the data set in the folder ``out``. If this fails, nothing is written.

    Args:
        out (Path): Folder to make.
        params (dict): ``recipe``, ``labeled``, ``unlabeled``, ``val`` (numbers of images), ``size`` (pixels)
            and ``seed``.
        overwrite (bool): Whether to replace demo data with other parameters.

    Returns:
        dict[str, np.ndarray], optional: Pixels of each class, see `write_data`. None if ``out`` already
        contains these data.

    Raises:
        FileExistsError: See `is_made`.
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
    """Format the share of each class in percent of the pixels, one column per part of the data."""
    lines = [f'{"% of pixels":<12}' + ''.join(f'{part:>10}' for part in pixels)]
    for index, name in enumerate(CLASSES):
        shares = (100 * count[index] / max(1, count.sum()) for count in pixels.values())
        lines.append(f'{name:<12}' + ''.join(f'{share:>10.2f}' for share in shares))
    return '\n'.join(lines)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description='Make a small data set of handwritten digits without a download.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('out', type=Path, nargs='?', default=Path('data/demo'), help='folder to make')
    parser.add_argument('--labeled', type=int, default=128, help='number of training images with mask')
    parser.add_argument('--unlabeled', type=int, default=872, help='number of training images without mask')
    parser.add_argument('--val', type=int, default=100, help='number of validation images')
    parser.add_argument('--size', type=int, default=97, help='side of the images in pixels')
    parser.add_argument('--seed', type=int, default=0, help='seed of the scenes')
    parser.add_argument('--overwrite', action='store_true', help='replace demo data with other options')
    args = parser.parse_args(arguments)
    for option, least in (('labeled', 1), ('unlabeled', 0), ('val', 1), ('size', SMALLEST_SIZE), ('seed', 0)):
        if (found := getattr(args, option)) < least:
            parser.error(f'--{option} is {found}; expected {least} or more')
    return args


def main(arguments: list[str] | None = None) -> None:
    """Make the data set and report its contents."""
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
        print(f'{args.out} already contains these demo data (same options): nothing to do')
        return
    print(
        f'{args.out}: {args.labeled} labeled, {args.unlabeled} unlabeled and {args.val} validation images '
        f'of {args.size} x {args.size} pixels\n{shares_table(pixels)}'
    )
    missing = [name for name, count in zip(CLASSES, pixels['labeled'], strict=True) if not count]
    if missing:
        print(f'warning: the labeled part lacks {", ".join(missing)}; 10 labeled images contain every class')


if __name__ == '__main__':
    main()
