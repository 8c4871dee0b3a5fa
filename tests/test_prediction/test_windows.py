"""Strips of averaged windows against whole arrays."""

import pytest
import torch
import torch.nn.functional as F

from allspark_mmseg.prediction.windows import CHUNK, average_windows, resize_strips
from allspark_mmseg.segmentors.extended_encoder_decoder import clipped_windows, shifted_windows

SIZE = (150, 90)


def random_scores(calls=None):
    """A function of a window: noise that depends on its place and size."""

    def scores(windows):
        result = []
        for rows, columns in windows:
            torch.manual_seed(rows.start * 1000 + columns.start)
            result.append(torch.randn(3, rows.stop - rows.start, columns.stop - columns.start))
            if calls is not None:
                calls.append(rows.start)
        return torch.stack(result)

    return scores


def naive(rows, columns):
    total, count = torch.zeros(3, *SIZE), torch.zeros(SIZE)
    for down in rows:
        for right in columns:
            total[:, down, right] += random_scores()([(down, right)])[0]
            count[down, right] += 1
    return total / count


@pytest.mark.parametrize('cut', [clipped_windows, shifted_windows])
@pytest.mark.parametrize(
    ('window', 'stride', 'batch'), [(40, 30, 1), (40, 10, 2), (70, 70, 3), (200, 150, 1)]
)
def test_strips_are_the_mean_over_windows(cut, window, stride, batch):
    rows, columns = (cut(side, window, stride) for side in SIZE)
    strips = list(average_windows(random_scores(), rows, columns, batch))
    assert max(strip.shape[1] for strip in strips) <= CHUNK
    torch.testing.assert_close(torch.cat(strips, dim=1), naive(rows, columns))


def test_a_strip_is_ready_before_the_next_row_of_windows():
    calls = []
    strips = average_windows(random_scores(calls), *(shifted_windows(side, 40, 30) for side in SIZE), batch=4)
    next(strips)
    assert set(calls) == {0}
    next(strips)
    assert set(calls) == {0, 30}


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('new', [(150, 90), (333, 200), (40, 30), (150, 91), (7, 90), (1, 1)])
@pytest.mark.parametrize('pieces', [(150,), (64, 64, 22), (1,) * 150])
def test_resized_strips_equal_the_resized_whole(new, align_corners, pieces):
    whole = torch.randn(2, *SIZE)
    strips = list(resize_strips(iter(whole.split(pieces, dim=1)), SIZE, new, align_corners))
    expected = F.interpolate(whole[None], new, mode='bilinear', align_corners=align_corners)[0]
    assert [strip.shape[1] for strip in strips[:-1]] == [CHUNK] * (len(strips) - 1)
    torch.testing.assert_close(torch.cat(strips, dim=1), expected, atol=1e-4, rtol=1e-4)
