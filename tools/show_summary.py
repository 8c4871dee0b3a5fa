"""Print the scores of a run with two phases.

    python tools/show_summary.py work_dirs/demo

The tool reads WORK_DIR/summary.json, which allspark_mmseg.WarmStartHook writes after each validation.
"""

import argparse
import json
from pathlib import Path

from allspark_mmseg.engine.scoreboard import CHOSEN, SUMMARY, still_improving


def format_summary(summary: dict) -> str:
    """Format a summary: one line per phase with its best score, then the gain and the choice.

    Args:
        summary (dict): Content of ``summary.json``.

    Returns:
        str: The text.
    """
    phases = {name: entry for name, entry in summary.items() if isinstance(entry, dict)}
    lines = []
    for name, entry in phases.items():
        (metric, *_) = entry
        lines.append(
            f'{name:<12} {metric} {entry[metric]:.2f} ({entry["network"]} at iteration '
            f'{entry["iteration"]}), {entry["minutes"]:.1f} minutes'
        )
    if 'gain' in summary:
        lines.append(f'gain         {summary["gain"]:+.2f}; {CHOSEN} is {summary["chosen"]}.pth')
    if summary.get('gain', 0) > 0 and still_improving(summary.get('scores', ())):
        lines.append('             longer training can be a part of it; train --control shows how much')
    return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path, help='work dir of the run')
    path = parser.parse_args(arguments).work_dir / SUMMARY
    if not path.is_file():
        parser.error(f'{path} does not exist; expected the work dir of a run with WarmStartHook')
    print(format_summary(json.loads(path.read_text())))


if __name__ == '__main__':
    main()
