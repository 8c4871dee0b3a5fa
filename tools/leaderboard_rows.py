"""Rows of the leaderboard: from the summary of a training to a JSON-lines file and Markdown tables."""

import json
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

Row = dict[str, Any]

CELL_KEYS = ('method', 'data', 'budget', 'seed')
# mIoU in percent; memory in MiB; last, supervised, gain, commit and start_commit can be null
RESULT_KEYS = ('mIoU', 'last', 'supervised', 'gain', 'minutes', 'memory')
KEYS = (*CELL_KEYS, *RESULT_KEYS, 'date', 'version', 'commit', 'torch', 'cpus', 'start_commit')
BEGIN, END = '<!-- leaderboard -->', '<!-- /leaderboard -->'


def _load_logs() -> ModuleType:
    """Load the reader of logs without its package: a training inherits the peak memory of this process."""
    package = find_spec('allspark_mmseg')
    assert package is not None and package.origin is not None
    spec = spec_from_file_location('report_logs', Path(package.origin).parent / 'report' / 'logs.py')
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_results(method: str, work_dir: Path) -> dict[str, float | None]:
    """Read the results that a training has written.

    Args:
        method (str): The method of the cell.
        work_dir (Path): The work dir. ``summary.json`` has the results of ``supervised``, the first phase,
            and of the class of the method, the second phase. A run of the method ``supervised`` has only the
            log of MMEngine.

    Returns:
        dict[str, float | None]: ``mIoU``, ``last``, ``supervised`` and ``gain``, in percent. ``last`` is None
        if the summary does not have it. ``gain`` is None for the method ``supervised``.

    Raises:
        FileNotFoundError: There is no ``summary.json``.
        ValueError: The files do not have these results.
    """
    if method == 'supervised':
        curve = _load_logs().read_curve(work_dir, 'mIoU')
        best, last = (round(value, 2) for value in (max(curve.values()), curve[max(curve)]))
        return {'mIoU': best, 'last': last, 'supervised': best, 'gain': None}
    path = work_dir / 'summary.json'
    if not path.is_file():
        raise FileNotFoundError(f'the training wrote no {path}')
    summary = json.loads(path.read_text())
    phases = {name: value for name, value in summary.items() if isinstance(value, dict) and 'mIoU' in value}
    names = [name for name in phases if name != 'supervised']
    if 'supervised' not in phases or len(names) != 1:
        raise ValueError(
            f'{path} has the mIoU of {", ".join(phases) or "nothing"}; expected supervised and one method'
        )
    result, supervised = phases[names[0]], phases['supervised']['mIoU']
    gain = round(result['mIoU'] - supervised, 2)
    return {'mIoU': result['mIoU'], 'last': result.get('last'), 'supervised': supervised, 'gain': gain}


def read_rows(path: Path) -> list[Row]:
    """Read the rows.

    Args:
        path (Path): The file. It need not exist.

    Returns:
        list[dict]: The rows, each with the keys `KEYS`.

    Raises:
        ValueError: A line is not a row.
    """
    rows = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        try:
            row = json.loads(line)
            missing = [key for key in KEYS if key not in row]
        except (ValueError, TypeError) as error:
            raise ValueError(
                f'{path}:{number}: expected a JSON object; correct or delete the line'
            ) from error
        if missing:
            raise ValueError(
                f'{path}:{number}: the row lacks {", ".join(missing)}; delete the line and run its cell again'
            )
        rows.append(row)
    return rows


def same_cell(first: Row, second: Row) -> bool:
    """Return whether two rows have the same method, data, budget and seed."""
    return all(first[key] == second[key] for key in CELL_KEYS)


def write_row(path: Path, row: Row) -> None:
    """Replace the row of the same cell, or append the row.

    Args:
        path (Path): The file. It need not exist.
        row (dict): The row, with the keys `KEYS`.

    Raises:
        ValueError: A line of the file is not a row.
    """
    rows = read_rows(path)
    places = [index for index, other in enumerate(rows) if same_cell(row, other)]
    if places:
        rows[places[0]] = row
    else:
        rows.append(row)
    # an interrupted write leaves the old file
    temporary = path.with_name(f'{path.name}.tmp')
    temporary.write_text(''.join(f'{json.dumps(each)}\n' for each in rows))
    os.replace(temporary, path)


def render_tables(rows: Sequence[Row]) -> str:
    """Return a Markdown table for each data set, in the order of the names.

    Args:
        rows (Sequence[dict]): The rows.

    Returns:
        str: The tables, with headings.
    """
    names = sorted({row['data'] for row in rows})
    tables = [_render_table(name, [row for row in rows if row['data'] == name]) for name in names]
    return '\n\n'.join(tables) or 'No cell has been run.'


def _render_table(name: str, rows: Sequence[Row]) -> str:
    """Return the table of one data set: methods with the highest mIoU first, and a column for each budget."""
    budgets = sorted({row['budget'] for row in rows})
    cells: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        cells.setdefault((row['method'], row['budget']), []).append(row)
    means = {place: round(mean(row['mIoU'] for row in cell), 2) for place, cell in cells.items()}
    best = {budget: max(means[place] for place in means if place[1] == budget) for budget in budgets}
    highest = {
        method: max(means[place] for place in means if place[0] == method) for method in {m for m, _ in means}
    }
    lines = [
        f'### {name}',
        '',
        '| method | ' + ' | '.join(f'{budget} iterations' for budget in budgets) + ' |',
        '|---' * (len(budgets) + 1) + '|',
    ]
    for method in sorted(highest, key=lambda method: (-highest[method], method)):
        texts = [
            _render_cell(cells[method, budget], means[method, budget] == best[budget])
            if (method, budget) in cells
            else '-'
            for budget in budgets
        ]
        lines.append(f'| {method} | {" | ".join(texts)} |')
    return '\n'.join([*lines, '', _describe_origin(rows)])


def _render_cell(rows: Sequence[Row], bold: bool) -> str:
    """Return mean, lowest and highest mIoU over the seeds, gain, minutes and memory."""
    values = [row['mIoU'] for row in rows]
    text = f'**{mean(values):.2f}**' if bold else f'{mean(values):.2f}'
    text += f' [{min(values):.2f}, {max(values):.2f}] ({len(rows)} seeds)' if len(rows) > 1 else ' (1 seed)'
    gains = [row['gain'] for row in rows if row['gain'] is not None]
    gain = f'{mean(gains):+.2f}' if gains else '-'
    minutes, memory = mean(row['minutes'] for row in rows), max(row['memory'] for row in rows)
    return f'{text}<br>gain {gain}<br>{minutes:.1f} min, {memory:.0f} MiB'


def _describe_origin(rows: Sequence[Row]) -> str:
    """Say when and with what the rows were measured."""

    def distinct(key: str, to_text: Callable[[Any], str] = str) -> str:
        return ', '.join(to_text(value) for value in sorted({row[key] for row in rows}))

    first, last = min(row['date'] for row in rows), max(row['date'] for row in rows)
    days = first if first == last else f'{first} to {last}'
    return (
        f'Measured {days} with version {distinct("version")}, PyTorch {distinct("torch")} and '
        f'{distinct("cpus")} CPU cores.'
    )


def replace_tables(page: Path, tables: str) -> None:
    """Replace what a page has between the two markers.

    Args:
        page (Path): The page.
        tables (str): Result of `render_tables`.

    Raises:
        ValueError: The page does not have the two markers once each, in this order.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise ValueError(
            f'{page}: found {text.count(BEGIN)} x {BEGIN} and {text.count(END)} x {END}; expected each once, '
            'in this order'
        )
    page.write_text(f'{before}{BEGIN}\n\n{tables}\n\n{END}{after}')
