"""Extract the student or the teacher from the checkpoint of a semi-supervised run, as a plain model.

Use the result with a config in which ``model`` is the ``model.segmentor`` of the run, or as ``load_from`` of
another run. It contains the weights and the class names, but not the optimizer and the log.

    python tools/model_converters/extract_segmentor.py iter_5000.pth voc_92.pth --teacher
"""

import argparse

from allspark_mmseg.converters.files import as_checkpoint, run_converter
from allspark_mmseg.converters.state_dicts import strip_prefix


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Extract one segmentor.

    Args:
        state (dict[str, Tensor]): The state dict that was read.
        others (dict): The other entries of the checkpoint.
        arguments (Namespace): Options of the command line.

    Returns:
        tuple[dict, str]: The checkpoint to write, and a description of the source.

    Raises:
        ValueError: The checkpoint has no such segmentor.
    """
    who, prefix = ('teacher', 'teacher.module.') if arguments.teacher else ('student', 'student.')
    segmentor = strip_prefix(prefix, state)
    if not segmentor:
        raise ValueError(
            f'expected keys that start with {prefix}, found keys such as {list(state)[:3]}. '
            + (
                'The run has no teacher; omit --teacher.'
                if arguments.teacher
                else 'This is not a checkpoint of a semi-supervised run.'
            )
        )
    checkpoint, classes = as_checkpoint(segmentor), others.get('meta', {}).get('dataset_meta')
    if classes:
        checkpoint['meta']['dataset_meta'] = classes
    return checkpoint, f'the {who}' + (f', {len(classes["classes"])} classes' if classes else '')


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description='Extract the student or the teacher from a checkpoint.')
    parser.add_argument(
        '--teacher', action='store_true', help='extract the teacher, with which some methods predict'
    )
    run_converter(parser, convert)


if __name__ == '__main__':
    main()
