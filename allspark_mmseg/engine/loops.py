"""Loops that MMEngine lacks."""

from mmengine.runner import ValLoop

from ..methods import SemiSegmentor
from ..registry import LOOPS
from ..utils import unwrap_model


@LOOPS.register_module()
class TeacherStudentValLoop(ValLoop):
    """Validate the student and the teacher, one after the other.

    Metrics of the one that predicts (``predict_on``) keep their names, so ``save_best='mIoU'`` means it; the
    other's are told as ``student/mIoU`` or ``teacher/mIoU``. Takes twice the time. In MMDetection, too,
    such a loop stands beside the ordinary one.

    Raises:
        ValueError: the model has no teacher.
    """

    def __init__(self, runner, *args, **kwargs):
        model = unwrap_model(runner.model)
        if not isinstance(model, SemiSegmentor) or model.teacher is None:
            raise ValueError(
                f'TeacherStudentValLoop: the {type(model).__name__} has no teacher; use '
                "val_cfg=dict(type='ValLoop'), or give the method a teacher=dict(...)."
            )
        super().__init__(runner, *args, **kwargs)

    def run(self) -> dict[str, float]:
        """Validate both; returns the metrics of both, those of the one that predicts first."""
        model = unwrap_model(self.runner.model)
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        chosen = model.predict_on
        other = 'student' if chosen == 'teacher' else 'teacher'
        try:
            model.predict_on = other
            others = {f'{other}/{name}': value for name, value in self._metrics().items()}
        finally:
            model.predict_on = chosen
        metrics = self._metrics() | others  # in this order: save_best='auto' takes the first
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics

    def _metrics(self) -> dict[str, float]:
        for number, batch in enumerate(self.dataloader):
            self.run_iter(number, batch)
        return self.evaluator.evaluate(len(self.dataloader.dataset))
