"""Random numbers of an image are a function of its draw."""

import itertools
import pickle
import random
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader, Dataset

from allspark_mmseg.datasets import DualStreamSampler, LabeledStreamSampler
from allspark_mmseg.datasets.draws import Draw, draw_from, seeded


class Streams(Dataset):
    """Twelve labeled and thirty unlabeled items; an item is its index."""

    streams = {'labeled': range(12), 'unlabeled': range(12, 42)}

    def __len__(self) -> int:
        return 42

    def __getitem__(self, index: int) -> int:
        return index


def numbers() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_a_block_has_the_numbers_of_its_key_and_leaves_the_generators_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    expected = [numbers(), numbers()]
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    found = [numbers()]
    inside = []
    for key in ((1, 2), (1, 3), (1, 2)):
        with seeded(*key):
            inside.append(numbers())
    found.append(numbers())
    assert found == expected
    assert inside[0] == inside[2]
    assert all(one != other for one, other in zip(inside[0], inside[1], strict=True))


def test_the_generators_are_restored_after_an_error():
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    with pytest.raises(OSError), seeded(5):
        raise OSError
    assert torch.rand(()) == expected


def test_a_draw_is_an_index_that_survives_pickling():
    draw = pickle.loads(pickle.dumps(Draw(7, (1, 2, 3))))
    assert draw == 7 and draw.key == (1, 2, 3) and list(range(9))[draw] == 7


def make(kind: type, rank: int, world: int, labeled: int, unlabeled: int):
    counts = [labeled] if kind is LabeledStreamSampler else [labeled, unlabeled]
    with patch('allspark_mmseg.datasets.samplers.get_dist_info', return_value=(rank, world)):
        return kind(Streams(), *counts, seed=3, epoch_length=5)


def steps_of(sampler, size: int) -> list[list[tuple[tuple[int, ...], int]]]:
    draws = [(draw.key, int(draw)) for draw in sampler]
    return [draws[start : start + size] for start in range(0, len(draws), size)]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([2, 3, 4]), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9))
@pytest.mark.parametrize('kind', [DualStreamSampler, LabeledStreamSampler])
def test_another_number_of_processes_draws_the_same(kind, world, labeled, unlabeled, position):
    """W processes with n + m images per step, and one process with W * n + W * m."""
    size = labeled + unlabeled * (kind is DualStreamSampler)
    one = make(kind, 0, 1, labeled * world, unlabeled * world)
    several = [make(kind, rank, world, labeled, unlabeled) for rank in range(world)]
    for sampler in (one, *several):
        sampler.set_position(position)
    ranks = [steps_of(each, size) for each in several]
    joined = [itertools.chain.from_iterable(step) for step in zip(*ranks, strict=True)]
    assert [sorted(step) for step in joined] == [sorted(step) for step in steps_of(one, size * world)]


def test_keys_are_unique_over_epochs_and_streams():
    sampler = make(DualStreamSampler, 0, 1, 2, 3)
    keys = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys += [draw.key for draw in sampler]
    assert len(set(keys)) == len(keys) == 3 * 5 * 5


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
def test_a_stock_sampler_yields_draws_from_any_step_on(kind):
    def first_batches(position: int, count: int) -> list[list[tuple]]:
        loader = DataLoader(Streams(), batch_size=4, sampler=kind(Streams(), shuffle=True, seed=1))
        draw_from(loader)
        draw_from(loader)  # the second call changes nothing
        sampler = loader.batch_sampler.sampler
        sampler.set_position(position)
        batches = iter(loader.batch_sampler)
        return [[(draw.key, int(draw)) for draw in next(batches)] for _ in range(count)]

    whole = first_batches(0, 6)
    assert first_batches(2, 4) == whole[2:]
    keys = [key for batch in whole for key, _ in batch]
    assert len(set(keys)) == len(keys)
    if kind is DefaultSampler:  # 11 batches are an epoch
        second = first_batches(11, 2)
        assert [index for _, index in second[0]] != [index for _, index in whole[0]]
        assert first_batches(12, 1) == second[1:]
