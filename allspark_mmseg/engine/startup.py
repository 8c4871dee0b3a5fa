"""Begin and end of a launch: work dir, safe loading, and distributed training without an accelerator."""

from datetime import timedelta
from pathlib import Path

import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log

from ..utils import dicts_in
from .checkpoint import use_safe_loading


def default_work_dir(config: str) -> str:
    """Return the default work dir of a config.

    It is ``work_dirs/METHOD/NAME`` for ``configs/METHOD/NAME.py`` and ``work_dirs/NAME`` for other paths.
    MMSegmentation uses only NAME, which is the same for all methods on the same data set and split.

    Args:
        config (str): Path of the config.

    Returns:
        str: Relative path of the work dir.
    """
    path = Path(config).resolve()
    folders = [folder for folder in path.parents if folder.name == 'configs']
    return str('work_dirs' / (path.relative_to(folders[0]) if folders else Path(path.name)).with_suffix(''))


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Adapt a config and this process to the machine, before the runner is built.

    The function always enables safe loading of checkpoints. Without an accelerator, several processes use the
    gloo backend instead of MMEngine's default, and SyncBN, which needs CUDA, is replaced by BN.

    Args:
        cfg (Config): The config. It is changed in place.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        ValueError: ``launcher`` is ``'slurm'`` or ``'mpi'`` on a machine without an accelerator.
    """
    cfg.launcher = launcher
    use_safe_loading()
    if launcher == 'none' or get_device() != 'cpu':
        return
    if launcher != 'pytorch':
        raise ValueError(
            f'--launcher {launcher} needs an accelerator, but this machine has none. Use tools/dist_train.sh '
            'or tools/dist_test.sh (--launcher pytorch) instead.'
        )
    # the runner does not request CUDA if the process group exists
    torch.distributed.init_process_group('gloo', timeout=_timeout(cfg))
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, 'device_ids': None}
    if _replace_sync_bn(cfg.model) or cfg.get('sync_bn'):
        cfg.sync_bn = None
        message = 'No accelerator: SyncBN becomes BN. Each process normalizes with its own images.'
        print_log(message, 'current')


def end_process_group() -> None:
    """End the process group, if there is one. Otherwise its threads can abort the process when it exits."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _timeout(cfg: Config) -> timedelta | None:
    seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
    return None if seconds is None else timedelta(seconds=seconds)


def _replace_sync_bn(config: object) -> int:
    """Replace SyncBN by BN in a config, in place, and return the number of replacements."""
    found = [node for node in dicts_in(config) if node.get('type') == 'SyncBN']
    for node in found:
        node['type'] = 'BN'
    return len(found)
