"""Compare training runs by their logs: a table of last and best values, and a picture of the curves.

Usage: python tools/compare_runs.py OUT.png NAME=WORK_DIR [NAME=WORK_DIR ...] [--metric mIoU ...]

Runs of one name (other seeds) become one curve, their mean, with a band from the lowest to the highest; the
table then tells mean and standard deviation. Several metrics, losses among them, become several panels,
each with the runs that log it. A resumed run counts as one. MMEngine writes the logs
(WORK_DIR/*/vis_data/scalars.json); MMSegmentation's analyze_logs.py is not part of its package.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from cycler import cycler


def read_curve(work_dir: Path, metric: str) -> dict[int, float]:
    """Read a metric from a run's logs.

    Args:
        work_dir: the run's folder, with a folder for each start inside.
        metric: its name in the log, such as ``mIoU``, ``teacher/mIoU`` or ``unsup.loss_ce``.

    Returns:
        dict: iteration -> value, ascending.

    Raises:
        ValueError: there is no log, or the metric is not in it.
    """
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    entries = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    names = {name for entry in entries for name in entry}
    # in training by epochs, validation tells the epoch, and the log the same places of each epoch
    first = {}
    for entry in entries:
        if 'epoch' in entry:
            first.setdefault(entry['epoch'], entry['iter'])
    epochs = sorted(first)
    length = (first[epochs[-1]] - first[epochs[0]]) // (epochs[-1] - epochs[0]) if len(epochs) > 1 else 1
    curve = {entry.get('iter', entry['step'] * length): entry[metric] for entry in entries if metric in entry}
    if not curve:
        found = f'its logs have {sorted(names)}' if logs else 'there is no */vis_data/scalars.json'
        raise ValueError(f'{work_dir}: no {metric} found; {found}.')
    return dict(sorted(curve.items()))


def summary(curves: dict[str, list[dict[int, float]]], metric: str) -> str:
    """A Markdown table: the last and the best value of each name, over its runs (mean +- deviation).

    The best of a loss is its lowest value, as MMEngine's CheckpointHook has it, of other metrics the highest.
    """
    best_of = min if 'loss' in metric else max

    def told(values: list[float]) -> str:
        return f'{mean(values):.2f}' + (f' ± {stdev(values):.2f}' if len(values) > 1 else '')

    rows = [f'| | runs | iterations | {metric}, last | best |', '|---|---|---|---|---|']
    for name, runs in curves.items():
        last, best = (
            [pick(run) for run in runs]
            for pick in (lambda run: run[max(run)], lambda run: best_of(run.values()))
        )
        rows.append(f'| {name} | {len(runs)} | {max(map(max, runs))} | {told(last)} | {told(best)} |')
    return '\n'.join(rows)


def draw(panels: dict[str, dict[str, list[dict[int, float]]]], out: Path) -> None:
    """Draw a panel for each metric with a curve for each name."""
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(8 * columns, 5 * rows), layout='constrained', squeeze=False
    )
    for axes, (metric, curves) in zip(grid.flat, panels.items(), strict=False):
        _panel(axes, curves, metric)
    for axes in grid.flat[len(panels) :]:
        axes.axis('off')
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120 // columns)
    plt.close(figure)


def _panel(axes: plt.Axes, curves: dict[str, list[dict[int, float]]], metric: str) -> None:
    # ten colors; the curves after them are dashed, then dotted
    axes.set_prop_cycle(cycler(linestyle=['-', '--', ':']) * plt.rcParams['axes.prop_cycle'])
    for name, runs in curves.items():
        steps = sorted(set.intersection(*map(set, runs)))
        values = [[run[step] for run in runs] for step in steps]
        (line,) = axes.plot(steps, [mean(each) for each in values], marker='o', markersize=3, label=name)
        if len(runs) > 1:
            axes.fill_between(
                steps,
                [min(each) for each in values],
                [max(each) for each in values],
                alpha=0.15,
                color=line.get_color(),
            )
    axes.set(xlabel='iteration', ylabel=metric)
    axes.grid(alpha=0.3)
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5))  # beside the curves, not over them


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, help='picture to write')
    parser.add_argument('runs', nargs='+', metavar='NAME=WORK_DIR')
    parser.add_argument('--metric', nargs='+', default=['mIoU'])
    args = parser.parse_args(arguments)
    panels = {metric: defaultdict(list) for metric in args.metric}
    for run in args.runs:
        name, equals, folder = run.partition('=')
        if not equals:
            parser.error(f'{run!r}: expected NAME=WORK_DIR')
        missing = []
        for metric, curves in panels.items():
            try:
                curves[name].append(read_curve(Path(folder), metric))
            except ValueError as error:
                missing.append(error)
        if len(missing) == len(panels):
            parser.error(str(missing[0]))
    for metric, curves in panels.items():
        panels[metric] = {name: runs for name, runs in curves.items() if runs}
        if not panels[metric]:
            parser.error(f'no run logs {metric}')
        print(summary(panels[metric], metric))
    draw(panels, args.out)
    print(f'curves: {args.out}')


if __name__ == '__main__':
    main()
