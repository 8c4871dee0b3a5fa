"""Checkpoints of a single segmentor, as MMSegmentation itself writes them, and the best network of a run."""

import copy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast, is_main_process
from mmengine.runner import Runner, save_checkpoint, weights_to_cpu
from torch import nn

from ..methods import SemiSegmentor
from ..prediction.pipelines import find_preprocessor
from ..prediction.tta import find_tta
from ..utils import dicts_in, join_first
from .checkpoint import ATOMIC_BACKEND
from .formatted_config import FormattedOnce
from .scoreboard import SUPERVISED, Score, Scoreboard

# keys of a config that evaluation and prediction need
_TEST_KEYS = (
    'default_scope',
    'env_cfg',
    'metainfo',
    'test_pipeline',
    'val_dataloader',
    'val_evaluator',
    'test_dataloader',
    'test_evaluator',
)
_MULTI_VIEW = 'allspark_mmseg.MultiViewSegDataPreProcessor'


def plain_config(cfg: Config) -> Config:
    """Return the config of the student of a semi-supervised config, for testing and prediction.

    Args:
        cfg (Config): Config of a run whose ``model`` is a method with ``segmentor``.

    Returns:
        Config: ``model`` is the plain segmentor with a ``SegDataPreProcessor``; ``val_*`` and ``test_*`` are
        those of the run, with MMEngine's loops.
    """
    model = _without_class_weights(dict(cfg.model.segmentor))
    preprocessor = find_preprocessor(cfg)
    # MMSegmentation's own class has one or three means
    if preprocessor['type'] == _MULTI_VIEW and len(preprocessor.get('mean') or ()) in (0, 1, 3):
        preprocessor['type'] = 'SegDataPreProcessor'
    model['data_preprocessor'] = preprocessor
    parts: dict[str, Any] = {key: cfg[key] for key in _TEST_KEYS if key in cfg}
    if 'val_dataloader' in parts:
        parts['val_cfg'] = dict(type='ValLoop')
    if 'test_dataloader' in parts:
        parts['test_cfg'] = dict(type='TestLoop')
        # whether the training has mirrored images is not in the rest
        parts['tta_model'], parts['tta_pipeline'] = find_tta(cfg)
    return FormattedOnce({**parts, 'model': model})


def _without_class_weights(config: Any) -> Any:
    """Copy a config with MMSegmentation's loss, because prediction needs neither weights nor this package."""
    config = copy.deepcopy(config)
    for node in dicts_in(config):
        if node.get('type') == 'allspark_mmseg.CrossEntropyLoss':
            node.pop('class_weight', None)
            node['type'] = 'CrossEntropyLoss'
    return config


def save_plain_checkpoint(runner: Runner, segmentor: nn.Module, path: Path, meta: dict[str, Any]) -> None:
    """Write the weights of one segmentor, its config and its classes. Training state is not included.

    MMSegmentation's tools load the file with the config that :func:`plain_config` returns.

    Args:
        runner (Runner): The runner.
        segmentor (nn.Module): The student, or the module of the teacher.
        path (Path): File to write.
        meta (dict): Additional entries of ``meta``.
    """
    # copies, because the file is written after the weights could change
    state = {key: value.clone() for key, value in weights_to_cpu(segmentor.state_dict()).items()}
    dataset_meta = getattr(runner.train_dataloader.dataset, 'metainfo', None)
    checkpoint = {
        'meta': {'dataset_meta': dataset_meta, 'cfg': plain_config(runner.cfg).pretty_text, **meta},
        'state_dict': state,
    }
    save_checkpoint(checkpoint, str(path), backend_args=dict(backend=ATOMIC_BACKEND))


def load_best_weights(runner: Runner, segmentor: nn.Module, path: Path) -> None:
    """Load weights that :func:`save_plain_checkpoint` wrote, on all processes.

    Only the main process reads the file, because only its machine may have it. If the file is missing, for
    example after a resume in another work dir, the weights stay as they are.

    Args:
        runner (Runner): The runner.
        segmentor (nn.Module): Segmentor with the same config.
        path (Path): The file.

    Raises:
        RuntimeError: The keys or the shapes differ.
    """
    if is_main_process():
        if path.is_file():
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
            segmentor.load_state_dict(checkpoint['state_dict'])
        else:
            runner.logger.warning(
                f'{path} is missing, so the latest weights take the place of the best ones.'
            )
    for value in segmentor.state_dict().values():
        broadcast(value)


def check_supervised_weights(source: str, checkpoint: dict, model: SemiSegmentor) -> list[str]:
    """Check that a checkpoint has the weights of the student, except those that only the method trains.

    Args:
        source (str): Path of the checkpoint, for the message.
        checkpoint (dict): A checkpoint of a plain segmentor or of a semi-supervised run.
        model (SemiSegmentor): The method.

    Returns:
        list[str]: Keys that the checkpoint lacks although the student predicts with them, for example those
        of AllSpark's bottleneck. They stay random.

    Raises:
        ValueError: A weight has another shape, or the backbone, the neck or the classifier is missing.
    """
    state = {
        key.removeprefix('module.'): value for key, value in checkpoint.get('state_dict', checkpoint).items()
    }
    model.adopt_plain_checkpoint(state)
    found = {
        key.removeprefix('student.'): value for key, value in state.items() if key.startswith('student.')
    }
    own = model.student.state_dict()
    if not any(key.startswith('decode_head.decoder.') for key in found):
        # a plain checkpoint loads into the decoder behind a bottleneck
        own = {key.replace('decode_head.decoder.', 'decode_head.'): value for key, value in own.items()}
    wrong = [
        f'{key} has shape {tuple(found[key].shape)}, expected {tuple(value.shape)}'
        for key, value in own.items()
        if key in found and found[key].shape != value.shape
    ]
    head = model.student.decode_head
    missing = [
        key
        for key in own
        if key not in found
        and key.startswith(('backbone.', 'neck.', 'decode_head.'))
        and not key.endswith('num_batches_tracked')
        and not key.startswith(tuple(f'decode_head.{part}.' for part in getattr(head, 'training_only', ())))
    ]
    needed = [key for key in missing if key.startswith(('backbone.', 'neck.', 'decode_head.conv_seg'))]
    if wrong or needed:
        reason = join_first([*wrong, *(f'{key} is missing' for key in needed)], limit=3)
        raise ValueError(
            f'WarmStartHook: load_from {source} is a checkpoint of another network or of other classes: '
            f'{reason}. Expected a supervised checkpoint of the same segmentor and the same classes. Remove '
            'load_from to train the supervised phase in this run.'
        )
    return missing


def record_scores(
    runner: Runner, model: SemiSegmentor, board: Scoreboard, metrics: dict[str, float], minutes: float
) -> None:
    """Add the scores of a validation to the board, and store the network if it is the best of its phase.

    Args:
        runner (Runner): The runner.
        model (SemiSegmentor): The method.
        board (Scoreboard): The scores so far.
        metrics (dict): Metrics of the validation. Those of the model that does not predict have the prefix
            ``student/`` or ``teacher/``.
        minutes (float): Training time of the run so far.

    Raises:
        KeyError: The metric of the board is not among them.
    """
    phase = SUPERVISED if model.supervised_only else board.method
    predictor = model.predictor_name
    other = 'teacher' if predictor == 'student' else 'student'
    found = {predictor: metrics.get(board.metric), other: metrics.get(f'{other}/{board.metric}')}
    scores = [
        Score(phase, network, runner.iter, round(minutes, 3), round(float(value), 4))
        for network, value in found.items()
        if value is not None
    ]
    if not scores:
        raise KeyError(
            f'WarmStartHook: metric is {board.metric!r}, but the validation has {sorted(metrics)}. Set '
            'metric to one of them.'
        )
    board.add(*scores)
    best = board.best(phase)
    if is_main_process():
        if best in scores:
            meta = dict(phase=phase, network=best.network, iter=best.iteration, metric=best.value)
            save_plain_checkpoint(runner, model.networks[best.network], board.work_dir / f'{phase}.pth', meta)
        board.save()
