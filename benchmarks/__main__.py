"""Compare time and peak memory of this project with a straightforward implementation.

    python -m benchmarks bottleneck --preset coco      # AllSpark's bottleneck, forward and backward pass
    python -m benchmarks memory                        # the update of the semantic memory
    python -m benchmarks step --preset voc --amp       # a training step
    python -m benchmarks data --images data/VOC2012/JPEGImages      # the training pipelines, on one core
    python -m benchmarks inference                     # the cost of the bottleneck in prediction
    python -m benchmarks all --device cuda --json FILE # everything on one device, in a few minutes

The straightforward implementations are benchmarks/plain_*.py. ``inference`` compares with the same network
without the bottleneck.
"""

import sys
from itertools import islice

import torch
from mmengine.registry import init_default_scope

from . import suite
from .commands import COMMANDS
from .measure import measure, peak_of_this_process
from .options import parse_args
from .report import machine, table, write_json


def main(arguments: list[str] | None = None) -> None:
    """Run one command and report its results.

    Args:
        arguments (list[str], optional): The command line; by default that of the process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ['all']:
        sys.exit(suite.main(arguments[1:]))
    options = parse_args(arguments, COMMANDS)
    init_default_scope('mmseg')
    if options.threads:
        torch.set_num_threads(options.threads)
    command = COMMANDS[options.command]
    cases = command.cases(options)
    if options.side:
        case = next(islice(cases, options.case, None))
        print(peak_of_this_process(getattr(case, options.side), options.device))
        return
    description = machine(options.device)
    print(', '.join(f'{key} {value}' for key, value in description.items() if value is not None))
    results = []
    for number, case in enumerate(cases):
        results.append(measure(number, case, options, arguments))
        # the next case can take minutes
        print(f'{case.name}: {results[-1].ours_s:.3g} s, plain {results[-1].reference_s:.3g} s', flush=True)
    print(table(results))
    if command.remark:
        print('\n'.join(map(command.remark, results)))
    if options.json:
        write_json(options.json, description, arguments, results)


if __name__ == '__main__':
    main()
