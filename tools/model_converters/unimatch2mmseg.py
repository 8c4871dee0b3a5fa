"""Convert a CNN checkpoint of the official UniMatch code (v1) for this project's configs.

Takes DeepLabv3+ models of UniMatch, FixMatch and the supervised baseline (best.pth, latest.pth, or a bare
state dict), for an EncoderDecoder, which every semi-supervised segmentor loads as its student. Takes also
the ImageNet weights with which they start (resnet50.pth, resnet101.pth, xception.pth), for
backbone.init_cfg. Nothing that the file contains is executed.

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

EXAMPLES = 5


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert, and describe what was found."""
    if is_backbone(state):
        converted, dropped = convert_unimatch_imagenet(state)
        names = ', '.join(dropped[:EXAMPLES]) + ', ...' * (len(dropped) > EXAMPLES)
        told = f'; not converted, {len(dropped)} key(s): {names}' if dropped else ''
        return as_checkpoint(
            converted
        ), f'ImageNet weights, {UniMatchBackbone.from_state_dict(state).name}{told}'
    told = progress(others, 'epoch', 'previous_best')
    return as_checkpoint(convert_unimatch(state)), f'{UniMatchNetwork.from_state_dict(state)}{told}'


def main() -> None:
    """Read the command line and convert."""
    run_converter(argparse.ArgumentParser(description='Convert a CNN of the official UniMatch.'), convert)


if __name__ == '__main__':
    main()
