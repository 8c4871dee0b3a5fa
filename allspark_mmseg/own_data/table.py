"""What the images and masks of the streams are, as tables for the terminal."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from .files import Problem
from .labels import Labels
from .prepare import Streams, Understanding

_SHOWN = 3  # files of each kind of problem


def class_table(labels: Labels, streams: Streams) -> Table:
    """Show the classes: share of the pixels, and in how many labeled images each occurs.

    Args:
        labels (Labels): The masks.
        streams (Streams): The images.

    Returns:
        Table: One row per class, and one for ignored pixels if there are any.
    """
    counts = {
        name: np.array([labels.counts[image] for image in images])
        for name, images in (('labeled', streams.labeled), ('validation', streams.val))
    }
    every = np.concatenate(list(counts.values())).sum(axis=0)
    table = Table(
        'number', 'class', 'pixels', 'labeled images', 'validation images', box=None, pad_edge=False
    )
    rows = [*enumerate(labels.classes), *([(255, '(ignored)')] if every[255] else [])]
    for number, name in rows:
        present = [str(int((counts[stream][:, number] > 0).sum())) for stream in counts]
        table.add_row(str(number), name, f'{every[number] / every.sum():.2%}', *present)
    return table


def stream_table(found: Understanding, streams: Streams) -> Table:
    """Show the streams: number, sizes, channels and formats of their images.

    Args:
        found (Understanding): Facts of the images.
        streams (Streams): The images.

    Returns:
        Table: One row per stream.
    """
    table = Table(
        'stream', 'images', 'width', 'height', 'channels', 'bits', 'format', box=None, pad_edge=False
    )
    for name, images in (
        ('labeled', streams.labeled),
        ('unlabeled', streams.unlabeled),
        ('validation', streams.val),
    ):
        facts = [found.images[image] for image in images]
        sizes = np.array([fact['size'] for fact in facts]).reshape(-1, 2)
        ranges = [_range(sizes[:, axis]) for axis in (0, 1)]
        kinds = [_count(str(fact[key]) for fact in facts) for key in ('mode', 'bits', 'format')]
        table.add_row(name, str(len(images)), *ranges, *kinds)
    return table


def _range(values: np.ndarray) -> str:
    if not len(values):
        return '-'
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f'{low} to {high}'


def _count(values) -> str:  # type: ignore[no-untyped-def]
    counts = Counter(values)
    if len(counts) == 1:
        return next(iter(counts))
    return ', '.join(f'{value} ({count})' for value, count in counts.most_common()) or '-'


def problem_lines(problems: Sequence[Problem], where: str) -> list[str]:
    """Summarize problems: the number of files of each kind, and the first few.

    Args:
        problems (Sequence[Problem]): The problems.
        where (str): The file with all of them.

    Returns:
        list[str]: Lines; none if there is no problem.
    """
    if not problems:
        return []
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(' '.join(problem.reason.split()[:3]), []).append(problem)
    lines = [f'{len(problems)} files are left out; {where} lists all:']
    for group in sorted(kinds.values(), key=len, reverse=True):
        lines += [f'  {problem.path} {problem.reason}' for problem in group[:_SHOWN]]
        if len(group) > _SHOWN:
            lines.append(f'  ... and {len(group) - _SHOWN} more like this')
    return lines
