"""What MMSegmentation's launchers lack: distributed training without an accelerator, safe loading."""

from pathlib import Path

import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log

from .checkpoint import use_safe_loading


def default_work_dir(config: str) -> str:
    """``work_dirs/METHOD/NAME`` for a config ``configs/METHOD/NAME.py``, ``work_dirs/NAME`` for any other.

    MMSegmentation takes the name alone, which the configs of all methods for one data set and split share.
    """
    path = Path(config).resolve()
    folders = [folder for folder in path.parents if folder.name == 'configs']
    return str('work_dirs' / (path.relative_to(folders[0]) if folders else Path(path.name)).with_suffix(''))


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Adapt a config and this process to the machine, before the Runner is built.

    On a machine with an accelerator only the loading of checkpoints changes. Without one, several
    processes talk over gloo (MMEngine would ask for CUDA) and SyncBN, which needs CUDA, becomes BN.

    Args:
        cfg: the config; changed in place.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        ValueError: a launcher other than ``pytorch`` on a machine without an accelerator.
    """
    cfg.launcher = launcher
    use_safe_loading()
    if launcher == 'none' or get_device() != 'cpu':
        return
    if launcher != 'pytorch':
        raise ValueError(
            f'--launcher {launcher} needs an accelerator, none was found; without one use '
            'tools/dist_train.sh or tools/dist_test.sh (--launcher pytorch).'
        )
    # with a process group in place the Runner does not ask for CUDA
    torch.distributed.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, 'device_ids': None}
    if _without_sync_bn(cfg.model) or cfg.get('sync_bn'):
        cfg.sync_bn = None
        print_log('No accelerator: SyncBN becomes BN, each process normalizes by its own images.', 'current')


def _without_sync_bn(node) -> int:
    """Replace SyncBN by BN in a config, in place; return how many were replaced."""
    if isinstance(node, dict):
        own = node.get('type') == 'SyncBN'
        if own:
            node['type'] = 'BN'
        return own + sum(_without_sync_bn(value) for value in node.values())
    if isinstance(node, list | tuple):
        return sum(_without_sync_bn(value) for value in node)
    return 0
