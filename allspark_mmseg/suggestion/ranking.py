"""The ranking: score all images, choose, and say why."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..output import progress
from ..prediction import ImageLoader, LoadedImage
from .cache import ScoreCache, fingerprint, make_key
from .networks import Network
from .prediction import score_image
from .scores import combine
from .selection import MAX_CANDIDATES, Choice, preselect, select_diverse, standardize

POOL_FACTOR = 3  # candidates for each image to choose
STRATEGIES = ('combined', 'uncertainty', 'margin', 'disagreement', 'coverage', 'random')


@dataclass
class Scored:
    """Records of the images that could be read.

    Attributes:
        images (list[str]): Paths of the unlabeled images.
        records (list[dict]): Their records; see :func:`~allspark_mmseg.suggestion.scores.image_scores`.
        features (np.ndarray): (R, C) float16, the memory map of the cache, R >= N.
        rows (np.ndarray): (N,), the row of each image in ``features``.
        labeled (np.ndarray): (M, C) float16, of the labeled images.
        failed (list[str]): Why the others could not be read.
        reused (int): Images whose scores an earlier run has computed.
    """

    images: list[str]
    records: list[dict[str, Any]]
    features: np.ndarray
    rows: np.ndarray
    labeled: np.ndarray
    failed: list[str] = field(default_factory=list)
    reused: int = 0


@dataclass
class Suggestion:
    """An image to label.

    Attributes:
        image (str): Its path.
        score (float): In [0, 1]; see :func:`~allspark_mmseg.suggestion.scores.combine`.
        record (dict): Its scores.
        choice (Choice, optional): How the selection chose it. None if it was drawn at random.
    """

    image: str
    score: float
    record: dict[str, Any]
    choice: Choice | None = None


def read_ahead(paths: Sequence[str], loader: ImageLoader) -> Iterator[tuple[str, LoadedImage | Exception]]:
    """Load images, the next one while the caller works on one.

    Args:
        paths (Sequence[str]): The images.
        loader (ImageLoader): Loads them.

    Yields:
        tuple: The path, and what the loader returned or raised.
    """

    def read(path: str) -> LoadedImage | Exception:
        try:
            return loader(path)
        except Exception as error:  # transforms fail in their own ways
            return error

    with ThreadPoolExecutor(1) as pool:
        upcoming = iter(paths)
        waiting: list[tuple[str, Future]] = [(path, pool.submit(read, path)) for path in islice(upcoming, 1)]
        while waiting:
            path, future = waiting.pop()
            result = future.result()
            waiting = [(following, pool.submit(read, following)) for following in islice(upcoming, 1)]
            yield path, result


def _describe(error: Exception) -> str:
    # the loader itself raises a ValueError whose message follows the path
    return str(error) if isinstance(error, ValueError) else f'cannot be loaded ({error!r})'


def score_images(
    networks: Sequence[Network],
    loader: ImageLoader,
    images: Sequence[str],
    labeled: Sequence[str],
    folder: Path,
) -> Scored:
    """Score images, and keep the scores in a folder.

    Args:
        networks (Sequence[Network]): One or two networks.
        loader (ImageLoader): Loads the images.
        images (Sequence[str]): Paths of the images to rank.
        labeled (Sequence[str]): Paths of the labeled images, of which only the features are used.
        folder (Path): Folder of the cache.

    Returns:
        Scored: Records and features.

    Raises:
        ValueError: No image can be read.
    """
    key = make_key([network.file for network in networks], ([n.name for n in networks], loader.steps))
    marks = {path: fingerprint(path) for path in [*labeled, *images]}
    failed: dict[str, str] = {}
    with ScoreCache(folder, key) as cache:
        missing = [path for path, mark in marks.items() if cache.get(mark) is None]
        reused = sum(cache.get(marks[path]) is not None for path in images)
        if missing:
            for path, image in progress(read_ahead(missing, loader), 'scoring images', len(missing)):
                if isinstance(image, Exception):
                    failed[path] = f'{path} {_describe(image)}'
                else:
                    cache.add(marks[path], *score_image(networks, image.inputs[0]))
        good = [path for path in images if path not in failed]
        if not good:
            raise ValueError(f'none of the {len(images)} images can be read; the first: {failed[images[0]]}')
        known = [marks[path] for path in labeled if path not in failed]
        return Scored(
            good,
            [cache.records[marks[path]] for path in good],
            cache.features(),
            np.array([cache.records[marks[path]]['row'] for path in good]),
            cache.features(known) if known else np.zeros((0, cache.width), np.float16),
            list(failed.values()),
            reused,
        )


def rank(scored: Scored, num: int, strategy: str, pool: int | None, seed: int) -> list[Suggestion]:
    """Choose images to label.

    Args:
        scored (Scored): All images.
        num (int): Images to choose.
        strategy (str): One of `STRATEGIES`. ``'coverage'`` uses only features, ``'random'`` nothing.
        pool (int, optional): Candidates of the diverse selection: the images with the highest scores.
            Default: 3 for each image to choose. More candidates are more diverse and less uncertain.
        seed (int): Seed of ``'random'`` and, if there are more images than candidates, of ``'coverage'``.

    Returns:
        list[Suggestion]: ``num`` images, or all if there are fewer, the most useful first.
    """
    scores = combine(scored.records, strategy)
    generator = np.random.default_rng(seed)
    if strategy == 'random':
        order = generator.permutation(len(scored.images))[:num].tolist()
        return [Suggestion(scored.images[i], scores[i], scored.records[i]) for i in order]
    if strategy == 'coverage':
        most = pool or MAX_CANDIDATES
        candidates = generator.permutation(len(scores))[:most].tolist()
    else:
        candidates = preselect(scores, max(pool or POOL_FACTOR * num, num))
    candidates = candidates[:MAX_CANDIDATES]
    choices = select_diverse(
        standardize(scored.features[scored.rows[candidates]], scored.features, scored.rows),
        [scores[index] for index in candidates],
        standardize(scored.labeled, scored.features, scored.rows),
        num,
    )
    found = []
    for choice in choices:
        index = candidates[choice.index]
        found.append(Suggestion(scored.images[index], scores[index], scored.records[index], choice))
    return found


def explain(suggestion: Suggestion, classes: Sequence[str], strategy: str) -> str:
    """Return why an image was chosen, in a sentence.

    Args:
        suggestion (Suggestion): The image.
        classes (Sequence[str]): Names of the classes.
        strategy (str): The strategy.

    Returns:
        str: The reason.
    """
    record, choice = suggestion.record, suggestion.choice
    if choice is None:
        return 'drawn at random'
    parts = []
    if strategy != 'coverage' and record['unsure']:
        parts.append('unsure about ' + ', '.join(classes[label] for label in record['unsure']))
    if strategy in ('combined', 'disagreement') and record['differ']:
        parts.append('the networks differ on ' + ', '.join(classes[label] for label in record['differ']))
    if choice.distance is not None:
        parts.append(f'{choice.distance:.2f} x the usual distance to labeled and chosen images')
    if choice.duplicates:
        parts.append(f'stands for {len(choice.duplicates)} near-duplicates')
    if choice.is_duplicate:
        parts.append('itself a near-duplicate, because nothing else is left')
    return '; '.join(parts) or 'typical of many'
