"""List the images inside tar files (WebDataset shards), so that they can be unlabeled images of a training.

    python -m allspark_mmseg shards pool.txt 'https://storage/pool/{000..099}.tar'

Shards are local paths or addresses that fsspec knows (https, s3, gs). The images stay in the shards: a
training reads each one with a request for its bytes. Only the headers of the members are read here. The same
command goes on where it was interrupted.
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ..datasets.shards import expand_ranges, format_shard_lines, list_images
from ..output import progress
from .errors import refuses_mistakes

_THREADS = 16  # headers of remote shards wait for the network


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('list', type=Path, help='the list to write')
    parser.add_argument('shards', nargs='+', help='tar files; {000..099} stands for a hundred numbers')
    parser.add_argument('--suffix', help='end of the names of the images (default: all image formats)')
    return parser.parse_args(arguments)


@refuses_mistakes('shards', ImportError)
def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        int: The exit code.
    """
    args = parse_args(arguments)
    run(args)
    return 0


def run(args: argparse.Namespace) -> None:
    """Write the list and print how to use it.

    Args:
        args (argparse.Namespace): The command line.

    Raises:
        OSError: A shard cannot be read, or the list cannot be written.
        ValueError: A file is not a shard, or there are no images.
        ImportError: The library of a protocol is not installed.
    """
    addresses = [address for pattern in args.shards for address in expand_ranges(pattern)]
    root = _common_folder(addresses)
    shards = [address[len(root) :] for address in addresses]
    part = args.list.with_name(f'{args.list.name}.part')
    done = _keep_complete(part)
    missing = [shard for shard in shards if shard not in done]
    with part.open('a') as file, ThreadPoolExecutor(_THREADS) as pool:
        try:
            found = pool.map(partial(_list_shard, root, suffix=args.suffix), missing)
            for lines in progress(found, 'listing shards', len(missing)):
                file.write(lines)
                file.flush()
        finally:
            pool.shutdown(cancel_futures=True)
    with part.open() as file:
        count = sum(1 for _ in file)
    if not count:
        part.unlink()
        raise ValueError(f'{args.shards[0]}: expected images in the shards, found none. Check --suffix.')
    part.replace(args.list)
    scheme = 'tar+' if '://' in root else 'tar://'
    data_root = scheme + (root.rstrip('/') if '://' in root else os.path.abspath(root))
    print(f'{args.list}: {count} images of {len(shards)} shards. Use them with')
    print(f"unlabeled=dict(data_root='{data_root}', ann_file='{args.list.resolve()}', pipeline=...)")


def _list_shard(root: str, shard: str, suffix: str | None) -> str:
    return format_shard_lines(shard, list_images(root + shard, suffix))


def _common_folder(addresses: Sequence[str]) -> str:
    """Return the folder that all addresses begin with, with a slash at its end, or nothing."""
    # commonpath would change the // of a URL
    common = os.path.commonprefix(list(addresses))  # noqa: RUF071
    return common[: common.rfind('/') + 1]


def _keep_complete(part: Path) -> set[str]:
    """Drop the last shard of a list that was interrupted, and return the others."""
    lines = part.read_text().splitlines(keepends=True) if part.exists() else []
    shards = [line.partition('#')[0] for line in lines]
    kept = [line for line, shard in zip(lines, shards, strict=True) if shard != shards[-1]]
    if lines:
        part.write_text(''.join(kept))
    return set(shards) - set(shards[-1:])
