"""Everything that a report needs: groups of runs, the verdict, and the scores of their networks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmseg.datasets import BaseSegDataset

from ..utils import message_of
from .evaluate import Evaluation, evaluate
from .groups import Group, group_runs
from .networks import Network, build_val_dataset, check_same_data, find_networks
from .runs import Run
from .verdict import Verdict, judge

_PICTURED = 5  # networks in a row of pictures
# what a config, a data set or a checkpoint of a user can raise; the report then says so and goes on
_PROBLEMS = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)


@dataclass
class Report:
    """The content of a report.

    Attributes:
        groups (list[Group]): The runs.
        verdict (Verdict): The comparison.
        dataset (BaseSegDataset, optional): The validation set, or None if it could not be read.
        evaluations (list[Evaluation]): The scores of all networks on it.
        problems (list[str]): What is missing, and why.
        unread (bool): The validation images of a trained network could not be read.
    """

    groups: list[Group]
    verdict: Verdict
    dataset: BaseSegDataset | None = None
    evaluations: list[Evaluation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unread: bool = False

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for group in self.groups for run in group.runs]

    @property
    def lead(self) -> Group:
        """The group that the verdict is about."""
        return next(group for group in self.groups if group.name == self.verdict.group)

    def of(self, group: Group, *, supervised: bool) -> list[Evaluation]:
        """Return the evaluations of one phase of a group."""
        runs = [id(run) for run in group.runs]
        return [
            each
            for each in self.evaluations
            if id(each.network.run) in runs and each.network.supervised is supervised
        ]

    def before_and_after(self) -> tuple[list[Evaluation], list[Evaluation]]:
        """Return the evaluations that the verdict compares: supervised, and semi-supervised.

        Returns:
            tuple[list[Evaluation], list[Evaluation]]: Either can be empty.
        """
        after = self.of(self.lead, supervised=False)
        before = self.of(self.lead, supervised=True)
        if before or not after:
            return before, after
        others = [group for group in self.groups if not group.semi_supervised]
        best = max(others, key=lambda group: group.mean_best, default=None)
        return (self.of(best, supervised=True) if best else []), after

    def shown(self) -> list[Evaluation]:
        """Return one evaluation of each kind, for pictures: supervised first, the leading method last."""
        before, after = self.before_and_after()
        others = [
            self.of(group, supervised=not group.semi_supervised)[:1]
            for group in self.groups
            if group is not self.lead
        ]
        found = [*before[:1], *(each for other in others for each in other), *after[:1]]
        return list({id(each): each for each in found}.values())

    def pictured(self) -> list[Evaluation]:
        """Return those of :meth:`shown` that fit beside each other in a row of pictures."""
        shown = self.shown()
        return [*shown[:-1][: _PICTURED - 1], *shown[-1:]]


def collect(runs: Sequence[Run], device: str | None = None, logs_only: bool = False) -> Report:
    """Compare the runs, and evaluate their networks.

    Args:
        runs (Sequence[Run]): The runs, at least one.
        device (str, optional): Where to run the models. Default: CUDA if there is one, else the CPU.
        logs_only (bool): Do not run any network.

    Returns:
        Report: The content. What could not be evaluated is in ``problems``.
    """
    groups = group_runs(runs)
    report = Report(groups, judge(groups))
    if logs_only:
        report.problems.append('The networks were not evaluated (--logs-only).')
        return report
    phase = 'Supervised' if all(group.semi_supervised for group in groups) else 'Supervised phase'
    for run in report.runs:
        networks = find_networks(run, phase)
        if not networks:
            report.problems.append(f'{run.work_dir} has no checkpoint yet, so its network was not evaluated.')
            continue
        try:
            dataset = build_val_dataset(run.config, run.work_dir)
            if report.dataset is None:
                report.dataset = dataset
            first = report.runs[0].work_dir
            check_same_data(report.dataset, dataset, str(first), str(run.work_dir))
        except _PROBLEMS as error:
            report.problems.append(f'{run.work_dir} was not evaluated: {describe(error)}')
            report.unread = True
            continue
        for network in networks:
            _evaluate(report, network, device)
    return report


def _evaluate(report: Report, network: Network, device: str | None) -> None:
    assert report.dataset is not None
    try:
        report.evaluations.append(evaluate(network, report.dataset, device))
    except _PROBLEMS as error:
        report.problems.append(f'{network.checkpoint} was not evaluated: {describe(error)}')


def describe(error: BaseException) -> str:
    """Return the first line of the message of an error."""
    text = message_of(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
