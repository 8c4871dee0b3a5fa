"""Files of an earlier run in the work dir of a new one."""

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from .scoreboard import CHOSEN, SUMMARY

# what a run continues from, and what is taken for its result
_FILES = ('*.pth', 'last_checkpoint', SUMMARY, str(Path(CHOSEN).with_suffix('.py')))


def set_aside_earlier_run(runner: Runner) -> None:
    """Move the checkpoints and scores of an earlier run out of the way of a run that starts from iteration 0.

    Otherwise a later ``--resume`` could continue from a checkpoint of the earlier run, or take its best
    network for that of this run. The files go to the folder of the earlier run's log.

    Args:
        runner (Runner): The runner, before its first iteration.
    """
    if runner.iter or not is_main_process():
        return
    folder = Path(runner.work_dir)
    loaded = Path(runner._load_from).resolve() if runner._load_from else None
    files = [path for pattern in _FILES for path in sorted(folder.glob(pattern)) if path.resolve() != loaded]
    if not files:
        return
    logs = sorted(path.parent for path in folder.glob('*/vis_data') if path.parent.name != runner.timestamp)
    target = logs[-1] if logs else folder / f'before_{runner.timestamp}'
    target.mkdir(exist_ok=True)
    for path in files:
        path.replace(target / path.name)
    runner.logger.warning(
        f'{folder} has files of an earlier run. This run starts from iteration 0, so they were moved to '
        f'{target}: {", ".join(path.name for path in files)}'
    )
