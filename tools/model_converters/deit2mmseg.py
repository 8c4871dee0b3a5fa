"""Convert ImageNet weights of a plain ViT or DeiT for MMSegmentation's VisionTransformer.

Takes OpenMMLab's classifiers (S4Former's is deit-base_pt-16xb64_in1k_20220216-db63c16c.pth) and the official
ones (deit_base_patch16_224-b5f2ef4d.pth). The result is for ``backbone.init_cfg=dict(type='Pretrained',
checkpoint=...)``. Every key is accounted for; nothing that the file contains is executed.

    python tools/model_converters/deit2mmseg.py deit-base_pt-16xb64_in1k_*.pth pretrained/deit_base_mmseg.pth
"""

import argparse

from allspark_mmseg.converters.deit import ViTSizes, convert_deit
from allspark_mmseg.converters.files import as_checkpoint, run_converter


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert, and describe what was found."""
    converted, dropped = convert_deit(state)
    told = f'; not converted, as segmentation does not use it: {", ".join(dropped)}' if dropped else ''
    return as_checkpoint(converted), f'{ViTSizes.from_state_dict(converted)}{told}'


def main() -> None:
    """Read the command line and convert."""
    run_converter(argparse.ArgumentParser(description='Convert ImageNet weights of a ViT or DeiT.'), convert)


if __name__ == '__main__':
    main()
