"""Convert a checkpoint of the official UniMatch V2 code, or DINOv2's weights, for this project's configs.

The tool converts checkpoints of UniMatch V2, its FixMatch and its supervised baseline (best.pth, latest.pth,
or a bare state dict). It writes the student, or with --ema the EMA teacher. The published results are from
the teacher. The converted file has the keys of an EncoderDecoder. Every semi-supervised segmentor can load
it as its student.

It also checks DINOv2's own weights (dinov2_vits14_pretrain.pth or a larger model) and writes them for
backbone.init_cfg=dict(type='Pretrained', checkpoint=...). No code in the file is executed.

    python tools/model_converters/unimatch_v2_to_mmseg.py --ema best.pth checkpoints/unimatch_v2_voc.pth
    python tools/model_converters/unimatch_v2_to_mmseg.py dinov2_vits14_pretrain.pth checkpoints/dinov2_s.pth
"""

import argparse
from collections.abc import Mapping

from torch import Tensor

from allspark_mmseg.converters.files import as_checkpoint, progress, run_converter
from allspark_mmseg.converters.unimatch_v2 import (
    DINOv2Sizes,
    UniMatchV2Network,
    convert_dinov2,
    convert_unimatch_v2,
)

PARTS = ('backbone.', 'head.')
PROGRESS = ('epoch', 'best_epoch', 'previous_best', 'best_epoch_ema', 'previous_best_ema')
EMA = 'model_ema'


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert a state dict.

    Args:
        state (dict[str, Tensor]): The state dict that was read.
        others (dict): The other entries of the checkpoint.
        arguments (Namespace): Options of the command line.

    Returns:
        tuple[dict, str]: The checkpoint to write, and a description of the source.
    """
    if arguments.ema:
        state = teacher(others)
    elif not any(key.startswith(PARTS) for key in state):
        return as_checkpoint(convert_dinov2(state)), str(DINOv2Sizes.from_state_dict(state))
    converted, dropped = convert_unimatch_v2(state)
    who = 'EMA teacher' if arguments.ema else 'student'
    network = f'{UniMatchV2Network.from_state_dict(state)}{progress(others, *PROGRESS)}'
    return as_checkpoint(converted), f'{who} of {network}; not converted, never used: {", ".join(dropped)}'


def teacher(others: dict) -> dict[str, Tensor]:
    """Return the EMA teacher's state dict.

    Args:
        others (dict): Entries of the checkpoint other than the student's weights.

    Raises:
        ValueError: The checkpoint has no EMA teacher.
    """
    state = others.get(EMA)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f'--ema: expected the state dict of the EMA teacher under {EMA!r}, found only '
            f'{", ".join(["weights", *map(str, others)])}. Omit --ema.'
        )
    return {key.removeprefix('module.'): value.detach() for key, value in state.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description='Convert an official UniMatch V2 checkpoint.')
    parser.add_argument('--ema', action='store_true', help='write the EMA teacher instead of the student')
    run_converter(parser, convert)


if __name__ == '__main__':
    main()
