"""What a label of an image would teach: uncertainty of one network, and disagreement of two.

A mean over the pixels is dominated by the background: a blowhole of 0.2 % of the pixels changes it by less
than the noise. So each score is a mean over the classes. The pixel x belongs to class c with the predicted
probability p_c(x), also where another class is more probable:

.. code-block:: text

    n_c     = sum_x p_c(x)                              expected pixels of the class
    E_c     = sum_x p_c(x) h(x) / n_c                   mean of a pixel score h in the class
    w_c     = n_c / (n_c + 0.001 HW)                    classes below 0.1 % of the image count less
    score   = sum_c w_c E_c / sum_c w_c

The pixel scores h are in [0, 1]: the entropy divided by log K, one minus the margin of the two most probable
classes, and the Jensen-Shannon divergence of two networks in bits.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SMALL_SHARE = 1e-3  # share of the pixels at which a class has half its weight
NAMED_CLASSES = 3
PIXEL_SCORES = ('uncertainty', 'margin', 'disagreement')


def pixel_entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy of each pixel divided by log K.

    Args:
        probabilities (Tensor): (K, H, W), their sum over K is 1.

    Returns:
        Tensor: (H, W), in [0, 1].
    """
    entropy = torch.special.entr(probabilities).sum(0)
    return entropy / math.log(max(len(probabilities), 2))


def pixel_margin(probabilities: Tensor) -> Tensor:
    """Return one minus the difference of the two highest probabilities of each pixel.

    Args:
        probabilities (Tensor): (K, H, W), K >= 2.

    Returns:
        Tensor: (H, W), in [0, 1].
    """
    first, second = probabilities.topk(2, dim=0).values
    return 1 - (first - second)


def pixel_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of two predictions for each pixel, in bits.

    Args:
        first (Tensor): (K, H, W), probabilities of one network.
        second (Tensor): (K, H, W), probabilities of the other network.

    Returns:
        Tensor: (H, W), in [0, 1]; 0 where they are equal.
    """
    entr = torch.special.entr
    nats = entr((first + second) / 2).sum(0) - (entr(first).sum(0) + entr(second).sum(0)) / 2
    return (nats / math.log(2)).clamp(0, 1)


@dataclass
class ClassSums:
    """Sums over the pixels of an image, for the means of the classes. Windows of an image add up.

    Attributes:
        pixels (int): Number of pixels HW.
        entropy (float): Sum of the entropy of the pixels, without classes.
        mass (Tensor): (K,), n_c.
        sums (dict[str, Tensor]): Name of a pixel score -> (K,), n_c E_c.
    """

    pixels: int
    entropy: float
    mass: Tensor
    sums: dict[str, Tensor]

    def __add__(self, other: 'ClassSums') -> 'ClassSums':
        """Add the sums of another part of the image."""
        return ClassSums(
            self.pixels + other.pixels,
            self.entropy + other.entropy,
            self.mass + other.mass,
            {name: value + other.sums[name] for name, value in self.sums.items()},
        )


def sum_classes(probabilities: Tensor, other: Tensor | None = None) -> ClassSums:
    """Sum the pixel scores of an image or of a window.

    Args:
        probabilities (Tensor): (K, H, W), of the network that labels.
        other (Tensor, optional): (K, H, W), of a second network.

    Returns:
        ClassSums: The sums in float64, on the CPU. Without a second network they have no disagreement.
    """
    maps = {'uncertainty': pixel_entropy(probabilities), 'margin': pixel_margin(probabilities)}
    if other is not None:
        maps['disagreement'] = pixel_divergence(probabilities, other)
    flat = probabilities.flatten(1)
    sums = {name: (flat @ value.flatten()).double().cpu() for name, value in maps.items()}
    entropy = maps['uncertainty'].double().sum().item()
    return ClassSums(flat.shape[1], entropy, flat.sum(1).double().cpu(), sums)


def class_weights(mass: Tensor, pixels: int) -> Tensor:
    """Return the weights w_c.

    Args:
        mass (Tensor): (K,), n_c.
        pixels (int): HW.

    Returns:
        Tensor: (K,), in [0, 1).
    """
    return mass / (mass + SMALL_SHARE * pixels)


def image_scores(sums: ClassSums) -> dict[str, Any]:
    """Compute the scores of an image.

    Args:
        sums (ClassSums): Sums over all its pixels.

    Returns:
        dict: ``uncertainty``, ``margin`` and ``disagreement`` (None without a second network) as the module
        defines them; ``entropy``, the mean over the pixels; and ``unsure`` and ``differ``: the classes that
        contribute most to uncertainty and disagreement, at most three each.
    """
    weights = class_weights(sums.mass, sums.pixels)
    means = {name: value / sums.mass.clamp(min=1e-12) for name, value in sums.sums.items()}
    scores: dict[str, Any] = dict.fromkeys(PIXEL_SCORES)
    for name, value in means.items():
        scores[name] = round(((weights * value).sum() / weights.sum()).item(), 6)
    return {
        **scores,
        'entropy': round(sums.entropy / sums.pixels, 6),
        'unsure': _main_classes(weights * means['uncertainty']),
        'differ': _main_classes(weights * means['disagreement']) if 'disagreement' in means else [],
    }


def _main_classes(shares: Tensor) -> list[int]:
    """Return the largest share, and the next ones that are clearly above the mean, the largest first."""
    values, classes = shares.topk(min(NAMED_CLASSES, len(shares)))
    least = min(1.25 * shares.mean().item(), values[0].item())
    return [int(index) for value, index in zip(values, classes, strict=True) if value >= least]


def percentiles(values: Sequence[float]) -> list[float]:
    """Return the rank of each value among all, from 0 (lowest) to 1 (highest). Equal values share a rank.

    Scores of two kinds have different scales, so their ranks are averaged instead of their values.

    Args:
        values (Sequence[float]): N values.

    Returns:
        list[float]: N ranks; 1 for a single value.
    """
    tensor = torch.as_tensor(values, dtype=torch.float64)
    if len(tensor) == 1:
        return [1.0]
    ordered = tensor.sort().values
    low, high = (torch.searchsorted(ordered, tensor, right=right) for right in (False, True))
    return ((low + high - 1) / (2 * (len(tensor) - 1))).tolist()


def combine(records: Iterable[dict[str, Any]], strategy: str) -> list[float]:
    """Return the score by which images are ranked, in [0, 1].

    Args:
        records (Iterable[dict]): Results of :func:`image_scores`.
        strategy (str): ``'combined'``: the mean rank of uncertainty and disagreement; ``'uncertainty'``,
            ``'margin'`` or ``'disagreement'``: the rank of this score; others: 1 for all.

    Returns:
        list[float]: One score for each record.

    Raises:
        ValueError: The strategy is ``'disagreement'``, and there is only one network.
    """
    records = list(records)
    names = {
        'combined': ['uncertainty', 'disagreement'],
        **{name: [name] for name in PIXEL_SCORES},
    }.get(strategy, [])
    if strategy == 'combined' and any(record['disagreement'] is None for record in records):
        names = ['uncertainty']
    if not names:
        return [1.0] * len(records)
    if any(record[name] is None for record in records for name in names):
        raise ValueError(
            'the strategy disagreement needs two networks, found one; name a training checkpoint '
            '(iter_*.pth) of a method with a teacher, or a work dir with supervised.pth and the network of '
            'the method'
        )
    ranks = [percentiles([record[name] for record in records]) for name in names]
    return [sum(values) / len(values) for values in zip(*ranks, strict=True)]
