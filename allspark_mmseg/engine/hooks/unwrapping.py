"""The model itself, whatever distributed training wraps around it."""

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside a distributed wrapper, or the model when there is none."""
    return model.module if is_model_wrapper(model) else model
