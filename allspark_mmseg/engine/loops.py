"""Validation of student and teacher."""

from typing import Any, cast

from mmengine.runner import Runner, ValLoop

from ..methods import SemiSegmentor
from ..registry import LOOPS
from ..utils import unwrap_model


@LOOPS.register_module()
class TeacherStudentValLoop(ValLoop):
    """Validation loop that evaluates the student and the teacher.

    Metrics of the model that predicts (``predict_on``) keep their names, so ``save_best='mIoU'`` uses it.
    Metrics of the other model have the prefix ``student/`` or ``teacher/``. The loop takes twice the time of
    ``ValLoop``. MMDetection has a loop of the same name.

    Args:
        runner (Runner): The runner. Its model is a :class:`SemiSegmentor` with a teacher.
        *args: Other positional arguments of ``ValLoop``.
        **kwargs: Other keyword arguments of ``ValLoop``.

    Raises:
        ValueError: The model has no teacher.
    """

    def __init__(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        model = unwrap_model(runner.model)
        if not isinstance(model, SemiSegmentor) or model.teacher is None:
            raise ValueError(
                f'TeacherStudentValLoop: the {type(model).__name__} has no teacher. Use '
                "val_cfg=dict(type='ValLoop'), or set teacher=dict(...) in the method."
            )
        super().__init__(runner, *args, **kwargs)

    def run(self) -> dict[str, float]:
        """Evaluate both models.

        Returns:
            dict[str, float]: Metrics of both models. Those of the model that predicts come first.
        """
        model = cast(SemiSegmentor, unwrap_model(self.runner.model))
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        predictor = model.predict_on
        other = 'student' if predictor == 'teacher' else 'teacher'
        try:
            model.predict_on = other
            other_metrics = {f'{other}/{name}': value for name, value in self._evaluate().items()}
        finally:
            model.predict_on = predictor
        # in this order, because save_best='auto' uses the first key
        metrics = self._evaluate() | other_metrics
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics

    def _evaluate(self) -> dict[str, float]:
        for index, batch in enumerate(self.dataloader):
            self.run_iter(index, batch)
        return self.evaluator.evaluate(len(self.dataloader.dataset))
