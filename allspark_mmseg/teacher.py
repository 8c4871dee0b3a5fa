"""The teacher: an exponential moving average of the student."""

import logging
from collections.abc import Mapping

import torch
from mmengine.logging import print_log
from mmengine.model import BaseAveragedModel
from torch import Tensor, nn

from .utils import HostValue, require

POLICIES = ('average', 'copy', 'leave')


class Teacher(BaseAveragedModel):
    r"""An exponential moving average of the student. It is always in eval mode and has no gradient.

    After step t, counted from 0,

    .. code-block:: text

        teacher <- (1 - m) teacher + m student
        m        = max(momentum, 1 / (t + 1)) with warm-up, momentum without

    With warm-up, the first step copies the student, as in the release of UniMatch V2 (arXiv 2410.10777). The
    decay is then min(1 - 1 / (t + 1), 1 - momentum). The buffer ``steps`` counts t, so a resumed run
    continues the average.

    MMEngine's averaged models have one policy for all buffers and synchronize with the device at each
    parameter.

    Args:
        model (nn.Module): The student.
        momentum (float): Share of the student m, in (0, 1], as in MMEngine; 0.004 is a decay of 0.996.
        warm_up (bool): Whether m starts at 1 and falls as 1 / (t + 1).
        buffers (str or dict): Policy for buffers. ``'average'`` averages floating-point buffers like
            parameters and copies integer buffers. ``'copy'`` copies the buffers of the student. ``'leave'``
            does not change the buffers of the teacher. A dict maps a substring of the buffer name to a
            policy; the longest match wins. The substring ``''`` matches all names, and has the policy
            ``'average'`` by default.

    Raises:
        ValueError: ``momentum`` is not in (0, 1], or a policy is unknown.
    """

    steps: Tensor

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.004,
        warm_up: bool = True,
        buffers: str | Mapping[str, str] = 'average',
    ) -> None:
        expected = 'a share of the student in (0, 1], for example 0.004 for a decay of 0.996'
        require('Teacher', 'momentum', momentum, 0 < momentum <= 1, expected)
        policies = {'': 'average', **({'': buffers} if isinstance(buffers, str) else buffers)}
        known = all(policy in POLICIES for policy in policies.values())
        require('Teacher', 'buffers', buffers, known, f'one of {POLICIES} for each substring')
        if 0.5 < momentum < 1:
            print_log(
                f'Teacher: momentum={momentum} makes the teacher almost the student after each step. '
                f'For a decay of {momentum} set momentum={1 - momentum:.6g}.',
                logger='current',
                level=logging.WARNING,
            )
        super().__init__(model)
        self.momentum = momentum
        self.warm_up = warm_up
        self.policies = policies
        self._steps_on_host = HostValue()
        self.eval()

    def train(self, mode: bool = True) -> 'Teacher':
        """Stay in eval mode."""
        return super().train(False)

    def policy(self, name: str) -> str:
        """Return the policy for the buffer ``name``."""
        return self.policies[max((part for part in self.policies if part in name), key=len)]

    @torch.no_grad()
    def copy_from(self, model: nn.Module) -> None:
        """Copy the student's parameters and buffers, and reset the step counter."""
        self.module.load_state_dict(model.state_dict())
        self.steps.zero_()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average after a step of the student.

        Args:
            model (nn.Module): The student.
        """
        steps = int(self._steps_on_host.read(self.steps))
        momentum = max(self.momentum, 1 / (steps + 1)) if self.warm_up else self.momentum
        averages: list[Tensor] = list(self.module.parameters())
        values: list[Tensor] = list(model.parameters())
        for (name, average), value in zip(self.module.named_buffers(), model.buffers(), strict=True):
            policy = self.policy(name)
            if policy == 'average' and average.is_floating_point():
                averages.append(average)
                values.append(value)
            elif policy != 'leave':
                average.copy_(value)
        torch._foreach_lerp_(averages, values, momentum)
        self._steps_on_host.write(self.steps, steps + 1)
