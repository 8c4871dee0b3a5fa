"""Formats results as a table and as JSON."""

import json
import os
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path

import torch

from allspark_mmseg.environment import installed_stack

from .measure import Result


def machine(device: str) -> dict[str, object]:
    """Describe the machine and the software. ``load`` is the load average of the last minute.

    Args:
        device (str): ``'cpu'`` or ``'cuda'``.

    Returns:
        dict: Hardware, Python, PyTorch and the OpenMMLab distributions.
    """
    cpu, info = platform.processor() or platform.machine(), Path('/proc/cpuinfo')
    if info.is_file() and 'model name' in (text := info.read_text()):
        cpu = text.split('model name')[1].splitlines()[0].strip(' \t:')
    return {
        'cpu': cpu,
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'threads': torch.get_num_threads(),
        'load': round(os.getloadavg()[0], 2),
        'gpu': torch.cuda.get_device_name() if device == 'cuda' else None,
        'driver': _driver() if device == 'cuda' else None,
        'cuda': torch.version.cuda if device == 'cuda' else None,
        'python': platform.python_version(),
        'torch': torch.__version__,
        **{name: number for stack in installed_stack().values() for name, number in stack.items()},
    }


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, if nvidia-smi tells it."""
    command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split('\n')[0].strip() or None


def table(results: list[Result]) -> str:
    """Format results as a table with one line per case."""
    rows: list[tuple[str, ...]] = [('', 'ours', 'reference', 'speed-up', 'peak: ours', 'reference', 'ratio')]
    for result in results:
        cells = (
            (1000 * result.ours_s, 'ms'),
            (1000 * result.reference_s, 'ms'),
            (result.speedup, 'x'),
            (result.ours_peak_mb, 'MB'),
            (result.reference_peak_mb, 'MB'),
            (result.memory_ratio, 'x'),
        )
        rows.append((result.name, *(_cell(value, unit) for value, unit in cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(f'{text:{side}{width}}' for text, side, width in zip(row, '<>>>>>>', widths, strict=True))
        for row in rows
    )


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return '-'
    digits = 3 if value < 1 else 2 if value < 10 else 0
    return f'{value:.{digits}f} {unit}'


def write_json(path: Path, machine: dict[str, object], command: list[str], results: list[Result]) -> None:
    """Write machine, command line and results to ``path``."""
    content = {'machine': machine, 'command': command, 'results': [asdict(result) for result in results]}
    path.write_text(json.dumps(content, indent=2) + '\n')
