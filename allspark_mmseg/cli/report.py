"""Write an HTML page that shows whether the unlabeled images paid: one file, readable without a server.

WORK_DIR is the work dir of a training, also of one that is still running. Trainings whose configs differ only
in the seed are averaged. NAME=WORK_DIR sets the name of a training; trainings with the same name are
averaged, too. The networks run on the validation images. Their scores are kept in WORK_DIR/.report, so a
second report is fast.
"""

import argparse
import sys
from pathlib import Path

from mmengine.device import get_device

from ..engine import use_safe_loading
from ..output import complete_file
from ..report.collect import Report, collect, describe
from ..report.contact import draw_contact_sheet, iou_table
from ..report.figures import Gallery, make_galleries
from ..report.page import render_page
from ..report.runs import Run, read_run
from .errors import refuses_mistakes


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dirs', nargs='+', metavar='[NAME=]WORK_DIR', help='work dir of a training')
    parser.add_argument('--out', type=Path, help='page to write; default report.html in the first WORK_DIR')
    parser.add_argument(
        '--num-images', type=int, default=12, help='validation images to show (default: %(default)s)'
    )
    parser.add_argument('--sheet', type=Path, help='also write a contact sheet, a PNG picture, to this file')
    parser.add_argument('--logs-only', action='store_true', help='do not run the networks')
    parser.add_argument('--device', help=f'where to run the networks (default here: {get_device()})')
    args = parser.parse_args(arguments)
    if args.num_images < 0:
        parser.error(f'--num-images is {args.num_images}; expected 0 or more')
    if args.out and args.out.suffix.lower() not in ('.html', '.htm'):
        parser.error(f'--out is {args.out}; expected a name that ends in .html')
    if args.sheet and args.sheet.suffix.lower() != '.png':
        parser.error(f'--sheet is {args.sheet}; expected a name that ends in .png')
    return args


def read_runs(texts: list[str]) -> list[Run]:
    """Read the work dirs of the command line.

    Args:
        texts (list[str]): ``WORK_DIR`` or ``NAME=WORK_DIR``. A folder whose name has ``=`` is a work dir.

    Returns:
        list[Run]: The runs, each work dir once.

    Raises:
        FileNotFoundError: A folder is not the work dir of a training.
    """
    runs: dict[Path, Run] = {}
    for text in texts:
        name, equals, folder = text.partition('=')
        if not equals or Path(text).is_dir():
            name, folder = '', text
        runs.setdefault(Path(folder).resolve(), read_run(folder, name))
    return list(runs.values())


def make_pictures(report: Report, args: argparse.Namespace) -> list[Gallery]:
    """Make the pictures of the page, and write the contact sheet.

    Args:
        report (Report): The content. What cannot be drawn is added to its problems.
        args (argparse.Namespace): The command line.

    Returns:
        list[Gallery]: The images of the page.
    """
    shown = report.pictured()
    if report.dataset is None or not shown:
        if args.sheet:
            report.problems.append(f'{args.sheet} was not written, because no network was evaluated.')
        return []
    try:
        if args.sheet:
            sheet = draw_contact_sheet(report.dataset, shown, args.device)
            with complete_file(args.sheet) as path:
                sheet.save(path)
        return make_galleries(report.dataset, shown, args.num_images, args.device) if args.num_images else []
    except (OSError, ValueError) as error:
        report.problems.append(f'The validation images are not shown: {describe(error)}')
        return []


@refuses_mistakes('report')
def main(arguments: list[str] | None = None) -> int:
    """Write the report.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        int: The exit code.

    Raises:
        FileNotFoundError: A folder is not the work dir of a training.
        ValueError: The page exists, and the validation images are not there for a new one.
    """
    args = parse_args(arguments)
    runs = read_runs(args.work_dirs)
    use_safe_loading()
    report = collect(runs, args.device, args.logs_only)
    out = args.out or runs[0].work_dir / 'report.html'
    if report.unread and not report.evaluations and out.exists():
        raise ValueError(
            f'{out} stays as it is, because a new page would have no images: {report.problems[-1]} Run the '
            'command in the folder of the training. Or write another page with --out, or use --logs-only.'
        )
    galleries = make_pictures(report, args)
    with complete_file(out) as path:
        path.write_text(render_page(report, galleries), encoding='utf-8')
    shown = report.shown()
    if report.dataset is not None and shown:
        print(f'{iou_table(shown, report.dataset.metainfo["classes"])}\n')
    print(report.verdict.sentence)
    for problem in report.problems:
        print(problem, file=sys.stderr)
    if args.sheet and args.sheet.is_file():
        print(f'picture: {args.sheet}')
    print(f'report: {out} ({out.stat().st_size / 1e6:.1f} MB)')
    return 0
