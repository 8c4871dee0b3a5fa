"""Convert a checkpoint of the official AllSpark code for this project's configs.

The tool converts AllSpark models and their supervised and self-training baselines (best.pth, latest.pth, or a
bare state dict). An AllSpark model gets the keys of the AllSpark segmentor. A baseline gets the keys of an
EncoderDecoder, which every semi-supervised segmentor loads as its student. No code in the file is executed.

    python tools/model_converters/allspark2mmseg.py best.pth checkpoints/allspark_voc.pth
    python tools/test.py configs/allspark/voc_1over16.py checkpoints/allspark_voc.pth
"""

import argparse

from allspark_mmseg.converters.allspark import AllSparkNetwork, convert_official
from allspark_mmseg.converters.files import as_checkpoint, progress, run_converter


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert a state dict.

    Args:
        state (dict[str, Tensor]): The state dict that was read.
        others (dict): The other entries of the checkpoint.
        arguments (Namespace): Options of the command line.

    Returns:
        tuple[dict, str]: The checkpoint to write, and a description of the source.
    """
    numbers = progress(others, 'epoch', 'best_epoch', 'previous_best')
    checkpoint = as_checkpoint(convert_official(state, plain=arguments.plain))
    return checkpoint, f'{AllSparkNetwork.from_state_dict(state)}{numbers}'


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description='Convert an official AllSpark checkpoint.')
    parser.add_argument(
        '--plain',
        action='store_true',
        help='write the keys of a plain EncoderDecoder with an AllSparkHead',
    )
    run_converter(parser, convert)


if __name__ == '__main__':
    main()
