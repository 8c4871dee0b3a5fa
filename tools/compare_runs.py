"""Compare training runs by their logs: a table of last and best values, and a picture of the curves.

    python tools/compare_runs.py OUT.png NAME=WORK_DIR [NAME=WORK_DIR ...] [--metric mIoU ...]

Runs with the same name (for example, with other seeds) become one curve: their mean, with a band from the
lowest to the highest value. The table then shows mean and standard deviation. Each metric, which can be a
loss, becomes a panel with the runs that log it. A resumed run counts as one run. The tool reads
MMEngine's logs (WORK_DIR/*/vis_data/scalars.json). MMSegmentation's analyze_logs.py is not in its package.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from cycler import cycler

# name -> curves of its runs (iteration -> value); metric -> these
Curves = dict[str, list[dict[int, float]]]
Panels = dict[str, Curves]


def read_curve(work_dir: Path, metric: str) -> dict[int, float]:
    """Read a metric from a run's logs.

    Args:
        work_dir (Path): The work dir, which contains a folder for each start of the run.
        metric (str): Name in the log, such as ``mIoU``, ``teacher/mIoU`` or ``unsup.loss_ce``.

    Returns:
        dict[int, float]: Iteration -> value, ascending.

    Raises:
        ValueError: There is no log, or the metric is not in it.
    """
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    entries = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    names = {name for entry in entries for name in entry}
    # in epoch-based training, validation logs the epoch; training logs the same iterations of each epoch
    first: dict[int, int] = {}
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


def summary(curves: Curves, metric: str) -> str:
    """Format a Markdown table of last and best values: mean and standard deviation over the runs of a name.

    The best value of a loss is the lowest, as in MMEngine's CheckpointHook; of other metrics it is the
    highest.

    Args:
        curves (dict): Name -> curves of its runs, see `read_curve`.
        metric (str): Name of the metric.

    Returns:
        str: The table.
    """
    best_of = min if 'loss' in metric else max

    def average(values: list[float]) -> str:
        return f'{mean(values):.2f}' + (f' ± {stdev(values):.2f}' if len(values) > 1 else '')

    rows = [f'| | runs | iterations | {metric}, last | best |', '|---|---|---|---|---|']
    for name, runs in curves.items():
        last, best = (
            [pick(run) for run in runs]
            for pick in (lambda run: run[max(run)], lambda run: best_of(run.values()))
        )
        rows.append(f'| {name} | {len(runs)} | {max(map(max, runs))} | {average(last)} | {average(best)} |')
    return '\n'.join(rows)


def draw(panels: Panels, out: Path) -> None:
    """Draw a panel for each metric with a curve for each name.

    Args:
        panels (dict): Metric -> name -> curves of its runs, see `read_curve`.
        out (Path): Picture to write.
    """
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


def _panel(axes: plt.Axes, curves: Curves, metric: str) -> None:
    # after ten colors, curves are dashed, then dotted
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
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5))  # beside the curves


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, help='picture to write, *.png')
    parser.add_argument('runs', nargs='+', metavar='NAME=WORK_DIR')
    parser.add_argument('--metric', nargs='+', default=['mIoU'])
    args = parser.parse_args(arguments)
    panels: Panels = {metric: {} for metric in args.metric}
    for run in args.runs:
        name, equals, folder = run.partition('=')
        if not equals:
            parser.error(f'{run!r}: expected NAME=WORK_DIR')
        missing = []
        for metric, curves in panels.items():
            try:
                curve = read_curve(Path(folder), metric)
            except ValueError as error:
                missing.append(error)
            else:
                curves.setdefault(name, []).append(curve)
        if len(missing) == len(panels):
            parser.error(str(missing[0]))
    for metric, curves in panels.items():
        if not curves:
            parser.error(f'no run logs {metric}')
        print(summary(curves, metric))
    draw(panels, args.out)
    print(f'curves: {args.out}')


if __name__ == '__main__':
    main()
