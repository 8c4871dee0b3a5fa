"""Predict a folder of images: masks with class numbers, overlays and confidence.

The first argument is a work dir, a checkpoint (its config is in it), or a config. The images are loaded as
the test data of the config. The same command continues after an interruption: images that are done are
skipped. Images with more than 4 megapixels are predicted in windows that overlap.
"""

import argparse
import os
import sys
from pathlib import Path, PurePosixPath

import numpy as np
from mmengine.device import get_device

from ..datasets.image_headers import any_size
from ..prediction import ImageLoader, OutputFolder, Predictor, find_images, output_names
from ..prediction.folder import FolderPrediction
from ..prediction.output import PARTS
from ..trained_model import choose_network, load_model, read_classes
from .errors import refuses_mistakes


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', help='work dir, checkpoint (.pth) or config (.py)')
    parser.add_argument('images', help='folder of images, with its sub-folders, or one image')
    parser.add_argument('--out', required=True, help='folder of the results')
    parser.add_argument('--checkpoint', help='checkpoint of a config; default: that of its work dir')
    for part in PARTS:
        parser.add_argument(f'--no-{part}', action='store_true', help=f'write no {part}')
    parser.add_argument('--tta', action='store_true', help='mean over three sizes, each also mirrored')
    network = parser.add_mutually_exclusive_group()
    for name in ('student', 'teacher'):
        network.add_argument(
            f'--{name}', dest='network', action='store_const', const=name, help=f'the {name} predicts'
        )
    parser.add_argument(
        '--window',
        type=int,
        help='side of the windows in pixels, for all images that are larger; 0: no windows; '
        'default: about 1024, for images of more than 4 megapixels',
    )
    parser.add_argument('--stride', type=int, help='distance of two windows; default: 3/4 of the window')
    parser.add_argument(
        '--batch-size', type=int, help='images of one size at once; default: 1 on a CPU, otherwise 8'
    )
    parser.add_argument('--workers', type=int, default=2, help='threads that load images; default: 2')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ...; default: cuda if there is one')
    parser.add_argument('--again', action='store_true', help='also predict images that are done')
    return parser.parse_args(arguments)


def prepare(args: argparse.Namespace, names: dict[PurePosixPath, str]) -> tuple[FolderPrediction, list[str]]:
    """Load the model and connect the parts of the prediction.

    Args:
        args (argparse.Namespace): The command line.
        names (dict): Image -> name of its results.

    Returns:
        tuple[FolderPrediction, list[str]]: The prediction, and the names of the classes.

    Raises:
        ValueError: Options, model and the folder of the results do not fit together.
        FileNotFoundError: The model does not exist.
    """
    parts = [part for part in PARTS if not getattr(args, f'no_{part}')]
    if not parts:
        raise ValueError('--no-masks, --no-overlays and --no-confidence leave nothing to write; omit one.')
    model = load_model(args.model, args.checkpoint, args.device)
    choose_network(model, args.network)
    classes, palette = read_classes(model)
    loader = ImageLoader(model.cfg, args.tta)
    on_cpu = str(args.device or get_device()).startswith('cpu')
    predictor = Predictor(model, args.window, args.stride, args.batch_size or (1 if on_cpu else 8))
    output = OutputFolder(args.out, parts, palette, loader.first_class)
    root = Path(args.images) if Path(args.images).is_dir() else Path(args.images).parent
    settings = dict(
        images=str(root.resolve()),
        checkpoint=str(Path(model.cfg.load_from).resolve()),
        saved=int(os.path.getmtime(model.cfg.load_from)),
        network=args.network or getattr(model, 'predict_on', None),
        tta=args.tta,
        window=args.window,
        stride=args.stride,
        classes=dict(zip(range(output.first_class, 1000), classes, strict=False)),
    )
    output.check_settings(settings, args.again)
    return FolderPrediction(root, names, loader, predictor, output, len(classes), args.workers), classes


def report(task: FolderPrediction, classes: list[str], skipped: int) -> None:
    """Print the summary, and the images that failed on the standard error stream.

    Args:
        task (FolderPrediction): The prediction, after it has run.
        classes (list[str]): Names of the classes.
        skipped (int): Images that were done before.
    """
    sentences = []
    if task.count:
        share = 100 * task.pixels / task.pixels.sum()
        ranked = [f'{classes[index]} {share[index]:.1f} %' for index in np.argsort(-share) if share[index]]
        rate = task.count / task.seconds
        speed = f'{task.seconds:.1f} s ({rate:.{1 if rate >= 1 else 3}f} images/s)'
        number = f'{task.count} image{"s" if task.count > 1 else ""}'
        sentences.append(f'Predicted {number} in {speed}: {", ".join(ranked)}.')
    if skipped:
        sentences.append(f'{skipped} images were done before; --again predicts them again.')
    folders = ', '.join(str(task.output.folder / part) for part in task.output.parts)
    print(*sentences, f'The results are in {folders}.')
    for image, reason in task.failed.items():
        print(f'{task.root / image} has no result: {reason}', file=sys.stderr)
    if task.failed:
        print(f'{len(task.failed)} images failed. Replace them and run the command again.', file=sys.stderr)


@refuses_mistakes('predict')
@any_size()
def main(arguments: list[str] | None = None) -> int:
    """Predict the images.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        int: 0; 1 if an image failed; 2 if nothing could be predicted.
    """
    args = parse_args(arguments)
    images = find_images(args.images, args.out)
    names = output_names(images)
    task, classes = prepare(args, names)
    todo = [
        image for image in images if args.again or not task.output.is_done(names[image], task.root / image)
    ]
    if todo:
        task.run(todo)
    report(task, classes, len(images) - len(todo))
    return 1 if task.failed else 0
