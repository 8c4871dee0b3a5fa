"""A recorder of the calls of a module."""

from torch import nn


class CallRecorder:
    """Records the first input, the output and the mode of each call of a module."""

    def __init__(self, module: nn.Module):
        self.inputs: list = []
        self.outputs: list = []
        self.training: list[bool] = []
        module.register_forward_hook(self._record)

    def _record(self, module, inputs, output):
        self.inputs.append(inputs[0])
        self.outputs.append(output)
        self.training.append(module.training)
