"""Convert a checkpoint of the official AllSpark code for this project's configs.

Takes AllSpark models and their supervised and self-training baselines (best.pth, latest.pth, or a bare state
dict). An AllSpark model gets the keys of the AllSpark segmentor, a baseline those of an EncoderDecoder, which
every semi-supervised segmentor loads as its student. Nothing that the file contains is executed.

    python tools/model_converters/allspark2mmseg.py best.pth checkpoints/allspark_voc.pth
    python tools/test.py configs/allspark/voc_1over16.py checkpoints/allspark_voc.pth
"""

import argparse

from allspark_mmseg.converters.allspark import AllSparkNetwork, convert_official
from allspark_mmseg.converters.files import as_checkpoint, progress, run_converter


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert, and describe what was found."""
    told = progress(others, 'epoch', 'best_epoch', 'previous_best')
    checkpoint = as_checkpoint(convert_official(state, plain=arguments.plain))
    return checkpoint, f'{AllSparkNetwork.from_state_dict(state)}{told}'


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description='Convert an official AllSpark checkpoint.')
    parser.add_argument(
        '--plain',
        action='store_true',
        help='write an AllSpark model for a plain EncoderDecoder with an AllSparkHead',
    )
    run_converter(parser, convert)


if __name__ == '__main__':
    main()
