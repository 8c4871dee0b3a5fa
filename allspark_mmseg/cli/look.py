"""Draw what the network will see: each stream and view after its transforms, and their numbers.

The sheet (look.png, and look.html for a browser) shows random images with their masks, what the transforms
drew, and the numbers of the batches: the range after the normalization, the share of ignored pixels and the
share of each class.
"""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from ..engine import default_work_dir
from ..output import complete_file, progress
from ..prediction.pipelines import class_colors, find_test_data
from ..preview import build_preprocessor, draw_sheet, find_streams, make_section, measure, render_page
from ..preview.draws import Draw, Stream
from ..preview.numbers import ViewNumbers
from ..preview.sections import Section
from ..suggestion.streams import find_training_config
from .errors import refuses_mistakes

DRAWS = 50  # draws of each stream for the numbers
# what methods do to the views after the pipeline; the sheet cannot show it
_MIXING = {
    'FixMatch': 'pastes boxes of other images (CutMix) into the strong view',
    'UniMatch': 'pastes boxes of other images (CutMix) into the strong views',
    'UniMatchV2': 'pastes boxes of other images (CutMix) into the strong views',
    'S4Former': 'pastes boxes of other images (CutMix) into the strong view and shuffles its patches',
    'CSSBaseline': 'rescales, mixes and flips the strong view',
    'CSSMix': 'rescales, mixes and flips the strong view',
    'CSSCross': 'rescales, mixes and flips the strong view',
}


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='path of the config, or work dir of a run')
    parser.add_argument('--out', help='folder of look.png and look.html; default: the work dir of the config')
    parser.add_argument('--num', type=int, default=4, help='images of each stream; default: 4')
    parser.add_argument('--seed', type=int, default=0, help='seed of the images and of their transforms')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value, nested keys as a.b.c=value',
    )
    return parser.parse_args(arguments)


def read_classes(cfg: Config, stream: Stream) -> tuple[list[str], list]:
    """Return names and RGB colors of the classes of a stream.

    Args:
        cfg (Config): The config.
        stream (Stream): The stream.

    Returns:
        tuple[list[str], list]: K names, and K colors. Colors that are missing are drawn at random.

    Raises:
        ValueError: There are no names.
    """
    meta = stream.dataset.metainfo
    meta = meta if meta.get('classes') else find_test_data(cfg).get('metainfo') or {}
    if not meta.get('classes'):
        raise ValueError(
            "the data set has no class names; expected metainfo=dict(classes=('background', ...), "
            'palette=[[0, 0, 0], ...]) in the config.'
        )
    classes = list(meta['classes'])
    return classes, class_colors(meta.get('palette'), len(classes))


def make_sections(cfg: Config, num: int, seed: int) -> tuple[list[Section], list[str], list[tuple[int, ...]]]:
    """Draw all streams of a config.

    Args:
        cfg (Config): The config.
        num (int): Images to show of each stream.
        seed (int): Seed of the draws.

    Returns:
        tuple: The sections, and names and RGB colors of the classes.

    Raises:
        ValueError: Data and config do not fit together.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    preprocessor = build_preprocessor(cfg)
    streams = find_streams(cfg)
    classes, palette = read_classes(cfg, streams[0])
    sections = []
    for stream in streams:
        numbers: dict[str, ViewNumbers] = {}
        shown: list[Draw] = []
        images = len(stream.indices)
        # an image is drawn again only in training, where each draw differs
        total = max(num, min(DRAWS, images)) if stream.training else min(max(num, DRAWS), images)
        for draw in progress(stream.draw(total, seed), f'drawing {stream.name}', total=total):
            measure(numbers, draw, stream.training, preprocessor, len(classes))
            shown += [draw] if len(shown) < num else []
        sections.append(make_section(stream, shown, list(numbers.values()), classes, palette))
    return sections, classes, palette


def notes_of(cfg: Config, seed: int) -> list[str]:
    """Return the sentences below the title of the sheet."""
    notes = [
        f'Seed {seed}. The frame in an image as loaded is the crop. Hatched pixels are ignored: they have '
        f'the label 255, or they are padding. Numbers are those of up to {DRAWS} draws, after the '
        'normalization; shares of classes are those of the pixels that are not ignored.'
    ]
    method = str(cfg.model.type).rpartition('.')[2]
    if method in _MIXING:
        notes.append(f'Not shown: in the training step, {method} {_MIXING[method]}.')
    return notes


def _read_config(source: Path) -> Config:
    if not source.is_dir():
        return Config.fromfile(source)
    cfg = find_training_config(Config(), source)
    if cfg is None:
        raise ValueError(
            f'{source} has no config with train_dataloader; expected a config or the work dir of a run'
        )
    return cfg


@refuses_mistakes('look')
def main(arguments: list[str] | None = None) -> int:
    """Write the sheet.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        int: 0; 2 if the config or its data are wrong.
    """
    args = parse_args(arguments)
    if args.num < 1:
        raise ValueError(f'--num is {args.num}; expected at least 1.')
    cfg = _read_config(Path(args.config))
    cfg.merge_from_dict(args.cfg_options or {})
    sections, classes, palette = make_sections(cfg, args.num, args.seed)
    folder = args.config if Path(args.config).is_dir() else None
    out = Path(args.out or folder or cfg.get('work_dir') or default_work_dir(args.config))
    content = (args.config, notes_of(cfg, args.seed), sections, classes, palette)
    with complete_file(out / 'look.png') as path:
        draw_sheet(*content).save(path)
    with complete_file(out / 'look.html') as path:
        path.write_text(render_page(*content), encoding='utf-8')
    print(f'Wrote {out / "look.png"} and {out / "look.html"}.')
    return 0
