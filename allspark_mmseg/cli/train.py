"""Train a segmentor on labeled images, or on labeled and unlabeled images.

MMSegmentation's tools/train.py runs the same configs. In addition, this script starts several processes
without CUDA, can scale the learning rate, resumes from a given checkpoint, and never executes code in a
checkpoint.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..engine import (
    default_work_dir,
    end_process_group,
    find_last_checkpoint,
    lock_work_dir,
    prepare_launch,
)
from ..engine.hooks import StopSignalHook
from ..engine.schedule_length import scale_schedule, training_length
from ..engine.scoreboard import SUPERVISED
from ..losses.cross_entropy import use_weighted_loss
from .config_file import merge_options, read_config_file, require_keys
from .errors import one_sentence


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line. The arguments are the same as in MMSegmentation's and MMDetection's tools.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(description='Train a segmentor')
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--work-dir',
        help='folder for logs and checkpoints; default work_dirs/METHOD/NAME for configs/METHOD/NAME.py',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from the last checkpoint in the work dir, or from the given one',
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=['auto', 'bf16', 'fp16'],
        help='train with automatic mixed precision: bfloat16 if the device supports it, or the given type',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by (images per step here) / (images per step of the config)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value, nested keys as a.b.c=value; another '
        'train_cfg.max_epochs or max_iters also scales the learning-rate schedule',
    )
    parser.add_argument(
        '--allow-new-batch',
        action='store_true',
        help='resume with another number of images per step than before',
    )
    parser.add_argument(
        '--control',
        action='store_true',
        help='train the second phase without the losses of unlabeled images, in WORK_DIR_control, from the '
        'supervised network of the run in WORK_DIR if it is there',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(_complete_options(sys.argv[1:] if arguments is None else arguments))
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def _complete_options(arguments: list[str]) -> list[str]:
    """Support ``--resume CONFIG`` and ``--amp CONFIG``, as in MMSegmentation, where they have no value."""
    return [
        f'{argument}=auto'
        if argument in ('--resume', '--amp') and next_argument.endswith('.py')
        else argument
        for argument, next_argument in zip(arguments, [*arguments[1:], ''], strict=True)
    ]


def read_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the command line to it.

    Args:
        args (argparse.Namespace): The command line.

    Returns:
        Config: The config of the run.

    Raises:
        ValueError: The config cannot be read or describes no training, or an option does not fit it or the
            device.
    """
    cfg = read_config_file(args.config)
    if args.cfg_options is not None:
        length = training_length(cfg)
        merge_options(cfg, args.cfg_options)
        own_schedule = any(key.startswith('param_scheduler') for key in args.cfg_options)
        if not own_schedule and (change := scale_schedule(cfg, length)):
            print(f'--cfg-options: {change}')
    if count := use_weighted_loss(cfg.get('model')):  # the options can set class weights
        print(
            f"class_weight: {count} loss(es) are allspark_mmseg.CrossEntropyLoss instead of MMSegmentation's."
        )
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config)
    if args.control:
        _use_control(cfg, args.config)
    if args.amp:
        use_mixed_precision(cfg, args.amp)
    if args.allow_new_batch:
        _allow_new_batch(cfg, args.config)
    if args.auto_scale_lr:
        _enable_auto_scale_lr(cfg, args.config)
    _choose_checkpoint(cfg, args.resume)
    return cfg


def _use_control(cfg: Config, config: str) -> None:
    phases = [hook for hook in cfg.get('custom_hooks', []) if str(hook.get('type')).endswith('WarmStartHook')]
    if not phases:
        raise ValueError(
            f'--control: {config} has no WarmStartHook, so it has no second phase. Omit the option, or '
            'compare with a supervised run.'
        )
    phases[0].control = True
    supervised = Path(cfg.work_dir, f'{SUPERVISED}.pth')
    if supervised.is_file() and not cfg.get('load_from'):
        cfg.load_from = str(supervised)
    cfg.work_dir = f'{cfg.work_dir.rstrip("/")}_control'


def _allow_new_batch(cfg: Config, config: str) -> None:
    if 'exact_resume' not in cfg.get('default_hooks', {}):
        raise ValueError(f'--allow-new-batch: {config} has no default_hooks.exact_resume. Omit the option.')
    cfg.default_hooks.exact_resume.allow_new_batch = True


def _enable_auto_scale_lr(cfg: Config, config: str) -> None:
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError(
            f'--auto-scale-lr: {config} has no auto_scale_lr.base_batch_size. Set it to the number '
            'of images per step, over all processes, for which the learning rate was chosen.'
        )
    cfg.auto_scale_lr.enable = True


def _choose_checkpoint(cfg: Config, resume: str | None) -> None:
    if resume is None and cfg.get('resume'):  # with MMEngine's meaning
        resume = cfg.get('load_from') or 'auto'
    if resume == 'auto':
        # the Runner would resume from load_from, which has only weights
        found = find_last_checkpoint(cfg.work_dir)
        resume = None if found is None else str(found)
        if resume is None:
            print(f'--resume: {cfg.work_dir} has no checkpoint. The run starts at the beginning.')
    cfg.resume = resume is not None
    if resume is not None:
        cfg.load_from = resume


def use_mixed_precision(cfg: Config, kind: str) -> None:
    """Replace the optimizer wrapper by one with mixed precision.

    Args:
        cfg (Config): The config. It is changed in place.
        kind (str): ``'auto'``, ``'bf16'`` or ``'fp16'``. ``'auto'`` is bf16 if the device supports it.

    Raises:
        ValueError: The config has another optimizer wrapper, or fp16 is used without an accelerator.
    """
    wrapper, device = cfg.optim_wrapper, get_device()
    if wrapper.type != 'OptimWrapper':
        raise ValueError(
            f'--amp: optim_wrapper.type is {wrapper.type}, expected OptimWrapper. Remove --amp or change the '
            'type.'
        )
    if kind == 'auto':
        slow = device == 'cuda' and not torch.cuda.is_bf16_supported(including_emulation=False)
        kind = 'fp16' if slow else 'bf16'
    if kind == 'bf16':
        wrapper.type = 'allspark_mmseg.BFloat16OptimWrapper'
    elif device == 'cpu':
        raise ValueError(
            '--amp fp16 needs an accelerator, but this machine has none. Use --amp bf16 instead.'
        )
    else:
        wrapper.update(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')


def main(arguments: list[str] | None = None) -> None:
    """Run the training."""
    args = parse_args(arguments)
    with one_sentence('train'):
        cfg = read_config(args)
        require_keys(cfg, args.config)
        with lock_work_dir(cfg.work_dir, args.launcher):
            prepare_launch(cfg, args.launcher)
            # as in MMSegmentation's tools/train.py; FSDP needs runner_type='FlexibleRunner'
            runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
            try:
                runner.train()
            except RuntimeError as error:
                for hook in runner.hooks:
                    if isinstance(hook, StopSignalHook):
                        hook.save_without_workers(runner, error)
                raise
            end_process_group()
