"""Run cells of the leaderboard, and write its tables.

    python tools/leaderboard.py --cell METHOD DATA BUDGET [--cell ...] [--seed 0 ...] [--again]
    python tools/leaderboard.py --table

A cell is a training of METHOD with BUDGET iterations after 1000 supervised iterations; DATA is a file in
configs/_base_/datasets, such as demo, camvid_1over30 or magnetic_tile_36. The config is that of the demo,
configs/METHOD/demo.py, with the data set replaced. The supervised iterations are trained once for each data
set, network and seed, so that all methods start from the same weights. Another version of the package
trains them anew, and the row has their commit. Minutes and memory are those of the BUDGET iterations. The
method supervised trains 1000 + BUDGET iterations. The result of a cell is a line of docs/leaderboard.jsonl,
and replaces that of an earlier run of the cell. A cell that was run with this version of the package is
skipped. --table writes the tables to docs/results.md.

If a training fails, the other cells still run, and the exit code is 1.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from leaderboard_rows import (
    Row,
    read_results,
    read_rows,
    render_tables,
    replace_tables,
    same_cell,
    write_row,
)

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / 'tools' / 'train.py'
CONFIGS = ROOT / 'configs'
ROWS = ROOT / 'docs' / 'leaderboard.jsonl'
PAGE = ROOT / 'docs' / 'results.md'
SUPERVISED_ITERATIONS = 1000  # of the first phase
VAL_INTERVAL = 250  # iterations; both phases
CLASS_BALANCED = "model['threshold'] = dict(type='ClassBalanced')"
# methods without a config of their own: the config of another method, and what is appended to it
VARIANTS = {
    'allspark_released': (
        'allspark',
        "model.update(unlabeled_view='weak', threshold=0, unlabeled_weight=0.5, teacher=None)\n"
        "model['predict_on'] = 'student'",
    ),
    'allspark_class_balanced': ('allspark', CLASS_BALANCED),
    'fixmatch_class_balanced': ('fixmatch', f'{CLASS_BALANCED}\nmodel["strong_weight"] = 1.0'),
    'fixmatch_softmatch': ('fixmatch', "model['threshold'] = dict(type='SoftMatch')"),
    'self_training': (
        'mean_teacher',
        "model.update(type='allspark_mmseg.SelfTraining', unlabeled_view='strong_1', threshold=0.95, "
        "teacher=None, predict_on='student')",
    ),
    'unimatch_class_balanced': ('unimatch', CLASS_BALANCED),
    'unimatch_v2': ('unimatch', "model['type'] = 'allspark_mmseg.UniMatchV2'"),
    'unimatch_v2_class_balanced': (
        'unimatch',
        f"model['type'] = 'allspark_mmseg.UniMatchV2'\n{CLASS_BALANCED}",
    ),
}


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        method (str): Folder in ``configs``.
        data (str): Name of the data set.
        budget (int): Iterations after the supervised phase.
        seed (int): Seed of the random numbers.
    """

    method: str
    data: str
    budget: int
    seed: int

    def __str__(self) -> str:
        """Name of the cell for messages."""
        return f'{self.method} {self.data} {self.budget}, seed {self.seed}'


def make_config(method: str, data: str) -> str:
    """Return the text of the config of a method on a data set.

    Args:
        method (str): Folder in ``configs``, or one of `VARIANTS`.
        data (str): Name of a file in ``configs/_base_/datasets``.

    Returns:
        str: ``configs/METHOD/demo.py`` with another data set and absolute paths.

    Raises:
        FileNotFoundError: The method or the data set has no config.
    """
    folder, changes = VARIANTS.get(method, (method, ''))
    source = CONFIGS / folder / 'demo.py'
    dataset = CONFIGS / '_base_' / 'datasets' / f'{data}.py'
    for path in (source, dataset):
        if not path.is_file():
            raise FileNotFoundError(f'there is no {path}')
    text = source.read_text().replace('../_base_/datasets/demo.py', str(dataset))
    return '\n'.join([text.replace('../_base_/', f'{CONFIGS}/_base_/'), changes])


def make_options(cell: Cell, start: Path | None) -> list[str]:
    """Return the settings of a training, which the configs of the demo set differently.

    Args:
        cell (Cell): The cell.
        start (Path, optional): Weights after the supervised iterations. None: these iterations, and one more,
            since a run has two phases.

    Returns:
        list[str]: Options of the form ``KEY=VALUE``.
    """
    if cell.method == 'supervised':
        iterations, interval, phases = SUPERVISED_ITERATIONS + cell.budget, VAL_INTERVAL, []
    elif start is None:
        # the first hook is WarmStartHook
        settings = {'max_iters': SUPERVISED_ITERATIONS, 'val_interval': VAL_INTERVAL, 'ramp_up': 0}
        iterations, interval = 1, 1
        phases = [f'custom_hooks.0.{key}={value}' for key, value in settings.items()]
    else:
        iterations, interval, phases = cell.budget, VAL_INTERVAL, [f'load_from={start}']
    return [
        f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={interval}',
        f'param_scheduler.0.end={iterations}',
        f'randomness.seed={cell.seed}',
        *phases,
    ]


def find_start(cell: Cell, work_dir: Path, code: Row) -> tuple[Path, str | None]:
    """Return the weights after the supervised iterations, which are trained if no cell has needed them yet.

    Args:
        cell (Cell): A cell of a semi-supervised method.
        work_dir (Path): Folder of all work dirs.
        code (dict): ``version`` and ``commit`` of the code.

    Returns:
        tuple[Path, str | None]: The checkpoint, and the commit that trained it. AllSpark has another network
        than the other methods.

    Raises:
        FileNotFoundError: The training did not write its results.
        RuntimeError: The training failed.
    """
    network = 'allspark' if cell.method.startswith('allspark') else 'plain'
    folder = work_dir / cell.data / f'start_{network}_seed{cell.seed}'
    start, end, label = folder / 'supervised.pth', folder / 'summary.json', folder / 'code.json'
    known = json.loads(label.read_text()) if label.exists() else {}
    # the training was not run, was interrupted, or was that of another version
    if not end.exists() or known.get('version') != code['version']:
        train(cell, folder, None)
        known = code
        label.write_text(json.dumps(code))
    if not (start.exists() and end.exists()):
        raise FileNotFoundError(f'the training wrote no {start if end.exists() else end}')
    return start, known['commit']


def train(cell: Cell, work_dir: Path, start: Path | None) -> tuple[float, float]:
    """Train in a process of its own, with ``train.log`` in the work dir.

    Args:
        cell (Cell): The cell.
        work_dir (Path): The work dir of the training.
        start (Path, optional): Weights after the supervised iterations. None: these are trained.

    Returns:
        tuple[float, float]: Minutes, and peak memory of the process in MiB.

    Raises:
        RuntimeError: The training failed.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    # if this training writes no results, those of an earlier one must not count
    (work_dir / 'summary.json').unlink(missing_ok=True)
    config = work_dir / f'{cell.method}.py'
    config.write_text(make_config(cell.method, cell.data))
    command = [sys.executable, str(TRAIN), str(config), '--work-dir', str(work_dir)]
    command += ['--cfg-options', *make_options(cell, start)]
    # the package of this folder, whose version is recorded, and not another one that is installed
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    begin = time.monotonic()
    with (
        (work_dir / 'train.log').open('w') as log,
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, 'PYTHONPATH': paths}, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        # the usage of this process alone; that of RUSAGE_CHILDREN is the maximum over all cells so far
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f'the training ended with exit code {process.returncode}')
    # macOS counts bytes, Linux KiB
    return (time.monotonic() - begin) / 60, usage.ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)


def code_version() -> str:
    """Return the version of the package, which is not imported, because a child inherits the peak memory."""
    (found,) = re.findall(
        r"^__version__ = '(.+)'", (ROOT / 'allspark_mmseg/__init__.py').read_text(), re.MULTILINE
    )
    return found


def code_commit() -> str | None:
    """Return the commit, with ``-dirty`` if code differs from it, or None outside a git repository."""
    if not (ROOT / '.git').exists():
        return None
    head = subprocess.run(
        ['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    # rows and tables change with each cell, so only code counts
    code = ['allspark_mmseg', 'configs', 'tools']
    changed = subprocess.run(['git', 'diff', '--quiet', 'HEAD', '--', *code], cwd=ROOT, check=False)
    return head.stdout.strip() + ('-dirty' if changed.returncode else '') or None


def run_cell(cell: Cell, work_dir: Path) -> Row:
    """Train a cell and record its row.

    Args:
        cell (Cell): The cell.
        work_dir (Path): Folder of all work dirs.

    Returns:
        dict: The row.

    Raises:
        FileNotFoundError: The training wrote no results.
        RuntimeError: The training failed.
        ValueError: The results or the recorded rows have another form.
    """
    # code that is edited during the training does not count
    code = {'version': code_version(), 'commit': code_commit(), 'torch': version('torch')}
    start, start_commit = (None, None) if cell.method == 'supervised' else find_start(cell, work_dir, code)
    folder = work_dir / cell.data / f'{cell.method}_{cell.budget}_seed{cell.seed}'
    minutes, memory = train(cell, folder, start)
    row = {
        **vars(cell),
        **read_results(cell.method, folder),
        'minutes': round(minutes, 2),
        'memory': round(memory),
        'date': datetime.now(timezone.utc).date().isoformat(),
        **code,
        'cpus': os.cpu_count(),
        'start_commit': start_commit,
    }
    write_row(ROWS, row)
    return row


def run_cells(cells: list[Cell], work_dir: Path, again: bool) -> int:
    """Run the cells and print a line for each.

    Args:
        cells (list[Cell]): The cells.
        work_dir (Path): Folder of their work dirs.
        again (bool): Whether to run cells that this version of the package has run.

    Returns:
        int: Number of cells that failed.
    """
    failed = 0
    for cell in cells:
        print(f'{cell}: ', end='', flush=True)
        known = [
            row for row in read_rows(ROWS) if same_cell(row, vars(cell)) and row['version'] == code_version()
        ]
        if known and not again:
            print(
                'skipped; {date}, version {version}, commit {commit}; --again runs it again'.format(
                    **known[0]
                )
            )
            continue
        try:
            row = run_cell(cell, work_dir.resolve())
        except (OSError, RuntimeError, ValueError) as error:
            failed += 1
            print(f'FAILED: {error}; see train.log in {work_dir.resolve() / cell.data}')
        else:
            gain = '' if row['gain'] is None else f' ({row["gain"]:+.2f})'
            print(f'mIoU {row["mIoU"]:.2f}{gain}, {row["minutes"]:.1f} min, {row["memory"]} MiB')
    return failed


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line. ``cells`` are the cells to run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--cell', nargs=3, action='append', default=[], metavar=('METHOD', 'DATA', 'BUDGET'))
    parser.add_argument('--seed', type=int, nargs='+', default=[0], help='run each cell with these seeds')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/leaderboard'))
    parser.add_argument('--again', action='store_true', help='run cells again that this version has run')
    parser.add_argument(
        '--table', action='store_true', help=f'print the tables and write them to {PAGE.name}'
    )
    args = parser.parse_args(arguments)
    if not args.cell and not args.table:
        parser.error('nothing to do; expected --cell METHOD DATA BUDGET or --table')
    for method, data, budget in args.cell:
        if not budget.isdecimal() or not int(budget):
            parser.error(
                f'--cell {method} {data} {budget}: expected a number of iterations, 1 or more, as BUDGET'
            )
        try:
            make_config(method, data)
        except FileNotFoundError as error:
            parser.error(f'--cell {method} {data} {budget}: {error}')
    args.cells = [
        Cell(method, data, int(budget), seed) for method, data, budget in args.cell for seed in args.seed
    ]
    return args


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parse_args(arguments)
    try:
        read_rows(ROWS)  # an error in the file must not appear after the first training
        failed = run_cells(args.cells, args.work_dir, args.again)
        if args.table:
            tables = render_tables(read_rows(ROWS))
            replace_tables(PAGE, tables)
            print(tables)
    except ValueError as error:
        raise SystemExit(f'leaderboard: {error}') from error
    if failed:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
