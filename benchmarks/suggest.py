"""Measure whether labels of suggested images teach more than labels of random ones.

    python -m benchmarks.suggest --data camvid_1over30 magnetic_tile_36 --seeds 0 1 2 --iterations 1000 \
        --out work_dirs/suggest

For each data set and seed: draw 10 images at random, train a supervised network on them, let
``python -m allspark_mmseg suggest`` choose 10 of the others, and train a new network on the 20. This network
is compared with one that is trained on the same first 10 and 10 more random images. All masks are known, so
labels are revealed. The config is configs/supervised/demo.py with the data set replaced, as in
tools/leaderboard.py. The classes in the 20 images are counted too.

Each result is written to OUT/results.json as soon as it is there. The same command skips what is there.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

from allspark_mmseg.datasets.list_lines import parse_list_line

from .options import positive

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs'
ARMS = ('start', 'random', 'suggest')
IGNORED = 255
Row = dict[str, Any]


def make_config(data: str, crop: int, folder: Path) -> str:
    """Return the text of the config: configs/supervised/demo.py with another data set and crop.

    Args:
        data (str): Name of a file in ``configs/_base_/datasets``.
        crop (int): Side of the crop in pixels.
        folder (Path): Folder for a copy of the data set's config with this crop.

    Returns:
        str: The config, with absolute paths.

    Raises:
        SystemExit: There is no such data set.
    """
    source = CONFIGS / '_base_' / 'datasets' / f'{data}.py'
    if not source.is_file():
        raise SystemExit(f'--data {data}: there is no {source}; expected a name in {source.parent}')
    text = source.read_text().replace('{{ fileDirname }}', str(source.parent))
    text = text.replace("'../", f"'{CONFIGS}/_base_/")
    copy = folder / f'data_{data}.py'
    copy.write_text(re.sub(r'crop_size = \(\d+, \d+\)', f'crop_size = ({crop}, {crop})', text))
    demo = (CONFIGS / 'supervised' / 'demo.py').read_text()
    return demo.replace('../_base_/datasets/demo.py', str(copy)).replace('../_base_/', f'{CONFIGS}/_base_/')


def read_pool(data: str) -> tuple[Path, list[str]]:
    """Return the folder of a data set and the names of all its training images, sorted.

    Args:
        data (str): Name of a file in ``configs/_base_/datasets`` with a ``split``.

    Returns:
        tuple: The absolute folder, and names relative to it.
    """
    dataset = Config.fromfile(CONFIGS / '_base_' / 'datasets' / f'{data}.py').train_dataloader.dataset
    names: set[str] = set()
    for name in ('labeled.txt', 'unlabeled.txt'):
        path = Path(dataset.split) / name
        lines = path.read_text().splitlines() if path.is_file() else []
        names |= {parse_list_line(line)[0] for line in lines if line.strip()}
    return (ROOT / dataset.data_root).absolute(), sorted(names)


def mask_of(name: str) -> str:
    """Return the mask of ``images/NAME.jpg``: ``annotations/NAME.png``."""
    return str(Path(name.replace('images', 'annotations', 1)).with_suffix('.png'))


def count_classes(root: Path, names: Sequence[str]) -> int:
    """Return how many classes the masks of images have."""
    labels = {
        int(label) for name in names for label in np.unique(np.asarray(Image.open(root / mask_of(name))))
    }
    return len(labels - {IGNORED})


def run_command(command: Sequence[str], log: Path) -> None:
    """Run a Python command with the package of this folder.

    Args:
        command (Sequence[str]): Arguments of Python.
        log (Path): File for its output.

    Raises:
        SystemExit: It failed.
    """
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    with log.open('w') as output:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': paths},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        raise SystemExit(f'{" ".join(command[:4])} failed with exit code {done.returncode}; see {log}')


def train(folder: Path, data: str, names: Sequence[str], seed: int, options: argparse.Namespace) -> float:
    """Train a supervised network, and return its best mIoU in percent.

    Args:
        folder (Path): Work dir. An earlier, incomplete training is deleted.
        data (str): The data set.
        names (Sequence[str]): The labeled images.
        seed (int): Seed of the training.
        options (Namespace): ``iterations``, ``crop`` and ``options``.

    Returns:
        float: The highest mIoU of the validations.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config, labeled = folder / 'supervised.py', folder / 'labeled.txt'
    config.write_text(make_config(data, options.crop, folder))
    labeled.write_text(''.join(f'{name} {mask_of(name)}\n' for name in names))
    interval = max(options.iterations // 4, 1)
    settings = [
        f'train_cfg.max_iters={options.iterations}',
        f'train_cfg.val_interval={interval}',
        f'param_scheduler.0.end={options.iterations}',
        f'default_hooks.checkpoint.interval={interval}',
        f'randomness.seed={seed}',
        f'train_dataloader.dataset.labeled.ann_file={labeled}',
        *options.options,
    ]
    command = ['tools/train.py', str(config), '--work-dir', str(folder), '--cfg-options', *settings]
    run_command(command, folder / 'train.log')
    logs = [path.read_text().splitlines() for path in folder.glob('*/vis_data/scalars.json')]
    entries = [json.loads(line) for lines in logs for line in lines]
    return max(entry['mIoU'] for entry in entries if 'mIoU' in entry)


def suggest(folder: Path, root: Path, pool: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Let ``suggest`` choose images.

    Args:
        folder (Path): Work dir of the network.
        root (Path): Folder of the data set.
        pool (Sequence[str]): Names of the unlabeled images.
        options (Namespace): ``step``, ``strategy`` and ``pool``.

    Returns:
        list[str]: Names of the chosen images.
    """
    source = folder / 'pool.txt'
    source.write_text(''.join(f'{root / name}\n' for name in pool))
    out = folder / 'suggest'
    shutil.rmtree(out, ignore_errors=True)
    command = ['-m', 'allspark_mmseg', 'suggest', str(folder), '--images', str(source)]
    command += ['--num', str(options.step), '--out', str(out), '--strategy', options.strategy]
    command += ['--pool', str(options.pool)] if options.pool else []
    run_command(command, folder / 'suggest.log')
    return (out / 'suggest.txt').read_text().splitlines()


def run_seed(data: str, seed: int, options: argparse.Namespace) -> None:
    """Run what is missing of the three trainings of a seed, and record each.

    Args:
        data (str): The data set.
        seed (int): Seed of the drawn images and of the trainings.
        options (Namespace): The command line.
    """
    root, names = read_pool(data)
    order = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    first, rest = order[: options.start], order[options.start :]
    folder = (options.out / data / f'seed{seed}').resolve()
    chosen = {'start': first, 'random': first + rest[: options.step]}
    for arm in ARMS:
        if find_row(options.out, data, seed, arm):
            print(f'{data}, seed {seed}, {arm}: done before', flush=True)
            continue
        begin = time.monotonic()
        if arm == 'suggest':
            chosen[arm] = first + suggest(folder / 'start', root, rest, options)
        score = train(folder / arm, data, chosen[arm], seed, options)
        row = {
            'data': data,
            'seed': seed,
            'arm': arm,
            'mIoU': round(score, 2),
            'images': chosen[arm],
            'classes': count_classes(root, chosen[arm]),
            'minutes': round((time.monotonic() - begin) / 60, 2),
            **{key: getattr(options, key) for key in ('iterations', 'crop', 'strategy', 'pool')},
        }
        write_rows(options.out, [*read_rows(options.out), row])
        print(f'{data}, seed {seed}, {arm}: mIoU {score:.2f}, {row["classes"]} classes', flush=True)


def read_rows(out: Path) -> list[Row]:
    """Return the results so far."""
    path = out / 'results.json'
    return json.loads(path.read_text()) if path.is_file() else []


def write_rows(out: Path, rows: Sequence[Row]) -> None:
    """Write the results; an interruption leaves the old file."""
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / 'results.json.tmp'
    temporary.write_text(json.dumps(rows, indent=1) + '\n')
    temporary.replace(out / 'results.json')


def find_row(out: Path, data: str, seed: int, arm: str) -> Row | None:
    """Return the result of a training, if it is there."""
    rows = [row for row in read_rows(out) if (row['data'], row['seed'], row['arm']) == (data, seed, arm)]
    return rows[0] if rows else None


def format_table(rows: Sequence[Row]) -> str:
    """Return a Markdown table: mIoU of each seed, and means over the seeds that have all three."""
    lines = [
        '| data | seed | 10 random | 20 random | 10 random + 10 suggested | difference | classes |',
        '|---|---|---|---|---|---|---|',
    ]
    for data in dict.fromkeys(row['data'] for row in rows):
        complete = []
        for seed in sorted({row['seed'] for row in rows if row['data'] == data}):
            found = {row['arm']: row for row in rows if (row['data'], row['seed']) == (data, seed)}
            if len(found) < len(ARMS):
                texts = [f'{found[arm]["mIoU"]:.2f}' if arm in found else '-' for arm in ARMS] + ['-', '-']
            else:
                values = [found[arm]['mIoU'] for arm in ARMS]
                complete.append(values)
                classes = f'{found["random"]["classes"]} / {found["suggest"]["classes"]}'
                texts = [f'{value:.2f}' for value in values] + [f'{values[2] - values[1]:+.2f}', classes]
            lines.append(f'| {data} | {seed} | {" | ".join(texts)} |')
        if complete:
            means = [mean(column) for column in zip(*complete, strict=True)]
            texts = [f'{value:.2f}' for value in means] + [f'{means[2] - means[1]:+.2f}', '']
            lines.append(f'| {data} | mean of {len(complete)} | {" | ".join(texts)} |')
    return '\n'.join(lines)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.suggest',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--data', nargs='+', default=['camvid_1over30', 'magnetic_tile_36'])
    add('--seeds', type=int, nargs='+', default=[0, 1, 2])
    add('--iterations', type=positive, default=1000, help='of each training (default: %(default)s)')
    add('--crop', type=positive, default=97, help='side of the crop in pixels (default: %(default)s)')
    add('--start', type=positive, default=10, help='images drawn at random (default: %(default)s)')
    add('--step', type=positive, default=10, help='images added (default: %(default)s)')
    add('--strategy', default='combined', help='of suggest (default: %(default)s)')
    add('--pool', type=positive, help='candidates of suggest')
    add('--options', nargs='*', default=[], help='further KEY=VALUE settings of the trainings')
    add('--out', type=Path, default=Path('work_dirs/suggest'))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the protocol, and print the table.

    Args:
        arguments (list[str], optional): The command line; by default that of the process.
    """
    options = parse_args(arguments)
    for data in options.data:
        for seed in options.seeds:
            run_seed(data, seed, options)
            print(format_table(read_rows(options.out)), flush=True)


if __name__ == '__main__':
    main()
