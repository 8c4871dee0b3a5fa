"""Measure what a process sends to others in a training step, over gloo, and compute it for many processes.

    python -m benchmarks.traffic [--processes 2 4] [--compute 64] [--parameters 85] [--crop 513] ...

Each part of a step runs alone in forked processes. The kernel counts the bytes that their connections send.
The formulas are those of ring algorithms, with n bytes of each process and P processes: an all-reduce sends
2 n (P - 1) / P, an all-gather n (P - 1). NCCL also has other algorithms, such as trees, which send less.
Linux only.
"""

import argparse
import multiprocessing
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from allspark_mmseg.methods.allspark.bottleneck import AllSparkBottleneck
from allspark_mmseg.methods.css.prototypes import ClassPrototypes
from allspark_mmseg.thresholds import FreeMatchThreshold

_REPEATS = 5
_BYTES_SENT = 200  # offset of tcpi_bytes_sent in the kernel's struct tcp_info
_MEASURED_PARAMETERS = 1_000_000  # of the model whose gradients are measured


class Part(NamedTuple):
    """A part of a training step.

    Attributes:
        name (str): What is sent.
        run (Callable): Runs the part once.
        gathers (bool): Whether it is an all-gather, otherwise an all-reduce.
        size (int): Bytes of one process.
        scale (float): Size in a real training, divided by the measured size.
    """

    name: str
    run: Callable[[], object]
    gathers: bool
    size: int
    scale: float = 1

    def sent(self, processes: int) -> float:
        """Return the bytes that a process sends, by the formula."""
        return self.size * (processes - 1) * (1 if self.gathers else 2 / processes)


class _Weights(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(count))

    def forward(self) -> Tensor:
        return self.weights.sum()


def parts(args: argparse.Namespace) -> Iterator[Part]:
    """Yield the parts of a step that send something.

    Args:
        args (Namespace): The command line.

    Yields:
        Part: The part, with the objects that a training uses.
    """
    model = _Weights(_MEASURED_PARAMETERS)
    wrapped = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    scale = args.parameters * 1e6 / _MEASURED_PARAMETERS
    yield Part('gradients', lambda: wrapped().backward(), False, 4 * _MEASURED_PARAMETERS, scale)

    bottleneck = AllSparkBottleneck(args.channels, args.classes, crop_size=args.crop, num_heads=1)
    tokens = torch.zeros(args.unlabeled, bottleneck.map_size[0] * bottleneck.map_size[1], args.channels)
    owners = torch.zeros(args.unlabeled, args.channels, dtype=torch.int64)
    size = 4 * tokens.numel() + 8 * owners.numel()
    yield Part('memory of AllSpark', lambda: bottleneck._write_memory(tokens, owners), True, size)

    prototypes = ClassPrototypes(args.classes, args.representation)
    pixels, label = torch.zeros(10, args.representation), torch.zeros(10, dtype=torch.int64)
    size = 4 * args.classes * (args.representation + 1)
    yield Part('prototypes of CSS', lambda: prototypes.update(pixels, label), False, size)

    threshold = FreeMatchThreshold(args.classes).train()
    logits, mask = torch.zeros(1, args.classes, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)
    size = 4 * (2 + args.classes)
    yield Part('adaptive thresholds', lambda: threshold(logits, mask), False, size)

    flag = torch.zeros(1)
    yield Part('signal to stop', lambda: _all_reduce(flag), False, 4)


def _all_reduce(flag: Tensor) -> None:
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(flag)


def bytes_sent() -> int:
    """Return the bytes that all TCP connections of this process have sent."""
    total = 0
    for name in os.listdir('/proc/self/fd'):
        try:
            if not os.readlink(f'/proc/self/fd/{name}').startswith('socket:'):
                continue
            with socket.socket(fileno=os.dup(int(name))) as copy:
                info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:
            continue  # closed in the meantime, or no TCP
        if len(info) >= _BYTES_SENT + 8:
            total += struct.unpack_from('=Q', info, _BYTES_SENT)[0]
    return total


def measure(args: argparse.Namespace, processes: int) -> list[float]:
    """Measure the parts.

    Args:
        args (Namespace): The command line.
        processes (int): Number of processes.

    Returns:
        list[float]: For each part, the mean of the bytes that a process sends.
    """
    context = multiprocessing.get_context('fork')
    with tempfile.TemporaryDirectory() as folder:
        pipes, running = [], []
        for rank in range(processes):
            receiver, sender = multiprocessing.Pipe(duplex=False)
            arguments = (sender, args, f'file://{folder}/rendezvous', rank, processes)
            running.append(context.Process(target=_run, args=arguments))
            running[-1].start()
            sender.close()
            pipes.append(receiver)
        sent = [pipe.recv() for pipe in pipes]
        for process in running:
            process.join()
    return [sum(part) / processes for part in zip(*sent, strict=True)]


def _run(sender: Connection, args: argparse.Namespace, place: str, rank: int, processes: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=place, rank=rank, world_size=processes)
    sent = []
    for part in parts(args):
        part.run()  # the first time, gloo opens connections, and DDP compares the parameters
        torch.distributed.barrier()
        before = bytes_sent()
        for _ in range(_REPEATS):
            part.run()
        sent.append((bytes_sent() - before) / _REPEATS)
        torch.distributed.barrier()
    sender.send(sent)
    torch.distributed.destroy_process_group()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments (list[str], optional): The command line; by default that of the process.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--processes', type=int, nargs='*', default=[2, 4], help='measured (default: 2 4)')
    add('--compute', type=int, nargs='*', default=[64], help='computed (default: 64)')
    add('--parameters', type=float, default=85, help='of the network, in millions (default: 85, MiT-B5)')
    add('--crop', type=int, default=513, help='side of the crop in pixels (default: 513)')
    add('--unlabeled', type=int, default=2, help='images of a process (default: 2)')
    add('--classes', type=int, default=21, help='default: 21')
    add('--channels', type=int, default=512, help='of the bottleneck of AllSpark (default: 512)')
    add('--representation', type=int, default=256, help='channels of the prototypes of CSS (default: 256)')
    args = parser.parse_args(arguments)
    measured = {processes: measure(args, processes) for processes in args.processes}
    heads = [f'{processes} {kind}' for processes in measured for kind in ('measured', 'formula')]
    print('KiB that a process sends in a step')
    print(''.join(f'{head:>20}' for head in ['', *heads, *(f'{count} computed' for count in args.compute)]))
    for number, part in enumerate(parts(args)):
        values = [
            value for processes, sent in measured.items() for value in (sent[number], part.sent(processes))
        ]
        values += [part.sent(processes) for processes in args.compute]
        print(f'{part.name:>20}' + ''.join(f'{value * part.scale / 1024:>20,.2f}' for value in values))


if __name__ == '__main__':
    main()
