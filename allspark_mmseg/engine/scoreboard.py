"""Scores of a run with two phases, supervised and semi-supervised, and the choice between their networks."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .checkpoint import AtomicLocalBackend

SUMMARY = 'summary.json'
CHOSEN = 'chosen.pth'
SUPERVISED = 'supervised'


@dataclass(frozen=True)
class Score:
    """Result of one validation of one network.

    Attributes:
        phase (str): ``'supervised'``, or the name of the method.
        network (str): ``'student'`` or ``'teacher'``.
        iteration (int): Iterations of the run so far.
        minutes (float): Training time of the run so far, without interruptions.
        value (float): The metric; higher is better.
    """

    phase: str
    network: str
    iteration: int
    minutes: float
    value: float


class Scoreboard:
    """Scores of both phases. They are kept in ``summary.json`` in the work dir, so a resumed run has them.

    The best network of each phase is in ``supervised.pth`` and ``METHOD.pth``. ``chosen.pth`` is the better
    one; at equal scores it is the supervised network.

    Args:
        work_dir (str or Path): Work dir of the run.
        method (str): Name of the method, the key of the second phase.
        metric (str): Name of the metric, such as ``'mIoU'``.
        control (bool): The second phase has no losses of unlabeled images.
    """

    def __init__(
        self, work_dir: str | Path, method: str, metric: str = 'mIoU', control: bool = False
    ) -> None:
        self.work_dir = Path(work_dir)
        self.method = method
        self.metric = metric
        self.control = control
        self.scores: list[Score] = []

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the scores in a form that checkpoints and JSON can hold."""
        return [asdict(score) for score in self.scores]

    def load(self, scores: list[dict[str, Any]]) -> None:
        """Continue with the scores of a checkpoint.

        A stored network can be of a validation after the checkpoint. Its score stays, because its file stays
        until a better network replaces it.

        Args:
            scores (list[dict]): What :meth:`to_dicts` returned when the checkpoint was saved.
        """
        self.scores = [Score(**score) for score in scores]
        path = self.work_dir / SUMMARY
        if not path.is_file():
            return
        stored = [Score(**score) for score in json.loads(path.read_text())['scores']]
        for phase in (SUPERVISED, self.method):
            later = [score for score in stored if score.phase == phase and score not in self.scores]
            best, known = max(later, key=_value, default=None), self.best(phase)
            if best and (known is None or best.value > known.value):
                self.scores.append(best)

    def add(self, *scores: Score) -> None:
        """Append the scores of one validation. A higher one of the same network and iteration stays."""
        for score in scores:
            same = [old for old in self.scores if _place(old) == _place(score)]
            self.scores = [old for old in self.scores if old not in same]
            self.scores.append(max([*same, score], key=_value))

    def of(self, phase: str) -> list[Score]:
        """Return the scores of one phase, in the order of the iterations."""
        return [score for score in self.scores if score.phase == phase]

    def best(self, phase: str) -> Score | None:
        """Return the highest score of a phase, the first one if several are equal."""
        return max(self.of(phase), key=_value, default=None)

    @property
    def still_improving(self) -> bool:
        """Whether the last of several validations of the supervised phase was its best."""
        return still_improving(self.to_dicts())

    def stale(self, phase: str) -> int:
        """Return the number of validations of a phase after its best one."""
        best = self.best(phase)
        if best is None:
            return 0
        return len({score.iteration for score in self.of(phase) if score.iteration > best.iteration})

    def below_supervised(self) -> int:
        """Return the number of latest validations at which the method did not beat the supervised network."""
        supervised, count = self.best(SUPERVISED), 0
        highest: dict[int, float] = {}
        for score in self.of(self.method):
            highest[score.iteration] = max(score.value, highest.get(score.iteration, float('-inf')))
        for iteration in sorted(highest, reverse=True):
            if supervised is None or highest[iteration] > supervised.value:
                break
            count += 1
        return count

    @property
    def chosen(self) -> Score | None:
        """The best score of both phases; the supervised one if they are equal."""
        candidates = [self.best(phase) for phase in (SUPERVISED, self.method)]
        return max((score for score in candidates if score), key=_value, default=None)

    def summary(self) -> dict[str, Any]:
        """Return the content of ``summary.json``.

        Returns:
            dict: For each phase that has scores, the best value under the name of the metric (rounded to two
            digits), its iteration, its network, the minutes of the whole phase, and ``last``, the value of
            the last validation (the higher one of student and teacher); ``chosen``, the phase of the chosen
            network; ``gain``, the best value of the method minus the supervised one; ``control``, if the
            second phase has no losses of unlabeled images; and all ``scores``.
        """
        result: dict[str, Any] = {}
        before = 0.0
        for phase in (SUPERVISED, self.method):
            best = self.best(phase)
            if best is None:
                continue
            end = max(score.minutes for score in self.of(phase))
            last = max(score.iteration for score in self.of(phase))
            result[phase] = {
                self.metric: round(best.value, 2),
                'iteration': best.iteration,
                'minutes': round(end - before, 2),
                'network': best.network,
                'last': round(max(s.value for s in self.of(phase) if s.iteration == last), 2),
            }
            before = end
        if self.chosen:
            result['chosen'] = self.chosen.phase
        if SUPERVISED in result and self.method in result:
            gain = result[self.method][self.metric] - result[SUPERVISED][self.metric]
            result['gain'] = round(gain, 2)
        if self.control:
            result['control'] = True
        result['scores'] = self.to_dicts()
        return result

    def save(self) -> None:
        """Write ``summary.json``, and make ``chosen.pth`` the file of the chosen network."""
        text = json.dumps(self.summary(), indent=1) + '\n'
        AtomicLocalBackend().put(text.encode(), self.work_dir / SUMMARY)
        if self.chosen:
            _link(self.work_dir / f'{self.chosen.phase}.pth', self.work_dir / CHOSEN)

    def advice(self, validations: int) -> str:
        """Return why the second phase stops, and what to try.

        Args:
            validations (int): Validations without a network above the supervised one, at least 1.
        """
        supervised, best = self.best(SUPERVISED), self.best(self.method)
        assert supervised is not None and best is not None  # below_supervised() counts only then
        return (
            f'{self.method} did not exceed the supervised {self.metric} of {supervised.value:.2f} in '
            f'{validations} validations (best {best.value:.2f}). The unlabeled images do not pay, so the '
            'training stops. Try: more labeled images of the classes with a low coverage in the table of '
            'pseudo-labels; a longer supervised phase; crops that contain rare classes (rare_prob); '
            "threshold=dict(type='ClassBalanced') if rare classes have a low coverage, or threshold=0.95 if "
            'their precision is low; unlabeled images of the same kind as the labeled ones.'
        )

    def sentence(self) -> str:
        """Return what was reached and what was chosen, for the end of the log."""
        first, second = self.best(SUPERVISED), self.best(self.method)
        if first is None or second is None:
            return 'There are no validation scores of both phases, so no network was chosen.'
        gain = second.value - first.value
        if self.control:
            verdict = f'The second phase without losses of unlabeled images gained {gain:.2f}.'
        elif gain <= 0:
            verdict = f'The unlabeled images did not pay ({gain:.2f}).'
        else:
            verdict = f'The second phase, with the unlabeled images, gained {gain:.2f}.'
            if self.still_improving:
                verdict += (
                    ' The supervised phase was still improving when it ended, so longer training can be a '
                    'part of this gain. The same command with --control shows how much.'
                )
        chosen = 'supervised network' if gain <= 0 else f'{second.network} of {self.method}'
        return (
            f'{self.metric}: supervised {first.value:.2f} (iteration {first.iteration}), {self.method} '
            f'{second.value:.2f} ({second.network}, iteration {second.iteration}). {verdict} {CHOSEN} is the '
            f'{chosen}.'
        )


def still_improving(scores: Sequence[dict[str, Any]]) -> bool:
    """Tell whether the last of several validations of a supervised phase was its best.

    Args:
        scores (Sequence[dict]): ``scores`` of ``summary.json``.

    Returns:
        bool: The answer; False if the phase has fewer than two validations.
    """
    found = {score['iteration']: score['value'] for score in scores if score['phase'] == SUPERVISED}
    return len(found) > 1 and found[max(found)] == max(found.values())


def _value(score: Score) -> float:
    return score.value


def _place(score: Score) -> tuple[str, str, int]:
    return score.phase, score.network, score.iteration


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a copy where the file system has no links."""
    if not source.is_file():
        return
    if target.exists() and target.samefile(source):
        return
    temporary = target.with_name(f'.{target.name}')
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
