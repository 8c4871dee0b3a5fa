"""When a method's teacher follows its student."""

from mmengine.hooks import Hook

from ...methods import SemiSegmentor
from ...registry import HOOKS
from .unwrapping import unwrapped


@HOOKS.register_module()
class TeacherHook(Hook):
    """Update the teacher after each step of the optimizer; does nothing without one.

    A new run counts the teacher's steps from 0, also one that begins with another's weights (``load_from``).

    MMEngine's ``EMAHook`` keeps a model of its own, which a method's loss cannot ask for labels.
    """

    # before SyncNormStatisticsHook averages, so that the teacher's statistics are averaged as well
    priority = 'HIGH'

    def before_train(self, runner) -> None:
        """Count from 0 in a new run."""
        model = _taught(runner)
        if model is not None and runner.iter == 0:
            model.teacher.steps.zero_()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Update, unless gradients are still being accumulated."""
        model = _taught(runner)
        if model is not None and runner.optim_wrapper.should_update():
            model.teacher.update_parameters(model.student)


def _taught(runner) -> SemiSegmentor | None:
    """The model, if it has a teacher."""
    model = unwrapped(runner.model)
    return model if isinstance(model, SemiSegmentor) and model.teacher is not None else None
