"""Convert a checkpoint of this project for the official AllSpark code, to evaluate it there.

Takes what training here writes, with a MiT and the all-MLP head, alone or behind the AllSpark bottleneck.
Weights and memory are written under ``model`` as the official code saves them; the optimizer's state is not.
Nothing that the file contains is executed.

    python tools/model_converters/mmseg2allspark.py work_dirs/allspark/voc_92/epoch_80.pth allspark_voc.pth
"""

import argparse

from allspark_mmseg.converters.allspark import AllSparkNetwork, mmseg_to_allspark
from allspark_mmseg.converters.files import run_converter


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Convert, and describe what was found."""
    official = mmseg_to_allspark(state)
    checkpoint = {'model': {f'module.{key}': value for key, value in official.items()}}
    return checkpoint, str(AllSparkNetwork.from_state_dict(official))


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description='Convert a checkpoint for the official AllSpark code.')
    run_converter(parser, convert)


if __name__ == '__main__':
    main()
