"""Convert a checkpoint of this project for the official AllSpark code, to evaluate it there.

The tool converts checkpoints of this project with a MiT and the all-MLP head, with or without the AllSpark
bottleneck. Weights and memory are written under ``model``, as the official code saves them. The state of the
optimizer is not written. No code in the file is executed.

    python tools/model_converters/mmseg2allspark.py work_dirs/allspark/voc_92/epoch_80.pth allspark_voc.pth
"""

import argparse

from allspark_mmseg.converters.allspark import AllSparkNetwork, mmseg_to_allspark
from allspark_mmseg.converters.files import run_converter


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert a state dict.

    Args:
        state (dict[str, Tensor]): The state dict that was read.
        others (dict): The other entries of the checkpoint.
        arguments (Namespace): Options of the command line.

    Returns:
        tuple[dict, str]: The checkpoint to write, and a description of the source.
    """
    official = mmseg_to_allspark(state)
    checkpoint = {'model': {f'module.{key}': value for key, value in official.items()}}
    return checkpoint, str(AllSparkNetwork.from_state_dict(official))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description='Convert a checkpoint for the official AllSpark code.')
    run_converter(parser, convert)


if __name__ == '__main__':
    main()
