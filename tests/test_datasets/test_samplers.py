"""DualStreamSampler: properties for all sizes, counts, numbers of ranks and epochs."""

from collections import Counter
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, DistributedSampler

from allspark_mmseg.datasets import DualStreamSampler, LabeledStreamSampler
from allspark_mmseg.registry import DATA_SAMPLERS


class Streams(Dataset):
    """A data set with named streams, such as SemiDataset."""

    def __init__(self, labeled, unlabeled):
        self.streams = {'labeled': range(labeled), 'unlabeled': range(labeled, labeled + unlabeled)}

    def __len__(self):
        return self.streams['unlabeled'].stop


def sampler(sizes, labeled, unlabeled, rank=0, world=1, epoch=0, seed=0, **kwargs):
    dataset = Streams(*sizes)
    with patch('allspark_mmseg.datasets.samplers.get_dist_info', return_value=(rank, world)):
        built = DualStreamSampler(dataset, labeled, unlabeled, seed=seed, **kwargs)
    built.set_epoch(epoch)
    return built


def steps(built):
    """Split the indices into [(labeled indices, unlabeled indices counted from 0), ...]."""
    n, m = built.counts['labeled'], built.counts['unlabeled']
    flat = list(built)
    assert len(flat) == len(built)
    batches = [flat[start : start + n + m] for start in range(0, len(flat), n + m)]
    return [
        (batch[:n], [index - built.streams['unlabeled'].start for index in batch[n:]]) for batch in batches
    ]


@st.composite
def settings_of_a_run(draw):
    n, m = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    world = draw(st.integers(1, 4))
    sizes = (draw(st.integers(n * world, n * world + 25)), draw(st.integers(m * world, m * world + 40)))
    return {
        'sizes': sizes,
        'labeled': n,
        'unlabeled': m,
        'world': world,
        'epoch': draw(st.integers(0, 5)),
        'seed': draw(st.integers(0, 2**31 - 1)),
        'shuffle': draw(st.booleans()),
    }


def all_ranks(run, **kwargs):
    return [steps(sampler(rank=rank, **run, **kwargs)) for rank in range(run['world'])]


def check_steps(run, ranks, iterations):
    """Check the number of batches; no step has an image twice; all images are used equally often."""
    assert [len(rank) for rank in ranks] == [iterations] * run['world']
    for source in (0, 1):
        size = run['sizes'][source]
        used = Counter()
        for step in zip(*ranks, strict=True):
            indices = [index for batches in step for index in batches[source]]
            assert (
                len(indices) == len(set(indices)) == run['world'] * (run['labeled'], run['unlabeled'])[source]
            )
            assert all(0 <= index < size for index in indices)
            used.update(indices)
        counts = [used[index] for index in range(size)]
        assert max(counts) - min(counts) <= 1


@given(settings_of_a_run())
@settings(max_examples=150, deadline=None)
def test_an_epoch_is_one_pass_shared_by_the_ranks(run):
    ranks = all_ranks(run)
    check_steps(run, ranks, run['sizes'][1] // run['world'] // run['unlabeled'])
    used = [index for rank in ranks for _, unlabeled in rank for index in unlabeled]
    assert len(used) == len(set(used)) > run['sizes'][1] - run['unlabeled'] * run['world']


@given(settings_of_a_run())
@settings(max_examples=100, deadline=None)
def test_round_up_counts_as_distributed_sampler(run):
    ranks = all_ranks(run, round_up=True)
    reference = DistributedSampler(range(run['sizes'][1]), num_replicas=run['world'], rank=0)
    check_steps(run, ranks, len(reference) // run['unlabeled'])
    used = Counter(index for rank in ranks for _, unlabeled in rank for index in unlabeled)
    assert sum(count - 1 for count in used.values()) < run['world']


@given(settings_of_a_run(), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_epoch_length_goes_on_with_new_permutations(run, epoch_length):
    check_steps(run, all_ranks(run, epoch_length=epoch_length), epoch_length)


@given(settings_of_a_run())
@settings(max_examples=50, deadline=None)
def test_indices_are_a_function_of_seed_epoch_and_rank(run):
    rank = run['world'] - 1
    built = sampler(rank=rank, **run)
    first = list(built)
    built.set_epoch(run['epoch'] + 1)
    list(built)
    built.set_epoch(run['epoch'])
    assert first == list(built) == list(built) == list(sampler(rank=rank, **run))


def test_epochs_seeds_and_sources_differ():
    def streams(**kwargs):
        return [tuple(index for step in steps(sampler((50, 50), 1, 1, **kwargs)) for index in step[source])
                for source in (0, 1)]  # fmt: skip

    permutations = [*streams(), *streams(epoch=1), *streams(seed=1)]
    assert all(sorted(permutation) == list(range(50)) for permutation in permutations)
    assert len(set(permutations)) == len(permutations)


def test_each_labeled_image_meets_many_unlabeled_ones():
    pairs = {
        (step[0][0], step[1][0]) for epoch in range(40) for step in steps(sampler((5, 5), 1, 1, epoch=epoch))
    }
    assert len(pairs) == 25


def test_without_shuffle_both_go_round_in_order():
    assert list(sampler((3, 5), 2, 1, shuffle=False)) == [0, 1, 3, 2, 0, 4, 1, 2, 5, 0, 1, 6, 2, 0, 7]


@pytest.mark.parametrize(
    ('unlabeled', 'iterations'),
    [(10582 - 92, 1311), (10582 - 1464, 1140), (10582 - 662, 1240), (2975 - 1488, 186)],
)
def test_published_iterations_per_epoch(unlabeled, iterations):
    # UniMatch's logs for Pascal (92, 1464, 1/16) and Cityscapes (1/2): 4 GPUs with 2 + 2 images.
    assert sampler((100, unlabeled), 2, 2, world=4, round_up=True).iterations == iterations


def test_mmengine_passes_dataset_and_seed():
    built = DATA_SAMPLERS.build(
        {'type': 'allspark_mmseg.DualStreamSampler', 'labeled': 2, 'unlabeled': 1},
        default_args={'dataset': Streams(4, 6), 'seed': 3},
    )
    assert (built.seed, len(built)) == (3, 18)


def test_no_seed_is_drawn_once_for_all_ranks():
    with patch('allspark_mmseg.datasets.samplers.sync_random_seed', return_value=17) as draw:
        assert sampler((4, 6), 1, 1, seed=None).seed == 17
    draw.assert_called_once_with()


@pytest.mark.parametrize('counts', [{'labeled': 0}, {'unlabeled': 0}, {'labeled': -1}, {'epoch_length': 0}])
def test_a_count_below_1(counts):
    name, count = next(iter(counts.items()))
    with pytest.raises(ValueError, match=rf'{name} is {count}, expected 1 or more.*InfiniteSampler'):
        sampler((4, 6), **{'labeled': 1, 'unlabeled': 1, **counts})


@pytest.mark.parametrize(('sizes', 'name'), [((0, 9), 'labeled'), ((9, 0), 'unlabeled')])
def test_an_empty_stream(sizes, name):
    with pytest.raises(ValueError, match=f'the stream {name} is empty'):
        sampler(sizes, 1, 1)


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [((7, 99), 'the stream labeled has 7 images.*labeled=2.*4 ranks.* 8'),
     ((99, 11), 'the stream unlabeled has 11 images.*unlabeled=3.*4 ranks.* 12')],
)  # fmt: skip
def test_too_few_images_for_a_step(sizes, message):
    with pytest.raises(ValueError, match=message):
        sampler(sizes, 2, 3, world=4)


def test_a_data_set_without_streams():
    with pytest.raises(TypeError, match=r'dataset is a list without named streams.*SemiDataset'):
        DualStreamSampler([1, 2, 3], 1, 1)


def test_a_missing_stream():
    dataset = Streams(4, 6)
    del dataset.streams['unlabeled']
    with pytest.raises(ValueError, match=r'the Streams has no stream unlabeled.*InfiniteSampler'):
        DualStreamSampler(dataset, 1, 1)


@given(settings_of_a_run(), st.integers(0, 60))
def test_a_position_continues_the_order_of_the_whole_run(run, position):
    def batches(built, epochs):
        for epoch in epochs:
            built.set_epoch(epoch)
            yield from steps(built)

    built = sampler(**run | {'epoch': 0})
    last = position // built.iterations + 1
    whole = list(batches(built, range(last + 1)))
    built.set_position(position)
    first = list(built)
    size = built.counts['labeled'] + built.counts['unlabeled']
    assert len(first) == size * (built.iterations - position % built.iterations)
    rest = whole[position : position + len(first) // size]
    start = built.streams['unlabeled'].start
    flat = [index for labeled, unlabeled in rest for index in [*labeled, *(i + start for i in unlabeled)]]
    assert first == flat
    assert len(built) == size * built.iterations, 'the data loader keeps its length'


@given(settings_of_a_run(), st.integers(1, 30))
def test_labeled_images_alone_are_drawn_alike_with_other_random_numbers(run, length):
    run = {key: value for key, value in run.items() if key != 'epoch'}
    dual = [labeled for labeled, _ in steps(sampler(**run, epoch_length=length))]
    options = dict(epoch_length=length, seed=run['seed'], shuffle=run['shuffle'])
    with patch('allspark_mmseg.datasets.samplers.get_dist_info', return_value=(0, run['world'])):
        alone = LabeledStreamSampler(Streams(run['sizes'][0], 0), run['labeled'], **options)
    draws = list(alone)
    assert {draw.key[2] for draw in draws} == {3} and len(alone) == length * run['labeled']
    alone.numbers = DualStreamSampler.numbers
    assert list(alone) == [index for labeled in dual for index in labeled]


def test_a_long_stream_has_another_permutation(monkeypatch):
    expected = steps(sampler((4, 40), 1, 2, seed=3))
    monkeypatch.setattr('allspark_mmseg.datasets.samplers._MANY', 20)
    first, again, other = (steps(sampler((4, 40), 1, 2, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other and first != expected
    assert sorted(index for _, unlabeled in first for index in unlabeled) == list(range(40))
    in_order = steps(sampler((4, 40), 1, 2, seed=3, shuffle=False))
    assert [index for _, unlabeled in in_order for index in unlabeled] == list(range(40))
