"""Measure the start of a training with a list of many unlabeled images.

    python -m benchmarks.pool_size FOLDER [--sizes 10000 1000000 10000000] [--files 10000000]

Makes hard links to a few JPEG files in FOLDER, lists of them, and prints a row for each size:

    first     seconds to build the data set when its list has no index yet
    next      seconds to build it at each later start
    memory    MiB that the process grows by: all, of it in files that processes share, and the peak of the
              first start
    permute   seconds until the sampler yields its first index
    batch     seconds until the first batch, with two workers; the sampler and the workers start
    resume    the same, at the last step of the epoch

Each start is a forked process. The first start is measured with an empty folder of indexes, but the list and
the folders of the images can be in the cache of the file system.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from mmengine.registry import init_default_scope
from PIL import Image
from torch.utils.data import DataLoader

from allspark_mmseg.datasets import DualStreamSampler, SemiDataset

_LINKS = 50_000  # names of one file; ext4 allows 65 000
_PER_FOLDER = 10_000
_SOURCES, _LABELED = 'sources', 100
_METAINFO = {'classes': ('a', 'b'), 'palette': [[0, 0, 0], [255, 0, 0]]}
_PIPELINE = [{'type': 'LoadImageFromFile'}, {'type': 'PackSegInputs'}]
_COLUMNS = ('images', 'first', 'next', 'memory', 'in files', 'peak', 'permute', 'batch', 'resume')


def image_name(number: int) -> str:
    """Return the path of an image of the pool, relative to the folder of the benchmark."""
    return f'pool/{number // _PER_FOLDER:04}/{number:08}.jpg'


def make_files(folder: Path, count: int) -> None:
    """Make the images of the pool, hard links to few files, and some labeled images.

    Args:
        folder (Path): The folder of the benchmark. Images that exist are kept.
        count (int): Number of images.
    """
    (folder / _SOURCES).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for number in range(_LABELED):
        path = folder / f'labeled/{number}.png'
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[..., 0] % 2).save(path)
    lines = (f'labeled/{number}.png labeled/{number}.png\n' for number in range(_LABELED))
    (folder / 'labeled.txt').write_text(''.join(lines))
    for first in range(0, count, _PER_FOLDER):
        last = min(first + _PER_FOLDER, count) - 1
        if (folder / image_name(last)).exists():
            continue
        source = folder / _SOURCES / f'{first // _LINKS}.jpg'
        if not source.exists():
            Image.fromarray(pixels).save(source)
        (folder / image_name(first)).parent.mkdir(parents=True, exist_ok=True)
        for number in range(first, last + 1):
            path = folder / image_name(number)
            if not path.exists():
                os.link(source, path)


def make_list(folder: Path, size: int, files: int) -> Path:
    """Write a list of unlabeled images.

    Args:
        folder (Path): The folder of the benchmark.
        size (int): Number of lines.
        files (int): Number of images that exist; a longer list repeats them.

    Returns:
        Path: The list.
    """
    path = folder / f'pool_{size}.txt'
    with path.open('w') as file:
        file.writelines(f'{image_name(number % files)}\n' for number in range(size))
    return path


def memory() -> dict[str, float]:
    """Return the memory of this process in MiB: ``all`` of it, and what is ``in files``. Linux only."""
    lines = (line.split() for line in Path('/proc/self/smaps_rollup').read_text().splitlines()[1:])
    sizes = {name.rstrip(':'): int(size) / 1024 for name, size, *_ in lines}
    return {'memory': sizes['Rss'], 'in files': sizes['Rss'] - sizes['Anonymous']}


def _peak() -> float:
    lines = dict(line.split(':') for line in Path('/proc/self/status').read_text().splitlines())
    return int(lines['VmHWM'].split()[0]) / 1024


def build(folder: Path, size: int) -> SemiDataset:
    """Build the data set of a training."""
    labeled = {'ann_file': 'labeled.txt', 'pipeline': _PIPELINE}
    unlabeled = {'ann_file': f'pool_{size}.txt', 'pipeline': _PIPELINE}
    return SemiDataset(labeled, unlabeled, data_root=str(folder), metainfo=_METAINFO)


def measure_first(folder: Path, size: int) -> dict[str, float]:
    """Measure a start whose list has no index.

    Args:
        folder (Path): The folder of the benchmark.
        size (int): Number of unlabeled images.

    Returns:
        dict[str, float]: ``first`` in seconds, and ``peak`` in MiB.
    """
    shutil.rmtree(folder / 'cache', ignore_errors=True)
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins here
    before, start = _peak(), time.perf_counter()
    dataset = build(folder, size)
    seconds = time.perf_counter() - start
    assert len(dataset) == size + _LABELED
    return {'first': seconds, 'peak': _peak() - before}


def measure_next(folder: Path, size: int) -> dict[str, float]:
    """Measure a later start.

    Args:
        folder (Path): The folder of the benchmark.
        size (int): Number of unlabeled images.

    Returns:
        dict[str, float]: ``next``, ``permute``, ``batch`` and ``resume`` in seconds; ``memory`` and
        ``in files`` in MiB, after a batch.
    """
    before, start = memory(), time.perf_counter()
    dataset = build(folder, size)
    seconds = {'next': time.perf_counter() - start}
    sampler = DualStreamSampler(dataset, 2, 2, seed=0)
    start = time.perf_counter()
    draws = iter(sampler)
    next(draws)
    next(draws), next(draws)  # the first unlabeled image
    seconds['permute'] = time.perf_counter() - start
    del draws
    for name, step in (('batch', 0), ('resume', sampler.iterations - 1)):
        sampler.set_position(step)
        loader: DataLoader = DataLoader(dataset, 4, sampler=sampler, num_workers=2, collate_fn=list)
        start = time.perf_counter()
        batches = iter(loader)
        next(batches)
        seconds[name] = time.perf_counter() - start
        if name == 'batch':
            seconds |= {key: value - before[key] for key, value in memory().items()}
        del batches
    return seconds


def in_new_process(function: Callable[..., dict[str, float]], *arguments: object) -> dict[str, float]:
    """Call a function in a forked process.

    Args:
        function (Callable): The function.
        *arguments: Its arguments.

    Returns:
        dict[str, float]: Its result.

    Raises:
        RuntimeError: The process failed.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context('fork').Process(target=_send, args=(sender, function, *arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        raise RuntimeError(f'{function.__name__} failed with {arguments}') from error
    finally:
        process.join()


def _send(sender: Connection, function: Callable[..., dict[str, float]], *arguments: object) -> None:
    sender.send(function(*arguments))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments (list[str], optional): The command line; by default that of the process.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path)
    parser.add_argument('--sizes', type=int, nargs='+', default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument('--files', type=int, help='images that exist (default: the largest size)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='append a line for each size')
    args = parser.parse_args(arguments)
    folder, files = args.folder.resolve(), args.files or max(args.sizes)
    os.environ['XDG_CACHE_HOME'] = str(folder / 'cache')
    init_default_scope('mmseg')
    make_files(folder, files)
    print(''.join(f'{column:>10}' for column in _COLUMNS), flush=True)
    for size in args.sizes:
        make_list(folder, size, files)
        row = {'images': size} | in_new_process(measure_first, folder, size)
        row |= in_new_process(measure_next, folder, size)
        print(
            ''.join(f'{row[column]:>10.4g}' if column != 'images' else f'{size:>10}' for column in _COLUMNS)
        )
        sys.stdout.flush()
        if args.json:
            with args.json.open('a') as file:
                file.write(json.dumps(row) + '\n')


if __name__ == '__main__':
    main()
