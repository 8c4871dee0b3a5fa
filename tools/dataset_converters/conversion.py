"""What the dataset converters share: they write many files at once, none by halves, and none twice.

A file that is there and ends as its format ends is complete, because a new one gets its name only when it is
whole; it is kept, whoever wrote it. Delete files to have them made anew. Two runs at a time must not share a
folder: each removes the other's unfinished files (``.NAME.PID.partial``).
"""

import argparse
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from rich.progress import track

FORMATS = {'.png': 'PNG', '.jpg': 'JPEG'}
ENDINGS = {'.png': b'IEND\xaeB`\x82', '.jpg': b'\xff\xd9'}
JPEG_QUALITY = 92
INTERRUPTED = 130  # exit status by the convention of shells


class BadInputError(ValueError):
    """A file of the data set cannot be converted; the message names it."""


class Job(NamedTuple):
    """One file to write: ``make(*arguments)`` gives its pixels, (H, W) or (H, W, 3) uint8, RGB.

    ``make`` runs in another process, so it is a function of a module. It raises `BadInputError` when its
    input is at fault.
    """

    out: Path
    make: Callable[..., np.ndarray]
    arguments: tuple


def read_image(path: Path) -> Image.Image:
    """Open and decode an image.

    Raises:
        BadInputError: It is missing, cut off, or no image.
    """
    try:
        with Image.open(path) as image:
            image.verify()  # the check sums of a PNG, which decoding does not read
        with Image.open(path) as image:
            image.load()
        return image
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInputError(
            f'{path}: expected an image, found one that cannot be read ({error}); unpack or download it again'
        ) from error


def translate(path: Path, table: dict[int, int]) -> np.ndarray:
    """Read a label map and replace its values.

    Args:
        path: image of one byte a pixel; a palette is ignored.
        table: value in the file -> value in the result, both 0 to 255.

    Raises:
        BadInputError: It cannot be read, has more than one byte a pixel, or values that the table lacks.
    """
    image = read_image(path)
    if image.mode not in ('L', 'P'):
        raise BadInputError(
            f'{path}: expected a label map of one byte a pixel, found an image of mode {image.mode}; '
            'is it colored, or of instances?'
        )
    labels = np.asarray(image)
    unknown = sorted(set(np.unique(labels).tolist()) - table.keys())
    if unknown:
        raise BadInputError(f'{path}: expected labels among {sorted(table)}, found also {unknown}')
    lookup = np.zeros(256, np.uint8)
    lookup[list(table)] = list(table.values())
    return lookup[labels]


def is_complete(path: Path) -> bool:
    """Whether the file is there and ends as its format ends."""
    ending = ENDINGS[path.suffix]
    try:
        with path.open('rb') as file:
            file.seek(-len(ending), os.SEEK_END)
            return file.read() == ending
    except OSError:  # not there, or shorter than the ending
        return False


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG or JPEG under a temporary name beside ``path``, then rename it."""
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        # PNG takes no notice of the quality.
        Image.fromarray(pixels).save(partial, FORMATS[path.suffix], quality=JPEG_QUALITY)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _convert(job: Job) -> str | None:
    try:
        pixels = job.make(*job.arguments)
    except BadInputError as error:
        return str(error)
    write_image(job.out, pixels)
    return None


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _start_worker() -> None:
    # Ctrl-C reaches the workers too, but it is the parent that ends the run: when the files at work are done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Without this, the workers of a killed parent would wait for work for ever, and hold its memory.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def convert_all(jobs: list[Job], workers: int) -> tuple[int, int]:
    """Write the files that are not complete yet.

    One bad input does not stop the others: all of them are named at the end.

    Returns:
        How many files were written, and how many were complete before.

    Raises:
        BadInputError: Some files could not be made; the message names up to 20 inputs.
        OSError: A file could not be written.
    """
    todo = [job for job in jobs if not is_complete(job.out)]
    kept = len(jobs) - len(todo)
    folders = {job.out.parent for job in jobs}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    faults = []
    pool = ProcessPoolExecutor(max(1, min(workers, len(todo))), initializer=_start_worker)
    try:
        if todo:
            results = pool.map(_convert, todo, chunksize=4)
            faults = [fault for fault in track(results, 'Converting', total=len(todo)) if fault]
    finally:
        pool.shutdown(cancel_futures=True)
        for folder in folders:
            for partial in folder.glob('.*.partial'):
                partial.unlink(missing_ok=True)
    made = len(todo) - len(faults)
    if faults:
        more = [f'... and {len(faults) - 20} more'] if len(faults) > 20 else []
        raise BadInputError(
            f'{len(faults)} of {len(jobs)} files could not be made ({made} written, {kept} were complete):\n'
            + '\n'.join(f'  {line}' for line in faults[:20] + more)
        )
    return made, kept


def command_line(
    parser: argparse.ArgumentParser, find_jobs: Callable[[argparse.Namespace], list[Job]]
) -> None:
    """Read the command line, convert, and say what was done.

    Args:
        parser: the tool's, with the option ``--data-root``; ``--workers`` is added.
        find_jobs: gives the files to write, from the parsed arguments.

    Raises:
        SystemExit: Something is wrong with the input or the arguments, or the run was interrupted.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    parser.add_argument(
        '--workers', type=int, default=cores, help='processes (default: all cores, %(default)s)'
    )
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f'--workers is {args.workers}; expected 1 or more')
    # Schedulers end a job with this signal; treat it as Ctrl-C, which leaves nothing half-written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        made, kept = convert_all(find_jobs(args), args.workers)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    except BrokenProcessPool as error:
        raise SystemExit(
            'error: a worker process was killed, perhaps for its memory; run the same command again with '
            f'fewer than --workers {args.workers}'
        ) from error
    except KeyboardInterrupt:
        print('interrupted: no file is half-written; run the same command again to go on', file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    print(f'{args.data_root}: {made} files written, {kept} were complete already')
