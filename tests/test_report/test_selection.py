"""The images that a report and a contact sheet show."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from allspark_mmseg.report.contact import iou_table, sheet_captions
from allspark_mmseg.report.evaluate import Evaluation
from allspark_mmseg.report.selection import (
    Selection,
    choose_images,
    describe_gain,
    evenly_spaced,
    image_gain,
    pick_ranks,
)


def evaluation(name: str, image_iou: list[float]) -> Evaluation:
    """One class with the given IoU in each image; NaN: no labeled pixel."""
    hits = np.nan_to_num(np.array(image_iou))
    known = np.where(np.isfinite(image_iou), 100, 0)
    areas = np.stack([hits, known, known], axis=1)[:, :, None].astype(np.int64)
    network = SimpleNamespace(name=name, checkpoint=Path())
    return Evaluation(network, np.zeros((1, 1), np.int64), areas)


def test_ranks_are_evenly_spaced_from_best_to_worst():
    gain = np.random.default_rng(0).permutation(np.arange(-40.0, 61.0))
    gain[[3, 50]] = np.nan
    selection = pick_ranks(gain, 7, 'gain in mIoU')
    shown = gain[selection.indices]
    assert shown[0] == np.nanmax(gain) and shown[-1] == np.nanmin(gain) and shown[3] == np.nanmedian(gain)
    assert (np.diff(shown) < 0).all()
    ranks = [1, 17, 34, 50, 66, 83, 99]
    assert selection.captions == [f'rank {rank} of 99' for rank in ranks]
    assert 'at the percentiles 100, 84, 66, 50, 34, 16, 0 of the gain in mIoU, best first' in selection.rule


def test_few_images_are_shown_once_and_images_without_value_never():
    assert pick_ranks(np.array([1.0, np.nan, 3.0]), 7, 'x').indices == [2, 0]
    assert 'percentiles 100 of' in pick_ranks(np.array([1.0]), 7, 'x').rule
    assert list(evenly_spaced(3, 7)) == [0, 1, 2]
    with pytest.raises(ValueError, match='no validation image has a labeled pixel'):
        pick_ranks(np.array([np.nan]), 7, 'x')


def test_the_gain_is_the_last_network_minus_the_first():
    first, last = evaluation('A', [10.0, 20, 30, 40]), evaluation('C', [15.0, 25, 28, 40])
    np.testing.assert_allclose(image_gain(first, last), [5, 5, -2, 0], atol=1e-9)
    assert 'with C minus mIoU with A' in describe_gain(first, last)
    assert 'positive in 2 and negative in 1 of 4 images' in describe_gain(first, last)
    captions = sheet_captions(Selection([2, 0], ['rank 4', 'rank 1'], ''), [first, last])
    assert captions[0] == ['rank 4', '', 'mIoU 30.0 %', 'mIoU 28.0 %', 'gain -2.0']
    assert captions[1] == ['rank 1', '', 'mIoU 10.0 %', 'mIoU 15.0 %', 'gain +5.0']
    (single,) = sheet_captions(Selection([1], ['rank 2'], ''), [first])
    assert single == ['rank 2', '', 'mIoU 20.0 %']


def test_the_table_has_a_column_for_each_network():
    lines = iou_table(
        [evaluation('A', [10.0, 30]), evaluation('a long name', [20.0, 20])], ['road']
    ).splitlines()
    assert [line.split() for line in lines[1:]] == [['road', '20.00', '20.00'], ['mIoU', '20.00', '20.00']]
    assert len({len(line) for line in lines}) == 1


def test_most_changed_worst_and_best_images_without_repetition():
    first = [50.0, 50, 50, 50, 50, 50, 50, 50, np.nan]
    last = [90.0, 80, 70, 20, 30, 49, 50, 51, np.nan]
    choices = choose_images([evaluation('A', first), evaluation('B', last)], 8)
    shown = {choice.title: choice.indices for choice in choices}
    assert shown == {'Most improved': [0, 1], 'Most worsened': [3, 4], 'Worst': [5, 6], 'Best': [2, 7]}


def test_a_gain_is_no_loss():
    """Where no image became worse, none is called worsened, and the best and worst ones fill the number."""
    better = [evaluation('A', [10.0, 20, 30, 40]), evaluation('B', [15.0, 26, 37, 48])]
    shown = {choice.title: choice.indices for choice in choose_images(better, 4)}
    assert shown == {'Most improved': [3], 'Worst': [0], 'Best': [2, 1]}
    single = {choice.title: choice.indices for choice in choose_images(better[1:], 99)}
    assert single == {'Worst': [0, 1], 'Best': [3, 2]}
