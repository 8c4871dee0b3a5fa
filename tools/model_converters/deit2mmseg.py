"""Convert ImageNet weights of a plain ViT or DeiT for MMSegmentation's VisionTransformer.

The tool converts OpenMMLab's classifiers (S4Former uses deit-base_pt-16xb64_in1k_20220216-db63c16c.pth) and
the official ones (deit_base_patch16_224-b5f2ef4d.pth). Use the result in
``backbone.init_cfg=dict(type='Pretrained', checkpoint=...)``. All keys are checked. No code in the file is
executed.

    python tools/model_converters/deit2mmseg.py deit-base_pt-16xb64_in1k_*.pth pretrained/deit_base_mmseg.pth
"""

import argparse

from allspark_mmseg.converters.deit import ViTSizes, convert_deit
from allspark_mmseg.converters.files import as_checkpoint, run_converter


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert a state dict.

    Args:
        state (dict[str, Tensor]): The state dict that was read.
        others (dict): The other entries of the checkpoint.
        arguments (Namespace): Options of the command line.

    Returns:
        tuple[dict, str]: The checkpoint to write, and a description of the source.
    """
    converted, dropped = convert_deit(state)
    unused = f'; not converted, not used for segmentation: {", ".join(dropped)}' if dropped else ''
    return as_checkpoint(converted), f'{ViTSizes.from_state_dict(converted)}{unused}'


def main() -> None:
    """Run the command line."""
    run_converter(argparse.ArgumentParser(description='Convert ImageNet weights of a ViT or DeiT.'), convert)


if __name__ == '__main__':
    main()
