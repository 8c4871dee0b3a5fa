"""Trainings as the report sees them: method, phases, best values and state."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..engine.scoreboard import SUMMARY, SUPERVISED, still_improving
from .logs import Curve, LogText, read_curves, read_log_text

# a log without a new line for this long belongs to a training that stopped
_IDLE_SECONDS = 900


@dataclass(frozen=True)
class Best:
    """The best validation of a phase.

    Attributes:
        value (float): The metric, in percent.
        iteration (int): Its iteration.
        network (str): ``'student'`` or ``'teacher'``, or ``''`` if the log does not say.
    """

    value: float
    iteration: int
    network: str = ''


@dataclass
class Run:
    """One training.

    Attributes:
        work_dir (Path): Its work dir.
        label (str): A name that the user gave, or ``''``.
        config (Config): The config; empty if there is none.
        config_text (str): The config as text, or ``''``.
        summary (dict): Content of ``summary.json``; empty for a run without two phases.
        curves (dict): Name in the log -> iteration -> value.
        log (LogText): Facts from the text of the log.
        name (str): The name of its group, see ``groups.group_runs``.
    """

    work_dir: Path
    label: str
    config: Config
    config_text: str
    summary: dict[str, Any]
    curves: dict[str, Curve]
    log: LogText
    name: str = ''

    @cached_property
    def method(self) -> str:
        """Class of the method, without the package. A plain segmentor is ``'Supervised'``."""
        model = self.config.get('model', {})
        return model.type.rsplit('.', 1)[-1] if 'segmentor' in model else 'Supervised'

    @property
    def semi_supervised(self) -> bool:
        """Whether the run learns from unlabeled images."""
        return self.method != 'Supervised'

    @property
    def control(self) -> bool:
        """Whether the second phase has no losses of unlabeled images."""
        return bool(self.summary.get('control'))

    @property
    def still_improving(self) -> bool:
        """Whether the supervised phase ended at its best validation."""
        return still_improving(self.summary.get('scores', ()))

    @property
    def metric(self) -> str:
        """Name of the metric, such as ``'mIoU'``."""
        phase = self.summary.get(SUPERVISED) or self.summary.get(self.method) or {}
        return next(iter(phase), 'mIoU')

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the config, or an empty list."""
        return list(self.metainfo.get('classes') or ())

    @property
    def metainfo(self) -> dict[str, Any]:
        """Classes and palette in the config, or an empty dict."""
        dataset = self.config.get('val_dataloader', {}).get('dataset', {})
        return dataset.get('metainfo') or self.config.get('metainfo') or {}

    @property
    def seed(self) -> str:
        """The seed, or ``''``."""
        seed = self.config.get('randomness', {}).get('seed')
        return self.log.environment.get('seed', '') if seed is None else str(seed)

    def phase(self, name: str) -> Best | None:
        """Return the best validation of a phase of ``summary.json``, or None."""
        entry = self.summary.get(name)
        if not entry:
            return None
        return Best(entry[self.metric], entry['iteration'], entry.get('network', ''))

    @property
    def supervised(self) -> Best | None:
        """The best validation of the supervised phase, or of a supervised run."""
        return self.phase(SUPERVISED) if self.semi_supervised else self.logged_best

    @property
    def best(self) -> Best | None:
        """The best validation of the semi-supervised phase, of a run without phases, or None."""
        return self.phase(self.method) if self.summary else self.logged_best

    @property
    def logged_best(self) -> Best | None:
        """The best validation in the log, or None."""
        candidates = [
            Best(value, iteration, network)
            for network, curve in self.scores().items()
            for iteration, value in curve.items()
        ]
        return max(candidates, key=lambda best: best.value, default=None)

    @property
    def gain(self) -> float | None:
        """Best value of the semi-supervised phase minus that of the supervised one, or None."""
        if not self.summary or not self.supervised or not self.best:
            return None
        return self.best.value - self.supervised.value

    @property
    def predictor(self) -> str:
        """The network that the log's metrics without a prefix are of, in the semi-supervised phase."""
        if not self.semi_supervised:
            return ''
        return (
            'teacher' if f'student/{self.metric}' in self.curves else self.config.model.get('predict_on', '')
        )

    def scores(self) -> dict[str, Curve]:
        """Return the validations of a run without phases: network (``''``: the only one) -> curve."""
        found = {
            name.removesuffix(self.metric).rstrip('/'): curve
            for name, curve in self.curves.items()
            if name in (self.metric, f'student/{self.metric}', f'teacher/{self.metric}')
        }
        return {network or self.predictor: curve for network, curve in found.items()}

    @property
    def state(self) -> str:
        """``'finished'``, ``'training'``, ``'stopped'`` or ``'not started'``."""
        if not self.log.total:
            return 'not started'
        if self.log.ended or self._has_last_checkpoint():
            return 'finished'
        running = self.log.seconds_ago < _IDLE_SECONDS and not self.log.stopped
        return 'training' if running else 'stopped'

    @property
    def position(self) -> str:
        """How far the training is: the last logged iteration and the number of iterations."""
        text = f'iteration {self.log.step} of {self.log.total}'
        return text if self.log.epoch is None else f'epoch {self.log.epoch}, {text}'

    def _has_last_checkpoint(self) -> bool:
        pointer = self.work_dir / 'last_checkpoint'
        if not pointer.is_file():
            return False
        end = f'iter_{self.log.total}'
        if self.log.epoch is not None:
            end = f'epoch_{self.config.get("train_cfg", {}).get("max_epochs")}'
        return Path(pointer.read_text().strip()).stem == end

    @property
    def memory(self) -> float | None:
        """Highest memory of the accelerator in MiB, or None if it was not logged."""
        return max(self.curves.get('memory', {}).values(), default=None)


def _has_trained(config: Path) -> bool:
    scalars = config.with_name('scalars.json')
    return scalars.is_file() and '"loss"' in scalars.read_text()


def read_run(work_dir: str | Path, label: str = '') -> Run:
    """Read a work dir.

    Args:
        work_dir (str | Path): The work dir. The training can still run.
        label (str): Name to show.

    Returns:
        Run: The run. What the work dir lacks is empty.

    Raises:
        FileNotFoundError: It is not the work dir of a training.
    """
    folder = Path(work_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is not a folder; expected the work dir of a training')
    curves = read_curves(folder)
    summary_file = folder / SUMMARY
    summary = json.loads(summary_file.read_text()) if summary_file.is_file() else {}
    if not curves and not summary:
        raise FileNotFoundError(
            f'{folder} has neither {SUMMARY} nor */vis_data/scalars.json with values; expected the work dir '
            'of a training that has logged at least once'
        )
    configs = [*sorted(folder.glob('*/vis_data/config.py')), *sorted(folder.glob('*.py'))]
    # MMSegmentation's test tool leaves a config here, too
    starts = [path for path in configs if path.parent != folder and _has_trained(path)]
    path = [*configs, *starts][-1] if configs else None
    config = Config.fromfile(path) if path else Config()
    return Run(
        folder, label, config, path.read_text() if path else '', summary, curves, read_log_text(folder)
    )
