"""Rank the unlabeled images by what a label would teach, and write masks to start from.

    python -m allspark_mmseg suggest WORK_DIR --num 10

The folder OUT gets suggest.txt (the chosen images, a list for a config), scores.tsv (all images with their
scores), suggest.png (a contact sheet), and the model's masks of the chosen images as a start for annotation:
masks/ (PNG class numbers), labelme/ (JSON and copies of the images) and coco.json. Scores are kept, so the
same command goes on where it was interrupted.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from mmengine.config import Config

from ..datasets.image_headers import any_size
from ..prediction import ImageLoader
from ..suggestion.files import write_drafts, write_lists, write_sheet
from ..suggestion.networks import describe, find_networks
from ..suggestion.ranking import POOL_FACTOR, STRATEGIES, Scored, Suggestion, explain, rank, score_images
from ..suggestion.selection import MAX_CANDIDATES
from ..suggestion.streams import Images, find_training_config, images_of_run, images_of_source
from ..trained_model import load_model, read_classes
from ..utils import join_first
from .errors import refuses_mistakes


def positive(text: str) -> int:
    """Parse an integer of at least 1.

    Args:
        text (str): The argument.

    Returns:
        int: The number.

    Raises:
        ArgumentTypeError: ``text`` is not such a number.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} found, expected an integer of at least 1')
    return int(text)


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
    add = parser.add_argument
    add('source', help='work dir of a run, checkpoint (.pth), or config (.py)')
    add('--num', type=positive, default=10, help='images to choose (default: %(default)s)')
    add('--out', type=Path, help='folder of the results (default: suggest/ beside the checkpoint)')
    add('--images', help='folder or list of images to rank (default: the unlabeled images of the run)')
    add(
        '--strategy',
        choices=STRATEGIES,
        default='combined',
        help='combined: uncertainty and disagreement; coverage: features alone (default: %(default)s)',
    )
    add(
        '--pool',
        type=positive,
        help=f'candidates of the diverse selection: the images with the highest scores, at most '
        f'{MAX_CANDIDATES} (default: {POOL_FACTOR} x --num)',
    )
    add('--seed', type=int, default=0, help='seed of the strategies coverage and random')
    add('--checkpoint', type=Path, help='checkpoint of a config (default: the one in its work dir)')
    add('--device', help='where to run the model (default: CUDA if there is one)')
    return parser.parse_args(arguments)


@refuses_mistakes('suggest', KeyError)
@any_size()
def main(arguments: list[str] | None = None) -> int:
    """Rank images and write the results.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        int: The exit code; 2 after an error in the input.
    """
    run(parse_args(arguments))
    return 0


def run(args: argparse.Namespace) -> None:
    """Rank images and write the results.

    Args:
        args (argparse.Namespace): The command line.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: There are no images to rank, or the model cannot be loaded.
    """
    model = load_model(args.source, args.checkpoint, args.device)
    checkpoint = Path(model.cfg.load_from)
    images = _find_images(args, find_training_config(model.cfg, checkpoint.parent))
    networks = find_networks(model, checkpoint)
    print(describe(networks))
    print(f'{len(images.unlabeled)} images to rank, {len(images.labeled)} labeled images.')
    out = args.out or checkpoint.parent / 'suggest'
    loader = ImageLoader(model.cfg)
    scored = score_images(networks, loader, images.unlabeled, images.labeled, out / '.scores')
    chosen = rank(scored, args.num, args.strategy, args.pool, args.seed)
    classes, colors = read_classes(model)
    palette = np.array(colors, np.uint8)
    reasons = [explain(each, classes, args.strategy) for each in chosen]
    write_lists(out, images, scored, chosen, reasons, args.strategy)
    rows, kept = write_drafts(out, images, chosen, reasons, loader, networks[0], classes, palette)
    note = (
        f'{len(chosen)} of {len(scored.images)} images, strategy {args.strategy}. {describe(networks)} '
        'Scores are ranks among all images, 1 is the highest.'
    )
    write_sheet(out, rows, classes, palette, note)
    print(_summary(out, images, scored, chosen, reasons))
    if kept:
        print(f'{kept} files of masks exist and were not changed, because they may have been corrected.')


def _find_images(args: argparse.Namespace, cfg: Config | None) -> Images:
    """Return the images to rank and the labeled images."""
    try:
        images = images_of_run(cfg)
    except (OSError, ValueError):
        if not args.images:
            raise
        print('The labeled images of the run are not there, so they cannot be compared.', file=sys.stderr)
        images = Images([])
    if args.images:
        return images_of_source(args.images, images)
    if not images.unlabeled:
        found = 'no config with train_dataloader' if cfg is None else 'no unlabeled stream'
        raise ValueError(
            f'{args.source}: the run has {found}, so the images to rank are unknown; name a folder with '
            '--images'
        )
    return images


def _summary(out: Path, images: Images, scored: Scored, chosen: list[Suggestion], reasons: list[str]) -> str:
    """Return what was done, for the terminal."""
    lines = []
    if scored.reused:
        lines.append(f'{scored.reused} scores are from an earlier run.')
    if scored.failed:
        lines.append(f'{len(scored.failed)} images were skipped: {join_first(scored.failed)}')
    for place, (each, reason) in enumerate(zip(chosen, reasons, strict=True), start=1):
        lines.append(f'{place:3}. {images.name(each.image)}  {each.score:.3f}  {reason}')
    return '\n'.join(
        [
            *lines,
            '',
            f'sheet:   {out / "suggest.png"}',
            f'list:    {out / "suggest.txt"} (all scores: scores.tsv)',
            f'masks:   {out / "labelme"} (labelme), {out / "coco.json"} (CVAT), {out / "masks"} (PNG)',
            'Correct the masks, then: python -m allspark_mmseg new DATA --add FOLDER, with the folder of the '
            'corrected files.',
        ]
    )
