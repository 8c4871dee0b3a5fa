"""Polynomial learning-rate schedule of the released code."""

from typing import Any

from mmengine.optim import OptimWrapper, PolyLR
from mmengine.optim.scheduler.param_scheduler import INF
from torch.optim import Optimizer

from ..registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class PostStepPolyLR(PolyLR):
    r"""Polynomial decay with a lag of one iteration, as in the released code of most methods.

    The training scripts of UniMatch and AllSpark compute the learning rate after each step, from the index of
    this step. So the schedule lags by one iteration. With T steps in total, step t = 0..T-1 has the learning
    rate

    .. math::

        lr_t = \eta + (lr_0 - \eta) \left(1 - \frac{\max(t - 1, 0)}{T}\right)^{\text{power}}

    Steps 0 and 1 have the initial rate, and the last step has a small positive rate. MMEngine's ``PolyLR``
    over T steps divides by T - 1, and its last step has the rate ``eta_min``. With ``begin=1`` and ``end=T +
    2``, it gives the rates above, but a config that counts epochs cannot express these values. ``begin`` and
    ``end`` of this class are the begin and the end of the training::

        dict(type='allspark_mmseg.PostStepPolyLR', power=0.9, end=80, by_epoch=True,
        convert_to_iter_based=True)

    Args:
        optimizer (Optimizer or OptimWrapper): The optimizer. The runner sets it.
        begin (int): Start of the schedule in iterations, or in epochs with ``convert_to_iter_based=True``.
        end (int): End of the schedule in the same unit. By default, the runner sets the length of the
            training.
        by_epoch (bool): Must be False, or be used with ``convert_to_iter_based=True``.
        **kwargs: Other arguments of ``PolyLR``, such as ``eta_min`` and ``power`` (default 1; the released
            code uses 0.9).

    Raises:
        ValueError: ``by_epoch`` is True without ``convert_to_iter_based=True``.
    """

    def __init__(
        self,
        optimizer: Optimizer | OptimWrapper,
        *,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        **kwargs: Any,
    ) -> None:
        if by_epoch:
            raise ValueError(
                'PostStepPolyLR: by_epoch is True, expected a schedule in iterations. Add '
                'convert_to_iter_based=True to param_scheduler, or set by_epoch=False and count begin and '
                'end in iterations.'
            )
        super().__init__(optimizer, begin=begin + 1, end=end + 2, by_epoch=False, **kwargs)
