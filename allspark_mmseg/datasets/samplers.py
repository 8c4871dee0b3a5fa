"""Which labelled and which unlabelled images make a batch: :class:`DualStreamSampler`."""

import os.path as osp
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import ConcatDataset, Dataset, Sampler

from ..registry import DATA_SAMPLERS
from .split_list import first_five


@DATA_SAMPLERS.register_module()
class DualStreamSampler(Sampler):
    """On every rank: ``labeled`` labelled, then ``unlabeled`` unlabelled indices a batch, and so on.

    ``dataset`` is ``ConcatDataset([labelled, unlabelled])``, and the data loader's ``batch_size`` is
    ``labeled + unlabeled``::

        train_dataloader = dict(
            batch_size=4,
            sampler=dict(type='allspark_mmseg.DualStreamSampler', labeled=2, unlabeled=2),
            dataset=dict(type='ConcatDataset', datasets=[labeled_dataset, unlabeled_dataset]))

    With N_u unlabelled images, m = ``unlabeled`` and W ranks, an epoch is one pass over the unlabelled
    images: ``(N_u // W) // m`` iterations, in which no image comes twice and fewer than ``m * W`` random ones
    are left out. The labelled images are permuted afresh as often as they run out. The ranks share each
    permutation, and no step holds an image twice, on one rank or on two.

    Everything is a function of (seed, epoch, rank) alone: iterating again gives the same, and each source
    draws from its own generator. The released code of UniMatch (arXiv:2208.09910) and AllSpark
    (arXiv:2403.01818) gives both one permutation: an unlabelled image always meets the same labelled one.

    Args:
        dataset: The two datasets, concatenated, the labelled one first.
        labeled: Labelled images a batch on each rank (n), at least 1.
        unlabeled: Unlabelled images a batch on each rank (m), at least 1.
        epoch_length: Iterations in an epoch instead of one pass: both sources are then permuted afresh as
            often as they run out. A value as large as the training is long avoids MMEngine's pause and
            restart of the workers at the end of an epoch.
        round_up: Count iterations as torch's DistributedSampler does, ``ceil(N_u / W) // m``: the counts of
            the published logs. Fewer than W images then come twice, the first of the next permutation.
        seed: The same on all ranks; MMEngine passes the Runner's. None: drawn by rank 0, and shared.
        shuffle: False takes both sources in their own order.
        allow_overlap: Accept images that are in both sources, as when all images serve as unlabelled ones.

    Raises:
        TypeError: ``dataset`` is not a ConcatDataset.
        ValueError: Not two datasets, in the wrong order, one empty or too small for one step, an image in
            both, or a count below 1.
    """

    def __init__(
        self,
        dataset: Dataset,
        labeled: int,
        unlabeled: int,
        *,
        epoch_length: int | None = None,
        round_up: bool = False,
        seed: int | None = None,
        shuffle: bool = True,
        allow_overlap: bool = False,
    ) -> None:
        self.rank, self.world_size = get_dist_info()
        _check_counts(labeled=labeled, unlabeled=unlabeled, epoch_length=epoch_length)
        parts = _labeled_and_unlabeled(dataset)
        self.sizes = tuple(len(part) for part in parts)
        self.shares = (labeled, unlabeled)
        self._check_sizes()
        if not allow_overlap:
            _check_overlap(*parts)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        per_rank = -(-self.sizes[1] // self.world_size) if round_up else self.sizes[1] // self.world_size
        self.iterations = epoch_length or per_rank // unlabeled

    def __iter__(self) -> Iterator[int]:
        streams = [self._steps(source) for source in (0, 1)]
        for _ in range(self.iterations):
            for stream in streams:
                yield from next(stream)

    def __len__(self) -> int:
        return self.iterations * sum(self.shares)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) that the next iteration yields; MMEngine's training loops call it."""
        self.epoch = epoch

    def _steps(self, source: int) -> Iterator[list[int]]:
        """Yield for ever this rank's indices of one source (0 labelled, 1 unlabelled), a list a step."""
        step, offset = self.shares[source] * self.world_size, self.sizes[0] * source
        generator = np.random.default_rng((self.seed, self.epoch, source))
        waiting = np.empty(0, dtype=np.int64)
        while True:
            if len(waiting) < step:
                waiting = self._append_pass(waiting, source, generator)
            yield (waiting[:step][self.rank :: self.world_size] + offset).tolist()
            waiting = waiting[step:]

    def _append_pass(self, waiting: np.ndarray, source: int, generator: np.random.Generator) -> np.ndarray:
        """Append each index of the source once; what completes the step begun by ``waiting`` is new to it."""
        size = self.sizes[source]
        order = generator.permutation(size) if self.shuffle else np.arange(size)
        missing = self.shares[source] * self.world_size - len(waiting)
        head = order[~np.isin(order, waiting)][:missing]
        return np.concatenate([waiting, head, order[~np.isin(order, head)]])

    def _check_sizes(self) -> None:
        for name, size, share in zip(('labeled', 'unlabeled'), self.sizes, self.shares, strict=True):
            if size == 0:
                raise ValueError(f'DualStreamSampler: the {name} dataset is empty. Check its list or folder.')
            if size < share * self.world_size:
                raise ValueError(
                    f'DualStreamSampler: the {name} dataset has {size} images, one step needs '
                    f'{name}={share} different ones on each of {self.world_size} ranks, together '
                    f'{share * self.world_size}. Lower {name} (and batch_size) or add images.'
                )


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(
                f'DualStreamSampler: {name} must be at least 1, found {count}. A ratio of zero leaves one '
                "stream out: to train on labelled images alone use MMEngine's InfiniteSampler."
            )


def _labeled_and_unlabeled(dataset: Dataset) -> list[Dataset]:
    if not isinstance(dataset, ConcatDataset):
        raise TypeError(
            f'DualStreamSampler: expected a ConcatDataset of the labelled and the unlabelled dataset, found '
            f"{type(dataset).__name__}. Write dataset=dict(type='ConcatDataset', "
            'datasets=[labeled_dataset, unlabeled_dataset]).'
        )
    parts = dataset.datasets
    if len(parts) != 2:
        raise ValueError(
            f'DualStreamSampler: expected two datasets, the labelled one first, found {len(parts)}. '
            'Nest further ones in a ConcatDataset of their own.'
        )
    if getattr(parts[0], 'labeled', True) is False:
        raise ValueError(
            'DualStreamSampler: the first dataset must be the labelled one, but has labeled=False. '
            'Swap the datasets, or set labeled=True.'
        )
    if getattr(parts[1], 'labeled', False) is True:
        raise ValueError(
            'DualStreamSampler: the second dataset must be the unlabelled one, but has labeled=True. '
            'Set labeled=False, which leaves its masks unread, or swap the datasets.'
        )
    return parts


def _check_overlap(labeled: Dataset, unlabeled: Dataset) -> None:
    if not (isinstance(labeled, BaseDataset) and isinstance(unlabeled, BaseDataset)):
        return
    known = _image_files(labeled)
    shared = sorted(known & _image_files(unlabeled))
    if shared:
        raise ValueError(
            f'DualStreamSampler: {len(shared)} of {len(known)} labelled images are in the unlabelled dataset '
            f'too:\n{first_five(shared)}\nRemove them from the unlabelled list, or set allow_overlap=True in '
            'the sampler if they shall serve as both.'
        )


def _image_files(dataset: BaseDataset) -> set[str]:
    # Resolving every path costs a system call for each of its folders: COCO has 118 thousand images in one.
    resolve = lru_cache(maxsize=None)(osp.realpath)
    files = set()
    for index in range(len(dataset)):
        folder, name = osp.split(dataset.get_data_info(index)['img_path'])
        path = osp.join(resolve(folder), name)
        files.add(osp.realpath(path) if osp.islink(path) else path)
    return files
