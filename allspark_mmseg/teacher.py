"""The teacher: an exponential moving average of the student."""

import logging
from collections.abc import Mapping

import torch
from mmengine.logging import print_log
from mmengine.model import BaseAveragedModel
from torch import nn

POLICIES = ('average', 'copy', 'leave')


class Teacher(BaseAveragedModel):
    r"""A copy of the student that follows it slowly; always in eval mode, never with a gradient.

    After step t, counted from 0, teacher <- (1 - m) teacher + m student with m = max(momentum, 1 / (t + 1))
    under warm-up, so that the first step copies the student (UniMatch V2, arXiv 2410.10777; as a decay
    min(1 - 1 / (t + 1), 1 - momentum)), or m = momentum throughout. The counter ``steps`` is a buffer, so a
    resumed run goes on where it was.

    MMEngine's own averages know no policy by key for buffers, and wait for the device at each parameter.

    Args:
        model: the student.
        momentum: the student's share m, as MMEngine counts it, in (0, 1]; 0.004 is a decay of 0.996.
        warm_up: average equally at first, 1 / (t + 1).
        buffers: what becomes of buffers: ``'average'`` like parameters (integers are copied), ``'copy'`` the
            student's, or ``'leave'`` as they are. Or a dict from part of a name to one of these, the longest
            that fits deciding; the part ``''`` fits all and is ``'average'`` if not given.

    Raises:
        ValueError: a momentum outside (0, 1], or an unknown policy.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.004,
        warm_up: bool = True,
        buffers: str | Mapping[str, str] = 'average',
    ):
        if not 0 < momentum <= 1:
            raise ValueError(
                f'teacher.momentum is {momentum}, expected one in (0, 1]: the share of the student in each '
                'update, 0.004 for a decay of 0.996.'
            )
        if 0.5 < momentum < 1:
            print_log(
                f'teacher.momentum={momentum} makes the teacher nearly equal to the student after each step; '
                f'for a decay of {momentum} write momentum={1 - momentum:.6g}.',
                logger='current',
                level=logging.WARNING,
            )
        policies = {'': 'average', **({'': buffers} if isinstance(buffers, str) else buffers)}
        unknown = {part: policy for part, policy in policies.items() if policy not in POLICIES}
        if unknown:
            raise ValueError(f'teacher.buffers has {unknown}, expected one of {POLICIES} for each part.')
        super().__init__(model)
        self.momentum = momentum
        self.warm_up = warm_up
        self.policies = policies
        self.eval()

    def train(self, mode: bool = True) -> 'Teacher':
        """Stay in eval mode."""
        return super().train(False)

    def policy(self, name: str) -> str:
        """What becomes of the buffer ``name``."""
        return self.policies[max((part for part in self.policies if part in name), key=len)]

    @torch.no_grad()
    def copy_from(self, model: nn.Module) -> None:
        """Become equal to the student, buffers included, and count from 0 again."""
        self.module.load_state_dict(model.state_dict())
        self.steps.zero_()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Follow the student after one of its steps.

        Args:
            model: the student.
        """
        momentum = max(self.momentum, 1 / (int(self.steps) + 1)) if self.warm_up else self.momentum
        averaged = [list(self.module.parameters()), list(model.parameters())]
        for (name, ours), theirs in zip(self.module.named_buffers(), model.buffers(), strict=True):
            policy = self.policy(name)
            if policy == 'average' and ours.is_floating_point():
                averaged[0].append(ours)
                averaged[1].append(theirs)
            elif policy != 'leave':
                ours.copy_(theirs)
        torch._foreach_lerp_(*averaged, momentum)
        self.steps += 1
