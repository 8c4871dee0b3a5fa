"""Learning-rate schedules that MMEngine lacks."""

from mmengine.optim import PolyLR
from mmengine.optim.scheduler.param_scheduler import INF

from ..registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class PostStepPolyLR(PolyLR):
    r"""Polynomial decay that sets the rate after a step, as the released code of most methods here does.

    UniMatch's and AllSpark's training scripts compute the rate from the index of the step just done, so the
    schedule lags one iteration. With T steps in all, step t = 0..T-1 is taken at

    .. math::

        lr_t = \eta + (lr_0 - \eta) \left(1 - \frac{\max(t - 1, 0)}{T}\right)^{\text{power}}

    Steps 0 and 1 have the full rate and the last one a small, positive rate. MMEngine's ``PolyLR`` over the
    same T steps divides by T - 1 and takes the last step at ``eta_min``. It would give the rates above with
    ``begin`` 1 and ``end`` T + 2, which a config that counts epochs cannot say; here ``begin`` and ``end``
    are those of the training itself::

        dict(type='allspark_mmseg.PostStepPolyLR', power=0.9, end=80, by_epoch=True, convert_to_iter_based=True)

    Args:
        optimizer: as in ``PolyLR``; the Runner gives it.
        begin: where the schedule starts, in iterations (in a config that converts them, in epochs).
        end: where it ends, likewise; by default the Runner gives the length of the training.
        by_epoch: must be False once built; ``convert_to_iter_based=True`` makes it so.
        kwargs: ``eta_min``, ``power`` (1 by default; the released scripts' is 0.9) and others of
            ``PolyLR``.

    Raises:
        ValueError: the rate would change once an epoch.
    """

    def __init__(self, optimizer, *, begin: int = 0, end: int = INF, by_epoch: bool = True, **kwargs):
        if by_epoch:
            raise ValueError(
                'PostStepPolyLR: by_epoch is True, but the lag is one iteration: add '
                'convert_to_iter_based=True to param_scheduler, or count begin and end in iterations with '
                'by_epoch=False.'
            )
        super().__init__(optimizer, begin=begin + 1, end=end + 2, by_epoch=False, **kwargs)
