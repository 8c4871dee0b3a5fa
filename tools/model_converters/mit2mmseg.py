"""Convert NVlabs' ImageNet weights of a Mix Vision Transformer (mit_b0.pth to mit_b5.pth).

The result is for ``backbone.init_cfg=dict(type='Pretrained', checkpoint=...)``; with ``--prefix backbone.``
for ``load_from``, which then fills the backbone alone. Nothing that the file contains is executed.

    python tools/model_converters/mit2mmseg.py mit_b5.pth checkpoints/mit_b5.pth
"""

import argparse

from allspark_mmseg.converters.files import as_checkpoint, run_converter
from allspark_mmseg.converters.mit import MiT, convert_imagenet


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert, and describe what was found."""
    converted, dropped = convert_imagenet(state)
    told = f'; not converted, the classifier: {", ".join(dropped)}' if dropped else ''
    checkpoint = as_checkpoint({arguments.prefix + key: value for key, value in converted.items()})
    return checkpoint, f'{MiT.from_state_dict(state)}{told}'


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description='Convert ImageNet weights of a Mix Vision Transformer.')
    parser.add_argument('--prefix', default='', help='what the keys written begin with (default: nothing)')
    run_converter(parser, convert, 'backbone.')


if __name__ == '__main__':
    main()
