"""The validation images that a report shows, by rules that do not depend on taste."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..datasets.file_checks import evenly_spaced
from .evaluate import Evaluation


@dataclass
class Selection:
    """Images of a contact sheet, and the rule by which they were chosen.

    Attributes:
        indices (list[int]): Indices in the data set, one for each row.
        captions (list[str]): Position of each image in the ranking.
        rule (str): The rule, for the foot of the sheet.
    """

    indices: list[int]
    captions: list[str]
    rule: str


@dataclass
class Choice:
    """Images of one part of the page.

    Attributes:
        title (str): What they have in common.
        rule (str): The rule by which they were chosen.
        indices (list[int]): Indices in the data set.
    """

    title: str
    rule: str
    indices: list[int]


def image_gain(first: Evaluation, last: Evaluation) -> np.ndarray:
    """Return the mIoU of each image with ``last`` minus that with ``first``, in percent ``(N,)``."""
    return last.image_iou - first.image_iou


def rank_images(values: np.ndarray) -> list[int]:
    """Return the images with a value, the highest first.

    Args:
        values (np.ndarray): ``(N,)``, a value of each image; NaN has no rank.

    Returns:
        list[int]: Their indices.

    Raises:
        ValueError: All values are NaN.
    """
    if not np.isfinite(values).any():
        raise ValueError(
            'no validation image has a labeled pixel; expected masks that are not ignored everywhere'
        )
    ranking = np.argsort(-values, kind='stable')  # NaN comes last
    return ranking[: np.isfinite(values).sum()].tolist()


def pick_ranks(values: np.ndarray, num: int, kind: str) -> Selection:
    """Pick images at evenly spaced ranks, from the best to the worst.

    Args:
        values (np.ndarray): ``(N,)``, a value of each image. Images with NaN have no rank.
        num (int): Number of images to pick. If it is odd, the median is among them.
        kind (str): What the values are, for the rule.

    Returns:
        Selection: The images, best first.

    Raises:
        ValueError: All values are NaN.
    """
    ranking = rank_images(values)
    count = len(ranking)
    ranks = evenly_spaced(count, num)
    percentiles = ', '.join(f'{100 - 100 * rank / max(count - 1, 1):.0f}' for rank in ranks)
    rule = f'Rows: validation images at the percentiles {percentiles} of the {kind}, best first.'
    captions = [f'rank {rank + 1} of {count}' for rank in ranks]
    return Selection([ranking[rank] for rank in ranks], captions, rule)


def describe_gain(first: Evaluation, last: Evaluation) -> str:
    """Say what the gain is, and in how many images it is positive and negative."""
    gain = image_gain(first, last)
    return (
        f'Gain: mIoU of the image with {last.network.name} minus mIoU with {first.network.name}, over the '
        f'classes in its ground truth. It is positive in {(gain > 0).sum()} and negative in '
        f'{(gain < 0).sum()} of {len(gain)} images.'
    )


def choose_images(evaluations: Sequence[Evaluation], num: int) -> list[Choice]:
    """Choose the images that changed most, the worst and the best ones. No image is chosen twice.

    Args:
        evaluations (Sequence[Evaluation]): One evaluation, or several of which the first and the last are
            compared. Best and worst are those of the last one.
        num (int): Number of images.

    Returns:
        list[Choice]: The parts that have images.

    Raises:
        ValueError: No image has a labeled pixel.
    """
    first, last = evaluations[0], evaluations[-1]
    ranking = rank_images(last.image_iou)
    num = min(num, len(ranking))
    changed = num // 2 if len(evaluations) > 1 else 0
    gain = image_gain(first, last)
    order = rank_images(gain)
    up = [index for index in order if gain[index] > 0][: -(-changed // 2)]
    down = [index for index in order[::-1] if gain[index] < 0][: changed // 2]
    rest = [index for index in ranking if index not in {*up, *down}]
    left = num - len(up) - len(down)
    bad, good = left // 2, left - left // 2
    name = last.network.name
    choices = [
        Choice('Most improved', f'The largest gain of {name} over {first.network.name}.', up),
        Choice('Most worsened', f'The largest loss of {name} against {first.network.name}.', down),
        Choice('Worst', f'The lowest mIoU with {name}.', rest[len(rest) - bad :][::-1]),
        Choice('Best', f'The highest mIoU with {name}.', rest[:good]),
    ]
    return [choice for choice in choices if choice.indices]
