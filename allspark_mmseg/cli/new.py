"""Look at a folder of images and masks, say what it is, and write lists and configs for it.

Images are never changed. Masks of another form than class numbers are converted into DATA/.allspark. The
same command can be run again: it reads only what has changed, keeps the validation images, and does not
overwrite a config that was edited.
"""

import argparse
import re
import shlex
import sys
import warnings
from pathlib import Path

from rich.console import Console

from ..own_data.choices import Choices, Machine, choose, missing_weights
from ..own_data.colors import find_table, read_table
from ..own_data.files import WORK, list_files
from ..own_data.labels import Options
from ..own_data.layouts import Patterns
from ..own_data.prepare import Streams, Understanding, add, finish, understand
from ..own_data.state import State, changed_classes, check_numbers
from ..own_data.table import class_table, problem_lines, stream_table
from ..own_data.write import DataSet, main_config, method_configs, write_configs
from ..utils import join_first
from .errors import refuses_mistakes

_REMEMBERED = ('images', 'masks', 'unlabeled', 'val', 'classes', 'colors', 'threshold', 'empty', 'out')


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
    parser.add_argument('data', type=Path, help='folder of the images; all other paths are relative to it')
    parser.add_argument(
        '--images',
        help="folders, files or patterns ('a/*.jpg'); default: recognized",
        nargs='+',
        metavar='PLACE',
    )
    parser.add_argument(
        '--masks', help='folders, files or patterns of masks or JSON files', nargs='+', metavar='PLACE'
    )
    parser.add_argument('--unlabeled', help='images without masks', nargs='+', metavar='PLACE')
    parser.add_argument(
        '--val', help='images for validation; default: recognized, or held out', nargs='+', metavar='PLACE'
    )
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='names of the classes 0, 1, ...')
    parser.add_argument('--colors', help='table of colors: lines "road 128 64 128", or JSON')
    parser.add_argument('--threshold', type=int, help='gray values of masks from here on are class 1')
    parser.add_argument('--out', help='folder of the configs; default: configs/NAME_OF_DATA')
    parser.add_argument(
        '--add', nargs='+', metavar='MASKS', help='folders of new masks of unlabeled images, or lists'
    )
    parser.add_argument(
        '--accept-drafts',
        action='store_true',
        help='--add also takes masks that are still as suggest drew them',
    )
    parser.add_argument(
        '--empty',
        choices=['background', 'unlabeled'],
        help='the use of images without polygons, and of images whose mask has only class 0 '
        '(default: background)',
    )
    return parser.parse_args(arguments)


@refuses_mistakes('new')
def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        int: 0 if training can start; 2 after an error.
    """
    args = parse_args(arguments)
    # Pillow warns about large images and damaged tags; the images are checked here
    warnings.filterwarnings('ignore', module='PIL')
    run(args)
    return 0


def run(args: argparse.Namespace) -> None:
    """Understand the data, and write lists and configs.

    Args:
        args (argparse.Namespace): The command line.

    Raises:
        OSError: A file does not exist, or ``DATA/.allspark`` cannot be written.
        ValueError: The data do not fit together.
    """
    root = args.data
    if not root.is_dir():
        raise FileNotFoundError(f'{root} is not a folder; expected the folder of the images.')
    _check_writable(root)
    state = State.load(root)
    repeated = _recall(args, state)
    out = Path(args.out or Path('configs') / _config_name(root))
    _check_owner(root, out)
    console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 160)
    options = _options(args, root)
    places = (args.images, args.masks, args.unlabeled, args.val)
    found = understand(root, Patterns(*(place or [] for place in places)), options)
    _print_understanding(console, found, repeated, args)
    check_numbers(state, list(found.labels.classes))
    added, drafts = add(found, args.add, state, options) if args.add else ([], [])
    streams = finish(found, state, options.empty)
    _print_streams(console, found, streams, added, [] if args.accept_drafts else drafts)
    main_name = 'allspark' if streams.unlabeled else 'supervised'
    changed = changed_classes(state.classes, list(found.labels.classes))
    if changed:
        console.print(f'\n{changed}', markup=False)
    # after new labels, the config stays as it is: its lists have changed
    renamed = state.classes != found.labels.classes
    if renamed or not (args.add and (out / f'{main_name}.py').is_file()):
        _write(console, args, out, main_name, (found, streams, state))
    state.classes = list(found.labels.classes)
    console.print(f'\nNext: python -m allspark_mmseg train {out / main_name}.py', markup=False)
    console.print(
        f'See first what the network gets: python -m allspark_mmseg look {out / main_name}.py', markup=False
    )
    state.save(root)


def _check_owner(root: Path, out: Path) -> None:
    """Refuse to write into the folder of the configs of other data."""
    for path in (out / 'allspark.py', out / 'supervised.py'):
        text = path.read_text() if path.is_file() else ''
        found = re.search(r"^data_root\b.*?= *(['\"])(?P<folder>.+?)\1", text, re.MULTILINE)
        other = Path(found['folder']) if found else root
        # a folder that was renamed is no longer there
        if other.is_dir() and other.resolve() != root.resolve():
            raise ValueError(
                f'{path} is a config for {other}, and not for {root}. Name another folder for the configs '
                'with --out.'
            )


def _config_name(root: Path) -> str:
    return re.sub(r'\W+', '_', root.resolve().name).strip('_') or 'mine'


def _command(args: argparse.Namespace) -> str:
    """Return the command line with the options of earlier runs, but without what the config shows anyway."""
    parts = ['python', '-m', 'allspark_mmseg', 'new', args.data.as_posix()]
    for name in _REMEMBERED:
        value = getattr(args, name)
        if value is not None and name not in ('classes', 'out'):
            parts += [f'--{name}', *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(parts)


def _check_writable(root: Path) -> None:
    try:
        (root / WORK).mkdir(exist_ok=True)
    except OSError as error:
        raise OSError(
            f'{root / WORK} cannot be made ({error.strerror}). It holds lists and converted masks. For data '
            f'that are read-only, make a folder of links: cp -rs {root.resolve()} data/, and use that.'
        ) from error


def _recall(args: argparse.Namespace, state: State) -> list[str]:
    """Use the options of the last run where this one gives none, and remember them."""
    repeated = []
    for name in _REMEMBERED:
        if getattr(args, name) is None and name in state.options:
            setattr(args, name, state.options[name])
            if name != 'out':
                repeated.append(f'--{name}')
        elif getattr(args, name) is not None:
            state.options[name] = getattr(args, name)
    return repeated


def _options(args: argparse.Namespace, root: Path) -> Options:
    if args.threshold is not None and not 1 <= args.threshold <= 255:
        raise ValueError(f'--threshold is {args.threshold}; expected a gray value from 1 to 255.')
    table = None
    if args.colors:
        place = next((path for path in (root / args.colors, Path(args.colors)) if path.is_file()), None)
        if place is None:
            raise FileNotFoundError(f'--colors {args.colors} does not exist; expected a table of colors.')
        table = read_table(place)
    elif place := find_table(root, list_files(root)):
        table = read_table(place)
        args.found_table = place
    return Options(args.classes or [], table, args.threshold, args.empty or 'background', args.accept_drafts)


def _print_understanding(
    console: Console, found: Understanding, repeated: list[str], args: argparse.Namespace
) -> None:
    console.print(f'[bold]{found.root}[/bold]: {found.layout.kind}')
    if repeated:
        console.print(f'  as in the last run: {", ".join(repeated)}')
    for text in found.labels.texts:
        console.print(f'  masks: {text}', markup=False)
    if getattr(args, 'found_table', None):
        console.print(f'  colors of the classes: {args.found_table}')
    for note in found.layout.notes:
        console.print(f'  {note}', markup=False)


def _print_streams(
    console: Console, found: Understanding, streams: Streams, added: list[str], drafts: list[str]
) -> None:
    if added:
        console.print(f'  {len(added)} images have the masks of --add now', markup=False)
    if drafts:
        console.print(
            f'  {len(drafts)} files of --add are still as suggest drew them, and are left out: '
            f'{join_first(drafts)}. Correct them, or add --accept-drafts if they are right.',
            markup=False,
        )
    for note in streams.notes:
        console.print(f'  {note}', markup=False)
    console.print()
    console.print(class_table(found.labels, streams))
    console.print()
    console.print(stream_table(found, streams))
    for line in problem_lines(found.problems, str(found.root / WORK / 'problems.txt')):
        console.print(line, markup=False)


def _write(
    console: Console,
    args: argparse.Namespace,
    out: Path,
    main_name: str,
    known: tuple[Understanding, Streams, State],
) -> None:
    """Choose the settings, and write the configs."""
    found, streams, state = known
    labels = found.labels
    used = [*streams.labeled, *streams.unlabeled, *streams.val]
    counts = {image: labels.counts[image] for image in (*streams.labeled, *streams.val)}
    choices = choose(
        Machine.here(),
        [found.images[image]['size'] for image in used],
        counts,
        labels.classes,
        len(streams.labeled),
        len(streams.unlabeled),
    )
    sizes = [len(part) for part in (streams.labeled, streams.unlabeled, streams.val)]
    data = DataSet(args.data.as_posix(), labels.classes, labels.palette, *sizes)
    texts = {main_name: main_config(_command(args), out, data, choices)}
    if streams.unlabeled:
        texts |= method_configs(choices)
    written, notes = write_configs(out, texts, state)
    _print_choices(console, choices, streams)
    for path in written:
        console.print(f'wrote {path}')
    for note in [*notes, missing_weights(choices.network)]:
        if note:
            console.print(note, markup=False)


def _print_choices(console: Console, choices: Choices, streams: Streams) -> None:
    reasons = [choices.network_reason, f'crop {choices.crop}: {choices.crop_reason}']
    step = f'{choices.labeled} labeled and {choices.unlabeled} unlabeled images per step'
    reasons.append(f'{step}: {choices.step_reason}' if choices.step_reason else step)
    if choices.rare:
        reasons.append(f'half of the crops contain a rare class: {choices.rare}')
    if choices.background and streams.unlabeled:
        reasons.append(f'only confident pseudo-labels, threshold 0.95: {choices.background}')
    if choices.window:
        slow = '; on a CPU this is slow, and smaller copies of the images train faster'
        reasons.append('large images are predicted in windows' + slow * (choices.network == 'small'))
    if not streams.unlabeled:
        reasons.append('no unlabeled images: only supervised training is possible; --unlabeled adds images')
    console.print()
    for reason in reasons:
        console.print(f'chosen: {reason}', markup=False)
