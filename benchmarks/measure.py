"""Measures time and peak memory of the two sides of a case.

Time: after a warm-up, both sides take turns in one process. The result is the median. Peak memory: each side
runs once in a new process. On a CPU, it is the peak resident size minus the resident size after the imports.
On CUDA, it is the largest amount that PyTorch allocated.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parents[1]
MODULE = 'benchmarks'
SIDES = ('ours', 'reference')
Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name (str): Name in the table.
        ours (Callable): Builds inputs and network, and returns the function to measure.
        reference (Callable): The same for the other side.
        calls (int): Divisor of the measured time.
        peak (bool): Whether to measure peak memory.
    """

    name: str
    ours: Callable[[], Run]
    reference: Callable[[], Run]
    calls: int = 1
    peak: bool = True


@dataclass(frozen=True)
class Result:
    """Result of a case. Ratios above 1 favor this project. None: not measured.

    Attributes:
        name (str): Name of the case.
        ours_s (float): Seconds per call.
        reference_s (float): Seconds per call of the other side.
        speedup (float): ``reference_s / ours_s``.
        ours_peak_mb (float, optional): Peak memory in MiB.
        reference_peak_mb (float, optional): Peak memory of the other side in MiB.
        memory_ratio (float, optional): ``reference_peak_mb / ours_peak_mb``.
    """

    name: str
    ours_s: float
    reference_s: float
    speedup: float
    ours_peak_mb: float | None
    reference_peak_mb: float | None
    memory_ratio: float | None


def seconds(run: Run, device: str) -> float:
    """Time one call, including the work that it started on the device."""
    start = time.perf_counter()
    run()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median_times(case: Case, device: str, repeats: int) -> tuple[float, float]:
    """Return the seconds of ours and of the reference.

    The two sides take turns, so other load on the machine affects both.
    """
    ours, reference = case.ours(), case.reference()
    for _ in range(3 if device == 'cuda' else 1):
        seconds(ours, device)
        seconds(reference, device)
    times = [(seconds(ours, device), seconds(reference, device)) for _ in range(repeats)]
    return median(t for t, _ in times) / case.calls, median(t for _, t in times) / case.calls


def resident_mb(field: str) -> float:
    """Return the memory of this process in MiB.

    Args:
        field (str): ``'VmRSS'`` for the current size, ``'VmHWM'`` for the peak.

    Raises:
        SystemExit: This system has no /proc/self/status.
    """
    # resource.getrusage exists on other systems, but its maximum includes the parent process
    status = Path('/proc/self/status')
    if not status.is_file():
        raise SystemExit('Peak memory on a CPU is read from /proc/self/status (Linux); use --no-peak.')
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def peak_of_this_process(build: Callable[[], Run], device: str) -> float:
    """Return the peak memory of one side in MiB. The process must be fresh."""
    before = 0.0 if device == 'cuda' else resident_mb('VmRSS')
    seconds(build(), device)
    return torch.cuda.max_memory_allocated() / 2**20 if device == 'cuda' else resident_mb('VmHWM') - before


def peak_of_fresh_process(number: int, side: str, arguments: list[str]) -> float:
    """Run one side of a case in a new process and return its peak memory in MiB.

    Args:
        number (int): Index of the case.
        side (str): ``'ours'`` or ``'reference'``.
        arguments (list[str]): The command line.

    Raises:
        SystemExit: The process failed.
    """
    command = [sys.executable, '-m', MODULE, *arguments, '--side', side, '--case', str(number)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    # with this threshold, glibc returns freed tensors immediately; otherwise fragmentation adds to the peak
    environment = {**os.environ, 'PYTHONPATH': path, 'MALLOC_MMAP_THRESHOLD_': str(2**20)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f'{side} failed in the process that measures its memory:\n{done.stderr}')
    return float(done.stdout.splitlines()[-1])


def measure(number: int, case: Case, options: argparse.Namespace, arguments: list[str]) -> Result:
    """Measure both sides of a case.

    Args:
        number (int): Index of the case.
        case (Case): The case.
        options (Namespace): ``device``, ``repeats`` and ``peak``.
        arguments (list[str]): The command line, for the processes that measure memory.

    Returns:
        Result: Times and, where measured, peak memory.
    """
    ours_peak = reference_peak = ratio = None
    if case.peak and options.peak:
        ours_peak, reference_peak = (peak_of_fresh_process(number, side, arguments) for side in SIDES)
        ratio = reference_peak / ours_peak
    ours, reference = median_times(case, options.device, options.repeats)
    return Result(case.name, ours, reference, reference / ours, ours_peak, reference_peak, ratio)
