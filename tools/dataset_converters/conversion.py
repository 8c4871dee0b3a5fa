"""Shared part of the dataset converters: writes many files in parallel, atomically, and skips complete files.

An existing file that ends with the end marker of its format is complete, because files are renamed to their
names only after they are written. Complete files are kept. Delete files to write them again. Two runs must
not write to the same folder at the same time, because each removes the partial files of the other
(``.NAME.PID.partial``).
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
    """A file of the data set cannot be converted. The message names the file."""


class Job(NamedTuple):
    """One file to write.

    Attributes:
        out (Path): The file.
        make (Callable): Returns the pixels, ``(H, W)`` or RGB ``(H, W, 3)`` uint8. It runs in another
            process, so it must be a function of a module. It raises `BadInputError` if its input is wrong.
        arguments (tuple): Arguments of ``make``.
    """

    out: Path
    make: Callable[..., np.ndarray]
    arguments: tuple


def read_image(path: Path) -> Image.Image:
    """Open and decode an image.

    Args:
        path (Path): The file.

    Returns:
        Image: The decoded image.

    Raises:
        BadInputError: The file is missing, truncated, or not an image.
    """
    try:
        with Image.open(path) as image:
            image.verify()  # checks the checksums of a PNG, which decoding ignores
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
        path (Path): Image of 8 bits per pixel; a palette is ignored.
        table (dict[int, int]): Maps values in the file to values in the result, both 0 to 255.

    Returns:
        np.ndarray: ``(H, W)`` uint8.

    Raises:
        BadInputError: The file cannot be read, does not have 8 bits per pixel, or has values that are not in
            the table.
    """
    image = read_image(path)
    if image.mode not in ('L', 'P'):
        raise BadInputError(
            f'{path}: expected a label map of 8 bits per pixel, found an image of mode {image.mode}; '
            'does it contain colors or instances?'
        )
    labels = np.asarray(image)
    unknown = sorted(set(np.unique(labels).tolist()) - table.keys())
    if unknown:
        raise BadInputError(f'{path}: expected labels among {sorted(table)}, found also {unknown}')
    lookup = np.zeros(256, np.uint8)
    lookup[list(table)] = list(table.values())
    return lookup[labels]


def is_complete(path: Path) -> bool:
    """Return whether the file exists and ends with the end marker of its format."""
    ending = ENDINGS[path.suffix]
    try:
        with path.open('rb') as file:
            file.seek(-len(ending), os.SEEK_END)
            return file.read() == ending
    except OSError:  # missing, or shorter than the marker
        return False


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG or JPEG file under a temporary name beside ``path``, then rename it.

    Args:
        path (Path): The file.
        pixels (np.ndarray): ``(H, W)`` or RGB ``(H, W, 3)`` uint8.
    """
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        # PNG ignores the quality
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
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _start_worker() -> None:
    # Ctrl-C also reaches the workers, but the parent ends the run, after the current files
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # without this thread, the workers of a killed parent would wait forever and keep its memory
    threading.Thread(target=_end_with_parent, daemon=True).start()


def convert_all(jobs: list[Job], workers: int) -> tuple[int, int]:
    """Write the files that are not complete yet.

    A wrong input does not stop the others. All wrong inputs are reported at the end.

    Args:
        jobs (list[Job]): The files.
        workers (int): Number of processes.

    Returns:
        tuple[int, int]: Number of written files, and of files that were complete before.

    Raises:
        BadInputError: Some files could not be made. The message names up to 20 inputs.
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
    """Run the command line of a converter.

    Args:
        parser (ArgumentParser): Parser with the option ``--data-root``; ``--workers`` is added.
        find_jobs (Callable): Returns the files to write for the parsed arguments.

    Raises:
        SystemExit: The input or the arguments are wrong, or the run was interrupted.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    parser.add_argument(
        '--workers', type=int, default=cores, help='number of processes (default: all cores, %(default)s)'
    )
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f'--workers is {args.workers}; expected 1 or more')
    # schedulers end a job with this signal; handle it like Ctrl-C, which leaves no partial files
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        made, kept = convert_all(find_jobs(args), args.workers)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    except BrokenProcessPool as error:
        raise SystemExit(
            'error: a worker process was killed, perhaps because memory ran out; run the same command again '
            f'with --workers below {args.workers}'
        ) from error
    except KeyboardInterrupt:
        print(
            'interrupted: there are no partial files; run the same command again to continue', file=sys.stderr
        )
        raise SystemExit(INTERRUPTED) from None
    print(f'{args.data_root}: {made} files written, {kept} were complete already')
