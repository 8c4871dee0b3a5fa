"""Hook that keeps the best network of two phases, and ends a phase that no longer improves."""

import time

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...methods import SemiSegmentor
from ..phases import is_val_step
from ..plain_checkpoint import record_scores
from ..scoreboard import SUPERVISED, Scoreboard


class BestNetworkHook(Hook):
    """The part of ``WarmStartHook`` that keeps scores and networks.

    Args:
        patience (int, optional): See ``WarmStartHook``.
        give_up (int, optional): See ``WarmStartHook``.
    """

    model: SemiSegmentor
    board: Scoreboard

    def __init__(self, patience: int | None, give_up: int | None) -> None:
        self.patience = patience
        self.give_up = give_up
        self.training = False
        self.validated: set[int] = set()  # iterations with a score in the resumed checkpoint
        self.minutes_before = 0.0
        self.started = time.monotonic()

    def continue_scores(self, scores: list[dict]) -> None:
        """Continue with the scores and the minutes of a checkpoint.

        Args:
            scores (list[dict]): See ``Scoreboard.to_dicts``.
        """
        self.minutes_before = max((score['minutes'] for score in scores), default=0.0)
        self.validated = {score['iteration'] for score in scores}
        self.board.load(scores)

    def repeat_validation(self, runner: Runner) -> None:
        """Validate after a resume if the run was killed between the checkpoint and the validation."""
        if is_val_step(runner.train_loop) and runner.iter not in self.validated:
            runner.val_loop.run()
        self._stop_early(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record the scores, store the best network of the phase, and end a phase that no longer improves.

        Args:
            runner (Runner): The runner.
            metrics (dict, optional): Metrics of the validation.

        Raises:
            KeyError: ``metric`` is not among them.
        """
        if not self.training:
            return
        minutes = self.minutes_before + (time.monotonic() - self.started) / 60
        record_scores(runner, self.model, self.board, metrics or {}, minutes)
        self._stop_early(runner)

    def _stop_early(self, runner: Runner) -> None:
        if self.model.supervised_only:
            if self.patience is not None and self.board.stale(SUPERVISED) >= self.patience:
                runner.train_loop.stop_training = True
        elif self.give_up is not None and self.board.below_supervised() >= self.give_up:
            runner.train_loop.stop_training = True
            runner.logger.warning(self.board.advice(self.give_up))

    def after_run(self, runner: Runner) -> None:
        """Log what was reached and what was chosen.

        Args:
            runner (Runner): The runner.
        """
        if self.training and is_main_process():
            self.board.save()
            runner.logger.info(f'{self.board.sentence()} Folder: {runner.work_dir}')
