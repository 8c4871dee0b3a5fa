"""The command line: presets, options, and their checks."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from .measure import SIDES, Case, Result
from .networks import DTYPES

# images: labeled, unlabeled per step; stored: (width, height) of an image file
PRESETS = {
    'voc': dict(classes=21, crop=513, images=(2, 2), channels=512, stored=(500, 375)),
    'cityscapes': dict(classes=19, crop=801, images=(2, 2), channels=512, stored=(2048, 1024)),
    'coco': dict(classes=81, crop=513, images=(4, 4), channels=512, stored=(640, 480)),
    'camvid': dict(classes=11, crop=193, images=(4, 4), channels=256, stored=(480, 360)),
}


@dataclass(frozen=True)
class Command:
    """One command of the benchmark.

    Attributes:
        cases (Callable): Yields the cases; its docstring is the help text.
        preset (str): Default of ``--preset``.
        options (tuple[str, ...]): Keys of ``OPTIONS`` that the command accepts.
        repeats (int): Default of ``--repeats``.
        remark (Callable, optional): Formats a result in another unit, such as images per second.
    """

    cases: Callable[[argparse.Namespace], Iterator[Case]]
    preset: str
    options: tuple[str, ...]
    repeats: int = 5
    remark: Callable[[Result], str] | None = None


def positive(text: str) -> int:
    """Parse an integer of at least 1.

    Raises:
        ArgumentTypeError: ``text`` is not such a number.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} found, expected an integer of at least 1')
    return int(text)


# name -> arguments of add_argument; without the key flag, the flag is --name
OPTIONS: dict[str, dict] = {
    'device': dict(choices=['cpu', 'cuda'], default='cpu', help='default: %(default)s'),
    'threads': dict(type=positive, help="CPU threads of PyTorch; default: PyTorch's choice"),
    'classes': dict(type=positive, help='number of classes; default: from the preset'),
    'no-peak': dict(dest='peak', action='store_false', help='do not measure peak memory'),
    'images': dict(
        type=positive, nargs=2, metavar=('LABELED', 'UNLABELED'), help='per step; default: from the preset'
    ),
    'folder': dict(
        flag='--images', dest='folder', type=Path, metavar='FOLDER', help='default: generated images'
    ),
    'count': dict(
        type=positive, default=64, help='images per repeat, repeated if necessary; default: %(default)s'
    ),
    'channels': dict(type=positive, help='width of the bottleneck; default: from the preset'),
    'dtype': dict(choices=DTYPES, help='precision of both sides, by autocast; default: fp32'),
    'dropout': dict(type=float, help='in the attention; default: 0.1 (bottleneck: 0 and 0.1)'),
    'backbone': dict(
        choices=[f'mit-b{i}' for i in range(6)],
        help='default: mit-b0 for camvid, otherwise mit-b5 on cuda and mit-b2 on cpu',
    ),
    'amp': dict(action='store_true', help='also compare ours in bf16 with the unchanged reference'),
    'checkpointing': dict(action='store_true', help='also measure ours with gradient checkpointing'),
}


def make_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Build the parser of the command line.

    Args:
        commands (Mapping[str, Command]): Name -> command.
    """
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description='Compare time and peak memory with a straightforward implementation.',
        epilog='python -m benchmarks all --help: everything on one device, in a few minutes.',
    )
    subparsers = parser.add_subparsers(dest='command', required=True)
    for name, command in commands.items():
        summary = (command.cases.__doc__ or '').split('\n')[0]
        add = subparsers.add_parser(name, help=summary, description=summary).add_argument
        add('--preset', choices=PRESETS, default=command.preset, help='source of sizes; default: %(default)s')
        add('--crop', type=positive, help='side in pixels; default: from the preset')
        add('--repeats', type=positive, default=command.repeats, help='default: %(default)s')
        add('--json', type=Path, metavar='FILE', help='write machine and results to FILE')
        add('--side', choices=SIDES, help=argparse.SUPPRESS)
        add('--case', type=int, help=argparse.SUPPRESS)
        for option in command.options:
            arguments = dict(OPTIONS[option])
            add(arguments.pop('flag', f'--{option}'), **arguments)
    return parser


def parse_args(arguments: list[str], commands: Mapping[str, Command]) -> argparse.Namespace:
    """Parse and check the command line, and fill in the sizes of the preset.

    Args:
        arguments (list[str]): The command line.
        commands (Mapping[str, Command]): Name -> command.

    Returns:
        Namespace: All options that the command reads.
    """
    parser = make_parser(commands)
    # defaults for commands without these options; data runs like one worker, in one thread
    options = argparse.Namespace(device='cpu', threads=1, dropout=None, backbone=None, folder=None)
    parser.parse_args(arguments, options)
    for name, value in PRESETS[options.preset].items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    large = 'mit-b5' if options.device == 'cuda' else 'mit-b2'
    options.backbone = options.backbone or ('mit-b0' if options.preset == 'camvid' else large)
    check(parser, options)
    return options


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Stop with an error message if options are wrong."""
    if options.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device is cuda, but PyTorch finds no CUDA device; use --device cpu.')
    if options.crop < 64:
        parser.error(f'--crop is {options.crop}, expected at least 64: two positions of the deepest feature.')
    if options.dropout is not None and not 0 <= options.dropout < 1:
        parser.error(f'--dropout is {options.dropout:g}, expected a number in [0, 1).')
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f'--images is {options.folder}, expected a folder of images.')
