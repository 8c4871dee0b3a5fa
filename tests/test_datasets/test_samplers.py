"""DualStreamSampler: what holds for every size, ratio, number of ranks and epoch."""

from collections import Counter
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import BaseDataset
from mmengine.dataset import ConcatDataset as MMEngineConcatDataset
from torch.utils.data import ConcatDataset, Dataset, DistributedSampler

from allspark_mmseg.datasets import DualStreamSampler
from allspark_mmseg.registry import DATA_SAMPLERS


class Numbers(Dataset):
    def __init__(self, size, **attributes):
        self.size = size
        self.__dict__.update(attributes)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return index


class Paths(BaseDataset):
    """A BaseDataset that knows its paths alone."""

    def __init__(self, paths):
        self.paths = paths
        super().__init__()

    def load_data_list(self):
        return [{'img_path': str(path)} for path in self.paths]


def sampler(sizes, labeled, unlabeled, rank=0, world=1, epoch=0, seed=0, **kwargs):
    dataset = ConcatDataset([Numbers(size) for size in sizes])
    with patch('allspark_mmseg.datasets.samplers.get_dist_info', return_value=(rank, world)):
        built = DualStreamSampler(dataset, labeled, unlabeled, seed=seed, **kwargs)
    built.set_epoch(epoch)
    return built


def steps(built):
    """Cut the flat stream into [(labeled indices, unlabeled indices counted from 0), ...]."""
    n, m = built.shares
    flat = list(built)
    assert len(flat) == len(built)
    batches = [flat[start : start + n + m] for start in range(0, len(flat), n + m)]
    return [(batch[:n], [index - built.sizes[0] for index in batch[n:]]) for batch in batches]


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
    """Each rank has the right number of batches; no step repeats an image; passes over a source are fair."""
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
def test_round_up_counts_as_distributed_sampler_does(run):
    ranks = all_ranks(run, round_up=True)
    torchs = DistributedSampler(Numbers(run['sizes'][1]), num_replicas=run['world'], rank=0)
    check_steps(run, ranks, len(torchs) // run['unlabeled'])
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
        default_args={'dataset': ConcatDataset([Numbers(4), Numbers(6)]), 'seed': 3},
    )
    assert (built.seed, len(built)) == (3, 18)


def test_no_seed_is_drawn_once_for_all_ranks():
    with patch('allspark_mmseg.datasets.samplers.sync_random_seed', return_value=17) as draw:
        assert sampler((4, 6), 1, 1, seed=None).seed == 17
    draw.assert_called_once_with()


@pytest.mark.parametrize('counts', [{'labeled': 0}, {'unlabeled': 0}, {'labeled': -1}, {'epoch_length': 0}])
def test_a_ratio_of_zero(counts):
    name, count = next(iter(counts.items()))
    with pytest.raises(ValueError, match=rf'{name} must be at least 1, found {count}.*ratio of zero'):
        sampler((4, 6), **{'labeled': 1, 'unlabeled': 1, **counts})


@pytest.mark.parametrize(('sizes', 'name'), [((0, 9), 'labeled'), ((9, 0), 'unlabeled')])
def test_an_empty_stream(sizes, name):
    with pytest.raises(ValueError, match=f'the {name} dataset is empty'):
        sampler(sizes, 1, 1)


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [((7, 99), 'the labeled dataset has 7 images.*labeled=2.*4 ranks.* 8'),
     ((99, 11), 'the unlabeled dataset has 11 images.*unlabeled=3.*4 ranks.* 12')],
)  # fmt: skip
def test_too_few_images_for_a_step(sizes, message):
    with pytest.raises(ValueError, match=message):
        sampler(sizes, 2, 3, world=4)


def test_the_dataset_must_be_two_in_order():
    with pytest.raises(TypeError, match=r'expected a ConcatDataset.*found Numbers'):
        DualStreamSampler(Numbers(9), 1, 1)
    with pytest.raises(ValueError, match=r'expected two datasets.*found 3'):
        DualStreamSampler(ConcatDataset([Numbers(9)] * 3), 1, 1)
    with pytest.raises(ValueError, match=r'first dataset must be the labeled one.*Swap'):
        DualStreamSampler(ConcatDataset([Numbers(9, labeled=False), Numbers(9, labeled=True)]), 1, 1)
    with pytest.raises(ValueError, match=r'second dataset must be the unlabeled one.*Set labeled=False'):
        DualStreamSampler(ConcatDataset([Numbers(9, labeled=True), Numbers(9, labeled=True)]), 1, 1)


def test_images_in_both_streams(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'folder').symlink_to(tmp_path / 'real')
    for i in range(8):
        (tmp_path / 'real' / f'{i}.jpg').touch()
    (tmp_path / 'link.jpg').symlink_to(tmp_path / 'real/7.jpg')
    labeled = Paths([tmp_path / 'real' / f'{i}.jpg' for i in range(8)])
    unlabeled = Paths(
        [*(tmp_path / 'folder/../folder' / f'{i}.jpg' for i in range(6)), tmp_path / 'link.jpg']
    )
    dataset = MMEngineConcatDataset([labeled, unlabeled])
    with pytest.raises(ValueError, match='7 of 8 labeled images') as error:
        DualStreamSampler(dataset, 1, 1, seed=0)
    assert str(error.value).count('.jpg') == 5 and 'allow_overlap' in str(error.value)
    assert len(DualStreamSampler(dataset, 1, 1, seed=0, allow_overlap=True)) == 14
    apart = MMEngineConcatDataset([Paths(['a/1.jpg']), Paths(['b/1.jpg', 'b/2.jpg'])])
    assert len(DualStreamSampler(apart, 1, 1, seed=0)) == 4
