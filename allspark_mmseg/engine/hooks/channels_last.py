"""Hook that stores weights in the memory format channels_last."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Convert the weights of the convolutions to ``torch.channels_last`` (NHWC) before a run.

    Convolutions then compute in this format and convert their inputs. The results differ by rounding only.
    Convolutional networks with depthwise convolutions are faster on a CPU, and so is mixed precision on a
    GPU. Networks that consist of matrix products (transformers) do not gain.
    """

    # a checkpoint that is loaded into the weights keeps their format
    def before_run(self, runner: Runner) -> None:
        """Convert the model.

        Args:
            runner (Runner): The runner.
        """
        for weight in runner.model.parameters():
            # the gradients of weights of one position have the usual strides, and DistributedDataParallel
            # warns of other ones
            if weight.ndim == 4 and weight.shape[2:].numel() > 1:
                # not contiguous(), which returns depthwise weights with the usual strides
                converted = torch.empty_like(weight, memory_format=torch.channels_last)
                weight.data = converted.copy_(weight.data)
