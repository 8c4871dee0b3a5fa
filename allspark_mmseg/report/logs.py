"""What MMEngine logged in a work dir: curves over resumed starts, and facts from the text of the log."""

import json
import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

# iteration -> value, ascending
Curve = dict[int, float]

_TIME = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - mmengine - (\w+) - ')
_STEP = re.compile(r'(?:Iter|Epoch)\(train\)\s+(?:\[\s*(\d+)\])?\[\s*(\d+)/(\d+)\]')
_BOUNDARY = re.compile(r'The supervised phase ended at iteration (\d+)')
# the last lines of a run with two phases, see Scoreboard
_END = re.compile(r'chosen\.pth is the |no network was chosen')
_OWN_WARNING = re.compile(r'pseudo-label|unlabeled', re.IGNORECASE)
_ENVIRONMENT = (
    'Python',
    'PyTorch',
    'CUDA available',
    'GPU 0',
    'GPU 0,1',
    'CUDA_HOME',
    'MMEngine',
    'OpenCV',
    'seed',
    'GPU number',
)


def read_starts(work_dir: Path) -> list[list[dict[str, Any]]]:
    """Read the entries of each start of a run.

    A start that begins again at the first iteration replaces the starts before it. The last line of a run
    that is still training can be incomplete; it is skipped.

    Args:
        work_dir (Path): The work dir, which contains a folder for each start.

    Returns:
        list[list[dict]]: The entries of ``TIME/vis_data/scalars.json`` of each start.
    """
    starts: list[list[dict[str, Any]]] = []
    begin = math.inf
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        entries = []
        for line in log.read_text().splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        first = next((entry['iter'] for entry in entries if 'iter' in entry), math.inf)
        if first <= begin and first < math.inf:
            starts, begin = [], first
        starts.append(entries)
    return starts


def read_curves(work_dir: Path) -> dict[str, Curve]:
    """Read all values of a run.

    Args:
        work_dir (Path): The work dir.

    Returns:
        dict[str, dict[int, float]]: Name in the log -> iteration -> value, without values that are not
        finite.
    """
    entries = [entry for start in read_starts(work_dir) for entry in start]
    # in epoch-based training, validation logs the epoch; training logs the same iterations of each epoch
    first: dict[int, int] = {}
    for entry in entries:
        if 'epoch' in entry and 'iter' in entry:
            first.setdefault(entry['epoch'], entry['iter'])
    epochs = sorted(first)
    length = (first[epochs[-1]] - first[epochs[0]]) // (epochs[-1] - epochs[0]) if len(epochs) > 1 else 1
    curves: dict[str, Curve] = {}
    for entry in entries:
        iteration = entry.get('iter', entry.get('step', 0) * length)
        for name, value in entry.items():
            if name not in ('iter', 'step', 'epoch') and _is_number(value):
                curves.setdefault(name, {})[iteration] = float(value)
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def read_curve(work_dir: Path, metric: str) -> Curve:
    """Read a metric from a run's logs.

    Args:
        work_dir (Path): The work dir, which contains a folder for each start of the run.
        metric (str): Name in the log, such as ``mIoU``, ``teacher/mIoU`` or ``unsup.loss_ce``.

    Returns:
        dict[int, float]: Iteration -> value, ascending.

    Raises:
        ValueError: There is no log, or the metric is not in it.
    """
    curves = read_curves(work_dir)
    if metric not in curves:
        found = f'its logs have {sorted(curves)}' if curves else 'there is no */vis_data/scalars.json'
        raise ValueError(f'{work_dir}: no {metric} found; {found}.')
    return curves[metric]


@dataclass
class LogText:
    """Facts from the text of the logs of a run.

    Attributes:
        step (int): The last iteration that was logged; in epoch-based training that of the last epoch.
        total (int): The number of iterations of the training, or of an epoch. 0 if no iteration was logged.
        epoch (int, optional): The last epoch, in epoch-based training.
        minutes (float): Time from the first to the last line of each start, summed.
        seconds_ago (float): Age of the last line when the log was read.
        ended (bool): The log has the last line of a run with two phases.
        stopped (bool): The last start was stopped by a signal.
        boundary (int, optional): The iteration at which the supervised phase ended.
        environment (dict[str, str]): Versions and devices.
        warnings (list[str]): Warnings about pseudo-labels and unlabeled images.
    """

    step: int = 0
    total: int = 0
    epoch: int | None = None
    minutes: float = 0.0
    seconds_ago: float = math.inf
    ended: bool = False
    stopped: bool = False
    boundary: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_log_text(work_dir: Path) -> LogText:
    """Read the text of the logs of a run. Starts that did not train, such as tests, are skipped.

    Args:
        work_dir (Path): The work dir.

    Returns:
        LogText: The facts. Without a log, all have their default values.
    """
    result = LogText()
    for path in sorted(work_dir.glob('*/*.log')):
        text = path.read_text(errors='replace')
        steps = _STEP.findall(text)
        if not steps:
            continue
        epoch, step, total = steps[-1]
        result.step, result.total = int(step), int(total)
        result.epoch = int(epoch) if epoch else None
        result.ended = _END.search(text) is not None
        result.stopped = 'Stopped by a signal after iteration' in text
        boundaries = _BOUNDARY.findall(text)
        if boundaries:
            result.boundary = int(boundaries[-1])
        times = [datetime.strptime(match[1], '%Y/%m/%d %H:%M:%S') for match in _matches(_TIME, text)]
        if times:
            result.minutes += (times[-1] - times[0]).total_seconds() / 60
            result.seconds_ago = (datetime.now() - times[-1]).total_seconds()
        result.environment |= _read_environment(text)
        result.warnings += _read_warnings(text)
    return result


def _matches(pattern: re.Pattern, text: str) -> list[re.Match]:
    return [match for line in text.splitlines() if (match := pattern.match(line))]


def _read_environment(text: str) -> dict[str, str]:
    """Return the lines ``KEY: VALUE`` above the config that are worth showing."""
    head = text.split(' - Config:', 1)[0]
    pairs = [line.strip().partition(': ') for line in head.splitlines()]
    return {key: value.strip() for key, colon, value in pairs if colon and key in _ENVIRONMENT}


def _read_warnings(text: str) -> list[str]:
    found = _matches(_TIME, text)
    lines = [match.string[match.end() :] for match in found if match[2] == 'WARNING']
    return [line for line in dict.fromkeys(lines) if _OWN_WARNING.search(line)]
