"""Take the student, or the teacher, out of a semi-supervised run's checkpoint: a plain MMSegmentation model.

The result is for a config whose ``model`` is the run's ``model.segmentor``, and as ``load_from`` of any other
run. It holds the weights and the names of the classes; optimizer and log are left behind.

    python tools/model_converters/extract_segmentor.py iter_5000.pth voc_92.pth --teacher
"""

import argparse

from allspark_mmseg.converters.files import as_checkpoint, run_converter


def convert(state: dict, others: dict, arguments: argparse.Namespace) -> tuple[dict, str]:
    """Take one segmentor, and say which and how many classes it tells apart."""
    who, prefix = ('teacher', 'teacher.module.') if arguments.teacher else ('student', 'student.')
    taken = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not taken:
        raise ValueError(
            f'expected keys that begin with {prefix}, found such as {list(state)[:3]}. '
            + (
                'The run had no teacher; leave out --teacher.'
                if arguments.teacher
                else 'It is no semi-supervised run.'
            )
        )
    checkpoint, classes = as_checkpoint(taken), others.get('meta', {}).get('dataset_meta')
    if classes:
        checkpoint['meta']['dataset_meta'] = classes
    return checkpoint, f'the {who}' + (f', {len(classes["classes"])} classes' if classes else '')


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description='Take the student or the teacher out of a checkpoint.')
    parser.add_argument('--teacher', action='store_true', help='the teacher, which some methods predict with')
    run_converter(parser, convert)


if __name__ == '__main__':
    main()
