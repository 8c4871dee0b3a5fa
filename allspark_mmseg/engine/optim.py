"""Mixed precision that MMEngine lacks."""

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast

from ..registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Forward passes in bfloat16 where PyTorch's autocast allows it; weights and updates in float32.

    Works on a CPU too, where MMEngine's ``AmpOptimWrapper`` refuses to start, and scales no loss: bfloat16
    has the range of float32. Arguments are those of ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module):
        """Enter around a training step's forward pass."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
