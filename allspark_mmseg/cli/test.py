"""Evaluate a checkpoint, and write or show its predictions.

MMSegmentation's tools/test.py runs the same configs. In addition, this script starts several processes
without CUDA and never executes code in a checkpoint.
"""

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from ..engine import end_process_group, prepare_launch
from ..engine.checkpoint import load_checkpoint_file
from ..losses.cross_entropy import use_weighted_loss
from ..prediction import use_tta
from ..trained_model import load_weights, work_dir_of
from ..utils import unwrap_model
from .config_file import merge_options, read_config_file
from .errors import one_sentence


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line. The arguments are the same as in MMSegmentation's tools/test.py.

    Args:
        arguments (list[str], optional): The command line. Default: that of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(description='Test a segmentor')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument(
        '--work-dir',
        help='folder for the metrics; default work_dirs/METHOD/NAME/test for configs/METHOD/NAME.py',
    )
    parser.add_argument('--out', help='folder for the predicted masks')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder for images of the predictions')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between two images of --show')
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: tta_pipeline of the config, or three sizes, each also mirrored',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value, nested keys as a.b.c=value',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(arguments)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def read_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the command line to it.

    Args:
        args (argparse.Namespace): The command line.

    Returns:
        Config: The config of the run.

    Raises:
        ValueError: The config cannot be read, ``--cfg-options`` does not fit it, ``--show`` or
            ``--show-dir`` is used with a config without a visualization hook, or ``--out`` with a metric that
            writes no masks.
    """
    cfg = read_config_file(args.config)
    if args.cfg_options is not None:
        merge_options(cfg, args.cfg_options)
    use_weighted_loss(cfg.get('model'))
    # a folder of its own, because MMEngine writes the config, and its entry in the log, to the work dir
    cfg.work_dir = args.work_dir or str(work_dir_of(Path(args.config), cfg) / 'test')
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        if 'visualization' not in cfg.default_hooks:
            raise ValueError(
                '--show and --show-dir need default_hooks.visualization=dict(type="SegVisualizationHook") '
                f'in {args.config}.'
            )
        cfg.default_hooks.visualization.update(
            draw=True, interval=1, show=args.show, wait_time=args.wait_time
        )
        if args.show_dir:
            # by default, the visualizer writes to a time-stamped folder in the work dir
            cfg.visualizer.update(save_dir=args.show_dir)
    if args.tta:
        use_tta(cfg)
    if args.out:
        _keep_masks(cfg, args.out)
    return cfg


def _keep_masks(cfg: Config, folder: str) -> None:
    """Let the metric write the predicted masks."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list | tuple) else [cfg.test_evaluator]
    kinds = [str(each.type).rpartition('.')[2] for each in evaluators]
    writers = [
        each
        for each, kind in zip(evaluators, kinds, strict=True)
        if kind in ('IoUMetric', 'CityscapesMetric')
    ]
    if not writers:
        raise ValueError(
            f'--out: test_evaluator has {", ".join(kinds)}, expected IoUMetric or CityscapesMetric, which '
            'write the masks. "python -m allspark_mmseg predict" writes masks of a folder.'
        )
    writers[0].update(output_dir=folder, keep_results=True)


def _check_weights(runner: Runner, checkpoint: str) -> None:
    """Refuse the checkpoint of another network, which the runner would load in part."""
    if Path(checkpoint).is_file():  # the runner also takes addresses
        stored = load_checkpoint_file(checkpoint, map_location='cpu')
        load_weights(unwrap_model(runner.model), stored.get('state_dict', stored), checkpoint)


def main(arguments: list[str] | None = None) -> None:
    """Run the evaluation."""
    args = parse_args(arguments)
    with one_sentence('test'):
        cfg = read_config(args)
        prepare_launch(cfg, args.launcher)
        runner = Runner.from_cfg(cfg)
        _check_weights(runner, args.checkpoint)
        runner.test()
        end_process_group()
