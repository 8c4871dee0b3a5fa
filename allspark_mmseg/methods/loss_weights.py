"""Weights of losses that change during training, as functions of the step."""

import torch
from torch import Tensor


def rampup_weight(step: Tensor, rampup_steps: int) -> Tensor:
    r"""Return the ramp-up weight ``exp(-5 (1 - t / T)^2)``; it is 1 from step T on.

    The schedule is from Laine and Aila, ICLR 2017 (arXiv 1610.02242), section 3.1; Mean Teacher uses it too.

    Args:
        step (Tensor): Scalar, number of finished steps t.
        rampup_steps (int): T; 0 gives a constant weight of 1.

    Returns:
        Tensor: Scalar float in [e^-5, 1].
    """
    remaining = 1 - (step / max(rampup_steps, 1)).clamp(max=1)
    return torch.exp(-5 * remaining**2) if rampup_steps else torch.ones_like(remaining)


def rampdown_weight(step: Tensor, rampdown_steps: int | None) -> Tensor:
    r"""Return the ramp-down weight ``exp(-5 (t / T)^2)``; it is 0 from step T on.

    Args:
        step (Tensor): Scalar, number of finished steps t.
        rampdown_steps (int, optional): T; None gives a constant weight of 1.

    Returns:
        Tensor: Scalar float in [0, 1].
    """
    if rampdown_steps is None:
        return torch.ones_like(step, dtype=torch.float32)
    progress = step / rampdown_steps
    return torch.exp(-5 * progress**2) * (progress < 1)


def linear_rampup(step: int, rampup_steps: int) -> float:
    """Return the ramp-up weight ``(t + 1) / T``; it is 1 from step T - 1 on.

    Args:
        step (int): Number of finished steps t.
        rampup_steps (int): T; 0 gives a constant weight of 1.

    Returns:
        float: Weight in (0, 1].
    """
    return min(1.0, (step + 1) / rampup_steps) if rampup_steps else 1.0
