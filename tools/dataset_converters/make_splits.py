r"""Write split lists: the published ones of Pascal VOC, Cityscapes and COCO, or new ones for any data set.

    python tools/dataset_converters/make_splits.py voc
    python tools/dataset_converters/make_splits.py cityscapes --reference https://github.com/xmed-lab/AllSpark
    python tools/dataset_converters/make_splits.py new --data-root data/mine \
        --images images/train --masks annotations/train --ratio 1/8 --out data/mine/splits/1_8

The published lists are written below data/splits. Lists that follow a rule are computed from the data set.
The others are read from a copy of the AllSpark or the UniMatch repository: a folder, an archive or an
address. Each list is compared with the published digest. A list that differs is never written.
"""

import argparse
from fractions import Fraction
from pathlib import Path

from splits.new import make_new
from splits.published import make_published

from allspark_mmseg.datasets.published_splits import DATASETS, DEFAULT_OUT, REFERENCES

DATA_ROOTS = {'voc': 'data/VOC2012', 'cityscapes': 'data/cityscapes', 'coco': 'data/coco'}


def add_published(commands: argparse._SubParsersAction, dataset: str) -> None:
    """Add the subcommand ``dataset``."""
    command = commands.add_parser(dataset, help=f'write the published lists of {dataset}')
    command.set_defaults(make=make_published, dataset=dataset)
    command.add_argument(
        '--data-root', type=Path, default=Path(DATA_ROOTS[dataset]), help='data set (default: %(default)s)'
    )
    command.add_argument(
        '--reference',
        metavar='FOLDER|ARCHIVE|ADDRESS',
        help=f'copy of {" or ".join(REFERENCES)}, or its address',
    )
    command.add_argument(
        '--out', type=Path, default=Path(DEFAULT_OUT), help='folder of the lists (default: %(default)s)'
    )
    if dataset == 'voc':
        command.add_argument(
            '--masks',
            default='SegmentationClass',
            help='folder of all masks, below --data-root (default: %(default)s)',
        )


def add_new(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand ``new``."""
    command = commands.add_parser('new', help='split any data set with masks')
    command.set_defaults(make=make_new)
    command.add_argument('--data-root', type=Path, required=True, help='data set')
    command.add_argument('--images', help='folder of the images, relative to --data-root')
    command.add_argument('--masks', help='folder of the masks, relative to --data-root')
    command.add_argument('--list', help='list of "image" or "image mask" lines, relative to --data-root')
    command.add_argument('--img-suffix', help='end of an image name that --seg-map-suffix replaces')
    command.add_argument('--seg-map-suffix', default='.png', help='end of a mask name (default: %(default)s)')
    size = command.add_mutually_exclusive_group(required=True)
    size.add_argument('--ratio', type=Fraction, help='share of the images to label, as in 1/8 (rounded up)')
    size.add_argument('--count', type=int, help='number of images to label')
    command.add_argument('--seed', type=int, default=0, help='seed of the draw (default: %(default)s)')
    command.add_argument('--num-classes', type=int, help='default: the classes that occur in the masks')
    command.add_argument(
        '--ignore-index',
        type=int,
        nargs='+',
        default=[255],
        help='values that are not classes (default: 255)',
    )
    command.add_argument('--out', type=Path, required=True, help='folder of labeled.txt and unlabeled.txt')


def check_new(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Stop with an error message if the options of ``new`` are wrong."""
    if not args.list and not (args.images and args.masks):
        parser.error('expected --images and --masks, or --list')
    for option, least, most in (('count', 1, None), ('seed', 0, None), ('num_classes', 1, 256)):
        value = getattr(args, option)
        if value is not None and (value < least or (most and value > most)):
            limits = f'{least} to {most}' if most else f'{least} or more'
            parser.error(f'--{option.replace("_", "-")} is {value}; expected {limits}')
    if wrong := [value for value in args.ignore_index if not 0 <= value <= 255]:
        parser.error(f'--ignore-index is {wrong[0]}; expected 0 to 255')


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar='voc|cityscapes|coco|new')
    for dataset in DATASETS:
        add_published(commands, dataset)
    add_new(commands)
    args = parser.parse_args(arguments)
    if args.make is make_new:
        check_new(parser, args)
    return args


def main(arguments: list[str] | None = None) -> None:
    """Write the lists that the command line names."""
    args = parse_args(arguments)
    try:
        succeeded = args.make(args)
    except (OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    if not succeeded:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
