"""Run a command: ``python -m allspark_mmseg VERB [arguments]``."""

import sys
from importlib import import_module

# verb -> what it does; each is a module of allspark_mmseg.cli with a function main(arguments)
VERBS = {
    'new': 'lists and configs for a folder of images and masks',
    'look': 'draw what the network will see, with the draw of each transform',
    'train': 'train a segmentor',
    'test': 'evaluate a checkpoint',
    'report': 'write an HTML page about trainings',
    'predict': 'write masks, overlays and confidence of a folder of images',
    'suggest': 'rank unlabeled images by what a label would teach',
    'shards': 'list the images inside tar files, for trainings that read them there',
    'export': 'write a trained network as ONNX or TorchScript, check it, count its operations',
}


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, VERBS))
    lines = [f'  {verb:<{width}}  {purpose}' for verb, purpose in VERBS.items()]
    return '\n'.join(
        [
            'usage: python -m allspark_mmseg VERB [arguments]',
            '',
            *lines,
            '',
            'python -m allspark_mmseg VERB --help lists the arguments of a command.',
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments (list[str], optional): The verb and its arguments. Default: those of the process.

    Returns:
        int: The exit code.
    """
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ['--help']
    if verb in ('-h', '--help'):
        print(usage())
        return 0
    if verb not in VERBS:
        print(f'{verb!r} is not a command.\n\n{usage()}', file=sys.stderr)
        return 2
    sys.argv[0] = f'python -m allspark_mmseg {verb}'  # the name of the program in --help
    try:
        return import_module(f'allspark_mmseg.cli.{verb}').main(rest) or 0
    except KeyboardInterrupt:
        print('Interrupted. The same command continues.', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
