"""Runs a function in two processes over gloo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

WORLD = 2


def on_two_ranks(folder: Path, function: Callable, *args: Any) -> list:
    """Call ``function(rank, *args)`` in both processes.

    They are forked, as data loaders fork their workers: a spawned process would import everything again.

    Args:
        folder: An empty folder for the rendezvous and the results.
        function: What is called.
        *args: Its other arguments.

    Returns:
        The two results, which ``torch.load`` must accept with ``weights_only=True``.
    """
    start_processes(_call, (folder, function, args), nprocs=WORLD, start_method='fork')
    return [torch.load(folder / f'{rank}.pth', weights_only=True) for rank in range(WORLD)]


def _call(rank: int, folder: Path, function: Callable, args: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=WORLD)
    torch.save(function(rank, *args), folder / f'{rank}.pth')
    dist.destroy_process_group()
