"""Convert a checkpoint of the official UniMatch V2 code, or DINOv2's weights, for this project's configs.

Takes what UniMatch V2, its FixMatch or its supervised baseline wrote (best.pth, latest.pth, or a bare state
dict), and writes the student, or with --ema its EMA teacher, of which the published numbers are. The result
has the keys of an EncoderDecoder, which every semi-supervised segmentor loads as its student.

Takes DINOv2's own weights too (dinov2_vits14_pretrain.pth or a larger one), checks them, and writes them for
backbone.init_cfg=dict(type='Pretrained', checkpoint=...). Nothing that the file contains is executed.

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
    """Convert, and describe what was found."""
    if arguments.ema:
        state = teacher(others)
    elif not any(key.startswith(PARTS) for key in state):
        return as_checkpoint(convert_dinov2(state)), str(DINOv2Sizes.from_state_dict(state))
    converted, dropped = convert_unimatch_v2(state)
    told = progress(others, *PROGRESS)
    told = (
        f'{"EMA teacher" if arguments.ema else "student"} of {UniMatchV2Network.from_state_dict(state)}{told}'
    )
    return as_checkpoint(converted), f'{told}; not converted, as it is never used: {", ".join(dropped)}'


def teacher(others: dict) -> dict[str, Tensor]:
    """The EMA teacher's state dict among the other entries of a checkpoint.

    Raises:
        ValueError: there is none.
    """
    found = others.get(EMA)
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(
            f'--ema asks for the EMA teacher, but the file holds no state dict under {EMA!r}; it has '
            f'{", ".join(["weights", *map(str, others)])}. Leave --ema away.'
        )
    return {key.removeprefix('module.'): value.detach() for key, value in found.items()}


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description='Convert an official UniMatch V2 checkpoint.')
    parser.add_argument('--ema', action='store_true', help='write the EMA teacher, not the student')
    run_converter(parser, convert)


if __name__ == '__main__':
    main()
