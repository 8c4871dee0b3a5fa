"""Runs that differ only in the seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean

from .runs import Best, Run

# keys in which two runs with other seeds, or on other machines, differ
_VOLATILE = ('work_dir', 'launcher', 'resume', 'load_from', 'randomness', 'experiment_name', 'local_rank')


@dataclass
class Group:
    """Runs that differ only in the seed.

    Attributes:
        name (str): Name to show.
        runs (list[Run]): The runs.
    """

    name: str
    runs: list[Run] = field(default_factory=list)

    def values(self, key: str) -> list[float]:
        """Return a value of each run that has it: ``'supervised'``, ``'best'`` or ``'gain'``."""
        found = [getattr(run, key) for run in self.runs]
        return [value.value if isinstance(value, Best) else value for value in found if value is not None]

    @property
    def semi_supervised(self) -> bool:
        """Whether the runs learn from unlabeled images."""
        return self.runs[0].semi_supervised

    @property
    def control(self) -> bool:
        """Whether the second phase of the runs has no losses of unlabeled images."""
        return self.runs[0].control

    @property
    def mean_best(self) -> float:
        """Mean of the best values, or minus infinity if there is none."""
        values = self.values('best')
        return mean(values) if values else float('-inf')


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put runs with equal labels, or without label and with configs that differ only in the seed, together.

    The name of a group is its label, else the method, and the name of the work dir if another group has the
    same method.

    Args:
        runs (Sequence[Run]): The runs. Their ``name`` is set.

    Returns:
        list[Group]: The groups, in the order of their first runs.
    """
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(run.label or _fingerprint(run), []).append(run)
    methods = [
        group[0].label or group[0].method + (', control' if group[0].control else '')
        for group in members.values()
    ]
    groups = []
    for method, group in zip(methods, members.values(), strict=True):
        alone = methods.count(method) == 1
        name = method if alone else f'{method} ({group[0].work_dir.name})'
        for run in group:
            run.name = name
        groups.append(Group(name, group))
    return groups


def _fingerprint(run: Run) -> str:
    if not run.config_text:
        return f'{run.method} {run.work_dir}'
    return repr({key: value for key, value in sorted(run.config.items()) if key not in _VOLATILE})
