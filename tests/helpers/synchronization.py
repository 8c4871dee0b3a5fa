"""Finds where the host waits for the device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# on a GPU, these wait until the result is on the host, or until a value from the host is on the GPU
_WAITING = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_consecutive,
    aten.unique_dim, aten.bincount, aten.equal, aten.is_nonzero, aten.lift_fresh,
}  # fmt: skip


class _RefuseWaiting(TorchDispatchMode):
    """Raises where a GPU would make the host wait. It runs on a CPU, and sees no pageable copies."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        by_mask = function.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if by_mask or function.overloadpacket in _WAITING:
            raise RuntimeError(f'{function} would wait for a GPU')
        return function(*args, **(kwargs or {}))


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """Raise an error if the host waits for the device; on a CPU, if it would wait for a GPU.

    Args:
        device: ``'cpu'`` or ``'cuda'``.
    """
    if device == 'cpu':
        with _RefuseWaiting():
            yield
        return
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
