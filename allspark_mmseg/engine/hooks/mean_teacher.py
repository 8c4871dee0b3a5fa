"""Hook that updates the teacher."""

from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner

from ...methods import SemiSegmentor
from ...registry import HOOKS
from ...utils import unwrap_model
from ..sharding import whole_parameters


@HOOKS.register_module()
class MeanTeacherHook(Hook):
    """Update the teacher after each step of the optimizer.

    Without a teacher, and in a supervised phase, the hook does nothing.

    A new run counts the steps of the teacher from 0, even if it loads weights with ``load_from``.

    A method needs the teacher in its loss. MMEngine's ``EMAHook`` does not give the loss access to its
    averaged model.
    """

    # before SyncBNStatsHook, so that the teacher's statistics are averaged as well
    priority = 'HIGH'

    def before_train(self, runner: Runner) -> None:
        """Reset the step counter of the teacher in a new run.

        Args:
            runner (Runner): The runner.
        """
        model = unwrap_model(runner.model)
        if isinstance(model, SemiSegmentor) and model.teacher is not None and runner.iter == 0:
            model.teacher.steps.zero_()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Update the teacher, unless gradients are still being accumulated.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The collated batch.
            outputs (dict, optional): Outputs of the training step.
        """
        model = unwrap_model(runner.model)
        if not isinstance(model, SemiSegmentor) or model.teacher is None or model.supervised_only:
            return
        if runner.optim_wrapper.should_update():
            with whole_parameters(runner.model):
                model.teacher.update_parameters(model.student)
