"""Sampler of batches with labeled and unlabeled images."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Dataset, Sampler

from ..registry import DATA_SAMPLERS
from ..utils import require
from .draws import Draw

STREAMS = ('labeled', 'unlabeled')
_MANY = 1 << 20


@DATA_SAMPLERS.register_module()
class DualStreamSampler(Sampler):
    """Draw ``labeled`` labeled and ``unlabeled`` unlabeled images for each batch of each process.

    The data set is a :class:`SemiDataset`. ``batch_size`` of the data loader is ``labeled + unlabeled``::

        train_dataloader = dict(
            batch_size=4,
            sampler=dict(type='allspark_mmseg.DualStreamSampler', labeled=2, unlabeled=2),
            dataset=dict(type='allspark_mmseg.SemiDataset', ...))

    An epoch is one pass over the unlabeled images. With N_u unlabeled images, m = ``unlabeled`` and W
    processes, an epoch has ``(N_u // W) // m`` iterations. No unlabeled image occurs twice in an epoch. Fewer
    than ``m * W`` random images are omitted. When all labeled images have been used, they are permuted again.
    All processes share the permutations, and no step contains an image twice.

    The order is a function of (seed, epoch), and of the number of images per step over all processes. The
    same images in the same order follow from 2 processes with 4 images each and from 1 process with 8. The
    indices are :class:`Draw` objects, from which :class:`SemiDataset` seeds the augmentation of an image.
    Each stream has its own random generator. In the released code of UniMatch (arXiv:2208.09910) and AllSpark
    (arXiv:2403.01818), both streams share one permutation, so an unlabeled image always meets the same
    labeled image.

    Args:
        dataset (SemiDataset): The data set. Any data set with a ``streams`` dict of index ranges works.
        labeled (int): Labeled images in a batch of one process, at least 1.
        unlabeled (int): Unlabeled images in a batch of one process, at least 1.
        epoch_length (int, optional): Iterations of an epoch. By default, an epoch is one pass over the
            unlabeled images. With this argument, each stream is permuted again when all its images have been
            used. MMEngine restarts the workers after an epoch, so a large value avoids pauses.
        round_up (bool): Count iterations like PyTorch's ``DistributedSampler``: ``ceil(N_u / W) // m``. The
            published logs have these counts. Fewer than W images then occur twice.
        seed (int, optional): The same on all processes. MMEngine passes the seed of the Runner. None: rank 0
            draws a seed and shares it.
        shuffle (bool): False keeps the order of both streams.

    Raises:
        TypeError: ``dataset`` has no named streams.
        ValueError: A stream is missing, empty or too small for one step; or a count is below 1.
    """

    drawn: tuple[str, ...] = STREAMS  # the streams of a batch
    numbers: Mapping[str, int] = {'labeled': 0, 'unlabeled': 1}  # of the streams, in the keys of their draws

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
    ) -> None:
        self.rank, self.world_size = get_dist_info()
        self.counts = {'labeled': labeled, 'unlabeled': unlabeled}
        used = {stream: self.counts[stream] for stream in self.drawn}
        _check_counts(**used, epoch_length=epoch_length)
        self.streams = _named_streams(dataset, self.drawn)
        self._check_sizes()
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.first_step = 0
        longest = self.drawn[-1]
        size = len(self.streams[longest])
        per_rank = -(-size // self.world_size) if round_up else size // self.world_size
        self.iterations = epoch_length or per_rank // self.counts[longest]

    def __iter__(self) -> Iterator[Draw]:
        steps = [self._steps(stream) for stream in self.drawn]
        for _ in range(self.first_step, self.iterations):
            for stream in steps:
                yield from next(stream)

    def __len__(self) -> int:
        return self.iterations * sum(self.counts.values())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, of the next iteration; MMEngine's training loops call it."""
        self.epoch = epoch
        self.first_step = 0

    def set_position(self, step: int) -> None:
        """Start at a step of the run, counted from 0, without loading the images before it."""
        epoch, first_step = divmod(step, self.iterations)
        self.set_epoch(epoch)
        self.first_step = first_step

    def _steps(self, stream: str) -> Iterator[list[Draw]]:
        """Yield this process's draws of one stream from the first step on, a list a step, without end."""
        indices = self.streams[stream]
        size = self.counts[stream] * self.world_size
        key = (self.seed, self.epoch, self.numbers[stream])
        mine = range(self.rank, size, self.world_size)
        steps = self._chunks(len(indices), size, np.random.default_rng(key))
        for first, drawn in zip(itertools.count(self.first_step * size, size), steps, strict=False):
            yield [Draw(drawn[slot] + indices.start, (*key, first + slot)) for slot in mine]

    def _chunks(self, count: int, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the numbers 0..count-1 in chunks of a size, permuted again when all have been used.

        The chunks before the first step are skipped. No chunk has a number twice: at the end of a
        permutation, the numbers that are left over are no part of the beginning of the next one.
        """
        order, used, skipped = np.empty(0, np.uint32), 0, self.first_step
        while True:
            whole = min((len(order) - used) // size, skipped)
            used, skipped = used + whole * size, skipped - whole
            if used + size <= len(order):
                chunk = order[used : used + size]
                used += size
            else:
                left, order = order[used:], self._permute(count, generator)
                used = size - len(left)
                if len(left):
                    # what is not left over moves to the front of the first numbers
                    head = order[:size]
                    fresh = (head[:, None] != left).all(axis=1)
                    chosen = fresh & (fresh.cumsum() <= used)
                    order[:size] = np.concatenate([head[chosen], head[~chosen]])
                chunk = np.concatenate([left, order[:used]])
            if skipped:
                skipped -= 1
            else:
                yield chunk

    def _permute(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return the numbers 0..count-1, uint32, in random order if ``shuffle``."""
        if self.shuffle and count > _MANY:  # PyTorch needs half the time of NumPy
            torch_generator = torch.Generator().manual_seed(int(generator.integers(2**63)))
            return torch.randperm(count, generator=torch_generator, dtype=torch.int32).numpy().view(np.uint32)
        order = np.arange(count, dtype=np.uint32)
        if self.shuffle:
            generator.shuffle(order)
        return order

    def _check_sizes(self) -> None:
        for stream in self.drawn:
            count, size = self.counts[stream], len(self.streams[stream])
            if size == 0:
                raise ValueError(
                    f'DualStreamSampler: the stream {stream} is empty. Check its list or folder.'
                )
            if size < count * self.world_size:
                raise ValueError(
                    f'DualStreamSampler: the stream {stream} has {size} images, but a step needs '
                    f'{stream}={count} different images on each of {self.world_size} ranks, '
                    f'{count * self.world_size} in total. Add images, or reduce {stream} and '
                    f'batch_size: --cfg-options train_dataloader.sampler.{stream}=N '
                    'train_dataloader.batch_size=M'
                )


@DATA_SAMPLERS.register_module()
class LabeledStreamSampler(DualStreamSampler):
    """Draw ``labeled`` labeled images, and no others, for each batch of each process.

    It draws as :class:`DualStreamSampler` does, but with other random numbers: a phase that follows with that
    sampler has other crops. MMEngine's ``InfiniteSampler`` cannot draw from a single stream.

    Args:
        dataset (SemiDataset): The data set.
        labeled (int): Labeled images in a batch of one process, at least 1.
        **kwargs: ``epoch_length``, ``seed`` and ``shuffle`` of :class:`DualStreamSampler`. By default, an
            epoch is one pass over the labeled images.
    """

    drawn = ('labeled',)
    numbers: Mapping[str, int] = {'labeled': 3}  # 2 is that of the steps, see ExactResumeHook

    def __init__(self, dataset: Dataset, labeled: int, **kwargs: Any) -> None:
        super().__init__(dataset, labeled, 0, **kwargs)


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        valid = count is None or count >= 1
        expected = "1 or more (to train on labeled images only, use MMEngine's InfiniteSampler)"
        require('DualStreamSampler', name, count, valid, expected)


def _named_streams(dataset: Dataset, needed: Sequence[str]) -> dict[str, range]:
    streams = getattr(dataset, 'streams', None)
    if not isinstance(streams, dict):
        raise TypeError(
            f'DualStreamSampler: train_dataloader.dataset is a {type(dataset).__name__} without named '
            "streams. Use dataset=dict(type='allspark_mmseg.SemiDataset', labeled=dict(...), "
            'unlabeled=dict(...)).'
        )
    missing = [stream for stream in needed if stream not in streams]
    if missing:
        raise ValueError(
            f'DualStreamSampler: the {type(dataset).__name__} has no stream {missing[0]}. Set '
            f'{missing[0]}=dict(...) in the SemiDataset. To train on labeled images only, use '
            "MMEngine's InfiniteSampler."
        )
    return streams
