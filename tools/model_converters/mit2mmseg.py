"""Convert NVlabs' ImageNet weights of a Mix Vision Transformer (mit_b0.pth to mit_b5.pth).

Use the result in ``backbone.init_cfg=dict(type='Pretrained', checkpoint=...)``. With ``--prefix backbone.``,
use it in ``load_from``, which then fills only the backbone. No code in the file is executed.

    python tools/model_converters/mit2mmseg.py mit_b5.pth checkpoints/mit_b5.pth
"""

import argparse

from allspark_mmseg.converters.files import as_checkpoint, run_converter
from allspark_mmseg.converters.mit import MiT, convert_imagenet


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert a state dict.

    Args:
        state (dict[str, Tensor]): The state dict that was read.
        others (dict): The other entries of the checkpoint.
        arguments (Namespace): Options of the command line.

    Returns:
        tuple[dict, str]: The checkpoint to write, and a description of the source.
    """
    converted, dropped = convert_imagenet(state)
    unused = f'; not converted, the classifier: {", ".join(dropped)}' if dropped else ''
    checkpoint = as_checkpoint({arguments.prefix + key: value for key, value in converted.items()})
    return checkpoint, f'{MiT.from_state_dict(state)}{unused}'


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description='Convert ImageNet weights of a Mix Vision Transformer.')
    parser.add_argument('--prefix', default='', help='prefix of the written keys (default: none)')
    run_converter(parser, convert, 'backbone.')


if __name__ == '__main__':
    main()
