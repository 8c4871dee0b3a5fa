"""Optimizer wrapper for training in bfloat16."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast

from ..registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """``OptimWrapper`` with forward passes in bfloat16 (autocast). Weights and updates stay in float32.

    It also works on a CPU, where MMEngine's ``AmpOptimWrapper`` does not start. It does not scale the loss,
    because bfloat16 has the range of float32. The arguments are the same as in ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        """Context of the forward pass of a training step.

        Args:
            model (nn.Module): The model.
        """
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
