"""Write a trained network as ONNX or TorchScript, compare the file with PyTorch, and count operations.

The file takes RGB images (N, 3, H, W) of float32 values in 0..255. It contains the normalization. It returns
logits (N, K, H, W) at the size of the images, and class numbers (N, H, W).
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS

from .. import __version__
from ..datasets.file_checks import evenly_spaced
from ..deployment import (
    OPSET,
    PRECISIONS,
    TOLERANCE,
    DeployedSegmentor,
    compare,
    describe_complexity,
    export_model,
)
from ..losses.cross_entropy import use_weighted_loss
from ..output import complete_file, progress
from ..prediction import find_images
from ..trained_model import choose_network, find_checkpoint, load_model, work_dir_of
from .errors import refuses_mistakes

DEFAULT_SIZE = (512, 512)
SUFFIXES = {'onnx': '.onnx', 'torchscript': '.pt'}


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(description='Write a trained network as ONNX or TorchScript')
    parser.add_argument('source', help='checkpoint (.pth), work dir of a run, or config (.py)')
    parser.add_argument('--checkpoint', help='checkpoint for a config; default: the best one of its work dir')
    parser.add_argument('--out', help='the file; default: beside the checkpoint, with .onnx or .pt')
    parser.add_argument(
        '--format', choices=list(SUFFIXES), help='default: that of the suffix of --out, or onnx'
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='a typical size in pixels, or the size for networks that need a fixed one; default: the crop',
    )
    network = parser.add_mutually_exclusive_group()
    for name in ('student', 'teacher'):
        network.add_argument(
            f'--{name}', dest='network', action='store_const', const=name, help=f'write the {name}'
        )
    parser.add_argument('--precision', choices=PRECISIONS, default='fp32', help='of weights and activations')
    parser.add_argument('--check', metavar='FOLDER', help='compare the file with PyTorch on these images')
    parser.add_argument('--images', type=int, default=8, help='number of images of --check; default 8')
    parser.add_argument(
        '--complexity',
        action='store_true',
        help='print parameters and operations, and write no file; a config needs no checkpoint',
    )
    args = parser.parse_args(arguments)
    for name, numbers in (('--size', args.size or [1]), ('--images', [args.images])):
        if min(numbers) < 1:
            parser.error(f'{name} is {numbers}, expected numbers of at least 1')
    return args


@refuses_mistakes('export', ImportError, KeyError, RuntimeError)
def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        int: 0; 1 if the check fails; 2 after a mistake of the user.
    """
    args = parse_args(arguments)
    return 0 if run(args) else 1


def run(args: argparse.Namespace) -> bool:
    """Load the model, and write, check or count.

    Args:
        args (argparse.Namespace): The command line.

    Returns:
        bool: False if the check failed.
    """
    if args.complexity and args.source.endswith('.py') and not args.checkpoint:
        model = build_model(args.source)  # the weights have no effect
        network = DeployedSegmentor(choose_network(model, args.network))
        print(describe_complexity(network, tuple(args.size) if args.size else crop_size(model)))
        return True
    target = choose_file(args)
    images = sample_images(Path(args.check), args.images) if args.check else []
    model = load_model(args.source, args.checkpoint, device='cpu')
    size = tuple(args.size) if args.size else crop_size(model)
    network = DeployedSegmentor(choose_network(model, args.network), preprocessor=model.data_preprocessor)
    if args.complexity:
        print(describe_complexity(network, size))
        return True
    deployed = network
    if args.precision != 'fp32':
        deployed = DeployedSegmentor(network.network, args.precision, model.data_preprocessor)
    tolerance = TOLERANCE[args.precision]
    print(f'Writing {target} ...', file=sys.stderr)
    with complete_file(target) as temporary:
        file = export_model(deployed, temporary, size, metadata(model, args), tolerance)
    print(f'{target} ({target.stat().st_size / 1e6:.1f} MB, {describe_format(target)})')
    print(file.describe())
    if not images:
        return True
    comparison = compare(network, target, progress(images, 'comparing'), None if file.dynamic else size)
    print(comparison.describe(tolerance))
    return comparison.difference <= tolerance


def sample_images(source: Path, count: int) -> list[Path]:
    """Return images of a folder that are evenly spaced in the sorted list.

    Args:
        source (Path): The folder, or one image.
        count (int): Largest number of images.

    Returns:
        list[Path]: The images.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: There is no image.
    """
    found = find_images(source, source)
    folder = source if source.is_dir() else source.parent
    return [folder / found[index] for index in evenly_spaced(len(found), count)]


def build_model(path: str) -> BaseSegmentor:
    """Build the model of a config with random weights.

    Args:
        path (str): The config.

    Returns:
        BaseSegmentor: The model on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
    """
    config = Config.fromfile(path)
    use_weighted_loss(config.model)
    init_default_scope(config.get('default_scope', 'mmseg'))
    return revert_sync_batchnorm(MODELS.build(config.model))


def choose_file(args: argparse.Namespace) -> Path:
    """Return the path of the file to write.

    Args:
        args (argparse.Namespace): The command line.

    Returns:
        Path: ``--out``, or the name of the checkpoint with another suffix.

    Raises:
        ValueError: ``--out`` and ``--format`` differ, or the file would replace the checkpoint.
    """
    if args.out is None:
        suffix = SUFFIXES[args.format or 'onnx']
        source = Path(args.checkpoint or args.source)
        if source.suffix == '.py':
            source = work_dir_of(source, Config.fromfile(source))
        checkpoint = find_checkpoint(source) if source.is_dir() else source
        if checkpoint.suffix == suffix:
            raise ValueError(
                f'{checkpoint} is the checkpoint, and the file would replace it; name it with --out.'
            )
        return checkpoint.with_suffix(suffix)
    path = Path(args.out)
    expected = [SUFFIXES[args.format]] if args.format else list(SUFFIXES.values())
    if path.suffix not in expected:
        raise ValueError(
            f'--out {path} has the suffix {path.suffix!r}, expected {" or ".join(expected)}; change it or '
            '--format.'
        )
    return path


def crop_size(model: BaseSegmentor) -> tuple[int, int]:
    """Return the size of training crops (height, width) in pixels, or 512 x 512 if it is unknown."""
    size = getattr(model.data_preprocessor, 'size', None)
    return (int(size[0]), int(size[1])) if size else DEFAULT_SIZE


def metadata(model: BaseSegmentor, args: argparse.Namespace) -> dict[str, str]:
    """Return the entries that the file contains about itself.

    Args:
        model (BaseSegmentor): The model, as ``load_model`` returns it.
        args (argparse.Namespace): The command line.

    Returns:
        dict[str, str]: Classes and palette are JSON lists.
    """
    known = model.dataset_meta or {}
    return {
        'classes': json.dumps(list(known.get('classes') or ())),
        'palette': json.dumps([list(map(int, color)) for color in known.get('palette') or ()]),
        'input': 'image: (batch, channels, height, width) float32, RGB, values 0..255, not normalized',
        'output': 'logits: (batch, classes, height, width) float32; labels: (batch, height, width) uint8',
        'network': args.network or getattr(model, 'predictor_name', 'segmentor'),
        'precision': args.precision,
        'source': Path(args.source).name,
        'software': f'allspark_mmseg {__version__}, PyTorch {torch.__version__}',
    }


def describe_format(path: Path) -> str:
    """Return the format of a file that :func:`run` wrote."""
    return f'ONNX opset {OPSET}' if path.suffix == '.onnx' else 'TorchScript'
