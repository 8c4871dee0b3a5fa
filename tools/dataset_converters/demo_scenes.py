"""Scenes of handwritten digits for the demo data: real digits over generated backgrounds."""

import cv2
import numpy as np

CLASSES = ('background', 'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
SPLITS = ('train', 'val')
TRAIN_SHARE = 0.7


def load_sources() -> dict[str, list[np.ndarray]]:
    """Load the handwritten digits of each split.

    The first images of each digit go to ``train`` and the rest to ``val``, in the order of the original
    collection. The split does not depend on a seed, and neighboring images, often of one writer, stay
    together.

    Returns:
        dict[str, list[np.ndarray]]: ``sources[split][digit]`` is ``(K, 8, 8)`` float32 in [0, 1]; 1 is ink.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'the demo data use the digits of scikit-learn, which is not installed; run: '
            'pip install scikit-learn'
        ) from error
    data = load_digits()
    images = (data.images / 16).astype(np.float32)
    sources: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for digit in range(10):
        of_digit = images[data.target == digit]
        border = round(TRAIN_SHARE * len(of_digit))
        sources['train'].append(of_digit[:border])
        sources['val'].append(of_digit[border:])
    return sources


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Draw a smooth random field.

    Args:
        rng (np.random.Generator): Source of the random numbers.
        size (int): Side in pixels.
        cells (int): Approximate number of bumps along each side.

    Returns:
        np.ndarray: ``(size, size)`` float32 in [0, 1].
    """
    coarse = rng.random((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a textured background: a gradient, stripes, or coarse or fine noise.

    It is darker than the ink, like a blackboard, so that a small network finds the ink within minutes and
    uses its labels to distinguish the digits.

    Args:
        rng (np.random.Generator): Source of the random numbers.
        size (int): Side in pixels.

    Returns:
        np.ndarray: ``(size, size, 3)`` float32 in [0, 255].
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
        field = smooth_noise(rng, size, int(rng.integers(3, 8) if kind == 2 else rng.integers(15, 40)))
    field = field + 0.2 * smooth_noise(rng, size, 6)
    first = rng.uniform(10, 110, 3)
    second = first + rng.normal(0, 30, 3)
    return (first + (second - first) * field[..., None]).clip(0, 255).astype(np.float32)


def digit_ink(rng: np.random.Generator, digit: np.ndarray, center: np.ndarray, size: int) -> np.ndarray:
    """Place a handwritten digit in the scene.

    Args:
        rng (np.random.Generator): Draws the height (30 to 50 % of the scene), a rotation of up to 25 degrees
            (6 and 9 stay distinct), and a little stretch and slant.
        digit (np.ndarray): ``(8, 8)`` in [0, 1].
        center (np.ndarray): ``(2,)``, x and y of the digit's center in the scene, in pixels.
        size (int): Side of the scene in pixels.

    Returns:
        np.ndarray: Ink coverage ``(size, size)`` float32 in [0, 1].
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
    # the enlarged edge is `scale * fine` pixels wide; an edge of one to two pixels looks like pen on paper
    return ((placed - 0.5) * max(1, 0.7 * scale * fine) + 0.5).clip(0, 1)


def distractor_ink(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a distractor: a zigzag line, a polygon or dots.

    Args:
        rng (np.random.Generator): Source of the random numbers.
        size (int): Side of the scene in pixels.

    Returns:
        np.ndarray: Ink coverage ``(size, size)`` float32 in [0, 1].
    """
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
    """Blend ink ``(H, W)`` in [0, 1] over an image ``(H, W, 3)`` in [0, 255], in a light textured color."""
    color = rng.uniform(130, 255, 3)
    texture = rng.uniform(0, 50) * (smooth_noise(rng, len(image), int(rng.integers(4, 30)))[..., None] - 0.5)
    return image + ink[..., None] * (color + texture - image)


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Blur an image ``(H, W, 3)``, change its contrast and brightness, add noise, and round it to uint8."""
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.2, 0.9))
    image = (image - 128) * rng.uniform(0.7, 1.1) + 128 + rng.uniform(-20, 20)
    image = image + rng.normal(0, rng.uniform(0, 10), image.shape)
    return image.round().clip(0, 255).astype(np.uint8)


def make_scene(
    rng: np.random.Generator, sources: list[np.ndarray], size: int, top_digit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compose one scene of two to five digits and up to two distractors.

    Args:
        rng (np.random.Generator): Draws everything except the topmost digit.
        sources (list[np.ndarray]): Ten arrays ``(K, 8, 8)`` in [0, 1]: images of the digits 0 to 9.
        size (int): Side of the scene in pixels.
        top_digit (int): The digit, 0 to 9, that no other object covers.

    Returns:
        tuple[np.ndarray, np.ndarray]: The image ``(size, size, 3)`` uint8, BGR, and its label map
        ``(size, size)`` uint8: 0 is background, 1 + d is ink of digit d. Later objects cover earlier ones.
    """
    image = background(rng, size)
    label = np.zeros((size, size), np.uint8)
    layers = [*rng.integers(0, 10, rng.integers(1, 5)), *[None] * rng.integers(0, 3)]
    rng.shuffle(layers)
    layers.append(top_digit)
    # one object per cell of a 3 x 3 grid: digits are larger than a cell, so they overlap, but they do not
    # pile up
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
