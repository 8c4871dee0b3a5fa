"""Command ``all``: measures everything on one device in a few minutes.

    python -m benchmarks all --device cuda --json FILE

Each row is the time and the peak memory of one side in one precision. FILE is written after each row. The
same command continues an interrupted run, and repeats the rows that were skipped or failed. A row that does
not fit into the memory of the device is skipped with the reason. ``--tiny`` runs all rows once at tiny sizes,
as a rehearsal; its times mean nothing.
"""

import argparse
import gc
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.registry import init_default_scope

from .measure import seconds
from .networks import tensor_float_32
from .report import machine
from .suite_rows import Row, all_rows
from .suite_table import suite_table

_WARM_UP = 2  # runs before the measurement
_ENOUGH = 1.0  # seconds of measured runs; then the median is taken
_REPEATS = (3, 20)  # smallest and largest number of measured runs


def main(arguments: list[str]) -> int:
    """Run the command line.

    Args:
        arguments (list[str]): The command line after ``all``.

    Returns:
        int: 1 if a row failed.
    """
    options = parse_args(arguments)
    init_default_scope('mmseg')
    begin = time.monotonic()
    report = read_report(options)
    print(', '.join(f'{key} {value}' for key, value in report['machine'].items() if value is not None))
    results = {result['name']: result for result in report['results']}
    for row in all_rows(options.device, options.tiny):
        if 'seconds' in results.get(row.name, {}):
            continue
        if time.monotonic() - begin > options.limit:
            results[row.name] = {'name': row.name, 'skipped': f'the limit of {options.limit} s was reached'}
        else:
            results[row.name] = measure_row(row, options)
        print(f'{time.monotonic() - begin:5.0f} s  {row.name}: {brief(results[row.name])}', flush=True)
        report['results'] = list(results.values())
        write_report(options.json, report)
    print(suite_table(all_rows(options.device, options.tiny), results))
    print(f'Total time: {time.monotonic() - begin:.0f} s.')
    return int(any('failed' in result for result in results.values()))


def parse_args(arguments: list[str]) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks all',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--device', choices=['cpu', 'cuda'], default='cuda', help='default: %(default)s')
    add('--json', type=Path, metavar='FILE', required=True, help='file of the results')
    add('--tiny', action='store_true', help='tiny sizes, one run each: a rehearsal')
    add('--limit', type=float, default=400, help='seconds after which no row begins; default: %(default)s')
    options = parser.parse_args(arguments)
    if options.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device is cuda, but PyTorch finds no CUDA device; use --device cpu --tiny.')
    return options


def read_report(options: argparse.Namespace) -> dict[str, Any]:
    """Read the results of an interrupted run, or begin new ones.

    Raises:
        SystemExit: The file is of another device or size.
    """
    this = {'device': options.device, 'tiny': options.tiny}
    new = {**this, 'machine': machine(options.device), 'results': []}
    if not options.json.is_file():
        return new
    report = json.loads(options.json.read_text())
    gpus = [each.get('machine', {}).get('gpu') for each in (report, new)]
    if {key: report.get(key) for key in this} != this or gpus[0] != gpus[1]:
        raise SystemExit(
            f'{options.json} has results of another device or of other sizes; give a new file with --json.'
        )
    return report


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write the results; an interruption leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.tmp')
    temporary.write_text(json.dumps(report, indent=1) + '\n')
    temporary.replace(path)


def brief(result: dict[str, Any]) -> str:
    """Describe a result in a few words."""
    for key in ('skipped', 'failed'):
        if key in result:
            return f'{key}: {result[key]}'
    return f'{1000 * result["seconds"]:.3g} ms'


def measure_row(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a row.

    Args:
        row (Row): The row.
        options (Namespace): ``device`` and ``tiny``.

    Returns:
        dict: ``name``, and either ``seconds`` and ``peak_mb`` (None on a CPU), or ``skipped``, or ``failed``.
    """
    try:
        with tensor_float_32(row.precision == 'tf32'):
            return {'name': row.name, **time_and_peak(row, options)}
    except torch.OutOfMemoryError as error:
        reason = f'it does not fit into the memory of the device ({str(error).split(".")[0]})'
        return {'name': row.name, 'skipped': reason}
    except Exception as error:  # the other rows can still be measured
        return {'name': row.name, 'failed': f'{type(error).__name__}: {error}'[:500]}
    finally:
        if options.device == 'cuda':
            gc.collect()
            torch.cuda.empty_cache()


def time_and_peak(row: Row, options: argparse.Namespace) -> dict[str, float | None]:
    """Return the median time of a run, in seconds, and the largest memory that PyTorch allocated, in MiB."""
    device, on_gpu = row.device or options.device, options.device == 'cuda'
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with torch.device(device):  # weights are initialized on the device, which is faster
        run = row.build()
    times: list[float] = []
    for _ in range(0 if options.tiny else _WARM_UP):
        seconds(run, device)
    while not enough(times, options.tiny):
        times.append(seconds(run, device))
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    return {'seconds': median(times) / row.calls, 'peak_mb': peak}


def enough(times: list[float], tiny: bool) -> bool:
    """Return whether the measured times suffice for a median."""
    fewest, most = (1, 1) if tiny else _REPEATS
    return len(times) >= most or (len(times) >= fewest and sum(times) >= _ENOUGH)
