"""Scores of a large image, window by window and in strips of rows, so that memory stays bounded.

A score is a logit or a probability. All arrays of scores have K channels, and K times the number of pixels of
a large image does not fit in memory. So a strip is complete when no later window reaches it, and it is used
and forgotten before the next one is complete.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Window = tuple[slice, slice]
ScoreFunction = Callable[[list[Window]], Tensor]
CHUNK = 64  # rows that are used at a time


def average_windows(
    scores: ScoreFunction, rows: Sequence[slice], columns: Sequence[slice], batch: int
) -> Iterator[Tensor]:
    """Average the scores of overlapping windows.

    Args:
        scores (Callable): Takes at most ``batch`` windows of one size, and returns their scores
            (B, K, h, w) float32.
        rows (Sequence[slice]): Rows of the windows. Starts increase from 0, and the last window ends at the
            last row.
        columns (Sequence[slice]): Columns of the windows, in the same way.
        batch (int): Windows per call.

    Yields:
        Tensor: Scores (K, n, W) of the next rows, at most ``CHUNK`` of them. Each pixel has the mean over its
        windows.
    """
    height, width = rows[-1].stop, columns[-1].stop
    total = count = None
    starts = [window.start for window in rows[1:]] + [height]
    for window, following in zip(rows, starts, strict=True):
        top = window.start
        for group in _batches([(window, part) for part in columns], batch):
            values = scores(group)
            if total is None or count is None:
                deepest = max(part.stop - part.start for part in rows)
                total = values.new_zeros((values.shape[1], deepest, width))
                count = values.new_zeros((deepest, width))
            for (_, part), value in zip(group, values, strict=True):
                total[:, : window.stop - top, part] += value
                count[: window.stop - top, part] += 1
        assert total is not None and count is not None  # there is a window in each row
        finished = following - top
        for first in range(0, finished, CHUNK):
            part = slice(first, min(first + CHUNK, finished))
            yield total[:, part] / count[part]
        _shift_up(total, finished)
        _shift_up(count, finished)


def _batches(windows: list[Window], batch: int) -> Iterator[list[Window]]:
    """Split a row of windows into lists of windows of one size."""
    group: list[Window] = []
    for window in windows:
        same = not group or _size(group[0]) == _size(window)
        if not same or len(group) == batch:
            yield group
            group = []
        group.append(window)
    yield group


def _size(window: Window) -> tuple[int, int]:
    return window[0].stop - window[0].start, window[1].stop - window[1].start


def _shift_up(values: Tensor, rows: int) -> None:
    """Move the rows of (..., h, W) up in place; the rows that become free are 0."""
    left = max(values.shape[-2] - rows, 0)
    for first in range(0, left, CHUNK):
        part = slice(first, min(first + CHUNK, left))
        # a copy, because source and target can overlap
        values[..., part, :] = values[..., part.start + rows : part.stop + rows, :].clone()
    values[..., left:, :] = 0


def resize_strips(
    strips: Iterator[Tensor], old: tuple[int, int], new: tuple[int, int], align_corners: bool
) -> Iterator[Tensor]:
    """Resize scores bilinearly while they arrive in strips, as ``torch.nn.functional.interpolate`` does.

    Args:
        strips (Iterator[Tensor]): Scores (K, n, w) of the next n rows, for any n.
        old (tuple[int, int]): Height h and width w of the scores in pixels.
        new (tuple[int, int]): Height H and width W after the resize.
        align_corners (bool): As in ``interpolate``.

    Yields:
        Tensor: Scores (K, n, W) of the next ``CHUNK`` rows; the last strip can have fewer.
    """
    held, top = next(strips), 0
    for first in range(0, new[0], CHUNK):
        positions = _sources(first, min(first + CHUNK, new[0]), old[0], new[0], align_corners, held.device)
        low = positions.floor().long()
        high = (low + 1).clamp(max=old[0] - 1)
        start, stop = int(low[0]), int(high[-1]) + 1
        while top + held.shape[1] < stop:
            held = torch.cat([held, next(strips)], dim=1)
        held, top = held[:, start - top :], start
        if old[0] == new[0]:
            strip = held[:, low - top]
        else:
            share = (positions - low).to(held.dtype)[:, None]
            strip = torch.lerp(held[:, low - top], held[:, high - top], share)
        if old[1] != new[1]:
            size = (strip.shape[1], new[1])
            strip = F.interpolate(strip[None], size, mode='bilinear', align_corners=align_corners)[0]
        yield strip


def _sources(first: int, last: int, old: int, new: int, align_corners: bool, device: torch.device) -> Tensor:
    """Return the source positions of rows first to last - 1, float64, in [0, old - 1]."""
    rows = torch.arange(first, last, dtype=torch.float64, device=device)
    if align_corners:
        return rows * ((old - 1) / max(new - 1, 1))
    return ((rows + 0.5) * (old / new) - 0.5).clamp(0, old - 1)
