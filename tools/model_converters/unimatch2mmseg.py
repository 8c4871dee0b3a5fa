"""Convert a CNN checkpoint of the official UniMatch code (v1) for this project's configs.

The tool converts DeepLabv3+ models of UniMatch, FixMatch and the supervised baseline (best.pth, latest.pth,
or a bare state dict) for an EncoderDecoder, which every semi-supervised segmentor loads as its student. It
also converts the ImageNet weights from which they start (resnet50.pth, resnet101.pth, xception.pth) for
backbone.init_cfg. No code in the file is executed.

    python tools/model_converters/unimatch2mmseg.py best.pth checkpoints/unimatch_voc.pth
    python tools/model_converters/unimatch2mmseg.py resnet101.pth pretrained/resnet101_mmseg.pth
"""

import argparse

from allspark_mmseg.converters.files import as_checkpoint, progress, run_converter
from allspark_mmseg.converters.unimatch import (
    UniMatchBackbone,
    UniMatchNetwork,
    convert_unimatch,
    convert_unimatch_imagenet,
    is_backbone,
)
from allspark_mmseg.utils import join_first


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert a state dict.

    Args:
        state (dict[str, Tensor]): The state dict that was read.
        others (dict): The other entries of the checkpoint.
        arguments (Namespace): Options of the command line.

    Returns:
        tuple[dict, str]: The checkpoint to write, and a description of the source.
    """
    if is_backbone(state):
        converted, dropped = convert_unimatch_imagenet(state)
        names = join_first(dropped, separator=', ')
        unused = f'; not converted, {len(dropped)} key(s): {names}' if dropped else ''
        description = f'ImageNet weights, {UniMatchBackbone.from_state_dict(state).name}{unused}'
        return as_checkpoint(converted), description
    numbers = progress(others, 'epoch', 'previous_best')
    return as_checkpoint(convert_unimatch(state)), f'{UniMatchNetwork.from_state_dict(state)}{numbers}'


def main() -> None:
    """Run the command line."""
    run_converter(argparse.ArgumentParser(description='Convert a CNN of the official UniMatch.'), convert)


if __name__ == '__main__':
    main()
