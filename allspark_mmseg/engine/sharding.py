"""Fully sharded training (FSDP): each process keeps a part of the parameters, gradients and optimizer."""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy

from ..methods import SemiSegmentor
from ..registry import STRATEGIES
from ..utils import require

_PREFIX = '_fsdp_wrapped_module.'
_UNITS = (r'backbone', r'backbone\.blocks\.\d+')


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """MMEngine's ``FSDPStrategy`` for a method with a student and a teacher.

    FSDP stores several tensors in one, and cuts it in as many parts as there are processes. ``FSDPStrategy``
    puts student and teacher in one, so their parts do not correspond, and the teacher cannot be averaged.
    Here, both have the same units, and :func:`whole_parameters` gathers what is in no unit, such as heads. It
    also runs on CPUs, over gloo::

        runner_type = 'FlexibleRunner'
        strategy = dict(type='allspark_mmseg.ShardedStrategy', state_dict_cfg='full')

    Args:
        units (Sequence[str]): Regular expressions for the modules of a segmentor that are gathered when they
            run. The network must call these modules, not their parts. The default is the backbone, and each
            block of a DINOv2.
        model_wrapper (dict, optional): Arguments of ``MMFullyShardedDataParallel``.
        **kwargs: Other arguments of ``FSDPStrategy``.

    Raises:
        ValueError: No module has such a name.
    """

    def __init__(
        self, *, units: Sequence[str] = _UNITS, model_wrapper: dict | None = None, **kwargs: object
    ) -> None:
        wrapper = {'type': 'MMFullyShardedDataParallel', 'use_orig_params': True, **(model_wrapper or {})}
        if get_device() == 'cpu':
            wrapper.setdefault('device_id', 'cpu')
        super().__init__(model_wrapper=wrapper, **kwargs)
        self.units = tuple(units)
        self.names: list[str] = []  # of the state dict

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if not is_model_wrapper(model):
            self.names = list(model.state_dict())
            units = set(_find_units(model, self.units))
            require('ShardedStrategy', 'units', self.units, bool(units), 'names of modules of the segmentor')
            policy = partial(lambda_auto_wrap_policy, lambda_fn=units.__contains__)
            self.model_wrapper.setdefault('auto_wrap_policy', policy)
        return super()._wrap_model(model)

    def model_state_dict(self) -> dict[str, Tensor]:
        """Return the parameters and buffers, for ``state_dict_cfg='full'`` with the names of the model.

        PyTorch's own full state dict ends the process on CPUs: it copies parameters that are cut again.

        Returns:
            dict[str, Tensor]: The state, on the CPU. Only the first process has the whole parameters.
        """
        if not self._is_full_state_dict() or not self.names:
            return super().model_state_dict()
        on_cpu = get_device() == 'cpu'
        options = {} if on_cpu else {'offload_to_cpu': True, 'rank0_only': True}
        with FullyShardedDataParallel.summon_full_params(self.model, writeback=False, **options):
            parameters = self.model.named_parameters(remove_duplicate=False)
            values = {name.replace(_PREFIX, ''): value for name, value in parameters}
            values |= {name.replace(_PREFIX, ''): value for name, value in self.model.named_buffers()}
            return {name: values[name].detach().cpu().clone() for name in self.names}


def _find_units(model: nn.Module, patterns: Sequence[str]) -> Iterator[nn.Module]:
    for segmentor in model.networks.values() if isinstance(model, SemiSegmentor) else [model]:
        for name, module in segmentor.named_modules():
            if any(re.fullmatch(pattern, name) for pattern in patterns):
                yield module


def whole_parameters(model: nn.Module) -> AbstractContextManager:
    """Gather the parameters of a sharded model that are in no unit, in a block; changes are kept.

    Args:
        model (nn.Module): The model with its wrapper. Nothing happens if the wrapper is another one.

    Returns:
        AbstractContextManager: The context.
    """
    if isinstance(model, FullyShardedDataParallel):
        return FullyShardedDataParallel.summon_full_params(model, recurse=False)
    return nullcontext()
