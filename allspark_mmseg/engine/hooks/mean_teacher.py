"""The update of the teacher."""

from mmengine.hooks import Hook

from ...methods import SemiSegmentor
from ...registry import HOOKS
from ...utils import unwrap_model


@HOOKS.register_module()
class MeanTeacherHook(Hook):
    """Update the teacher after each step of the optimizer. Without a teacher, the hook does nothing.

    A new run counts the teacher's steps from 0, also if it starts from other weights (``load_from``).

    MMEngine's ``EMAHook`` keeps its averaged model to itself, so a method's loss cannot use it for labels.
    """

    # before SyncBNStatsHook, so that the teacher's statistics are averaged as well
    priority = 'HIGH'

    def before_train(self, runner) -> None:
        """Count from 0 in a new run."""
        model = _model_with_teacher(runner)
        if model is not None and runner.iter == 0:
            model.teacher.steps.zero_()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Update the teacher, unless gradients are still being accumulated."""
        model = _model_with_teacher(runner)
        if model is not None and runner.optim_wrapper.should_update():
            model.teacher.update_parameters(model.student)


def _model_with_teacher(runner) -> SemiSegmentor | None:
    model = unwrap_model(runner.model)
    return model if isinstance(model, SemiSegmentor) and model.teacher is not None else None
