"""A trained model from a checkpoint, a config or a work dir, for the commands that predict."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import find_latest_checkpoint
from mmseg.apis import init_model
from mmseg.models import BaseSegmentor
from torch import nn

from .engine.checkpoint import load_checkpoint_file, use_safe_loading
from .engine.scoreboard import CHOSEN
from .engine.startup import default_work_dir
from .losses.cross_entropy import use_weighted_loss
from .methods import SemiSegmentor
from .prediction.pipelines import class_colors, find_test_data
from .utils import dicts_in, join_first

_PREDICTS = {'backbone', 'neck', 'decode_head'}


def find_checkpoint(work_dir: str | Path) -> Path:
    """Find the checkpoint to use in a work dir: the chosen network, the best one, or the last one.

    Args:
        work_dir (str | Path): The work dir of a run.

    Returns:
        Path: ``chosen.pth`` of a run with two phases, else the latest ``best_*.pth``, else the last
        checkpoint.

    Raises:
        FileNotFoundError: The folder has no checkpoint.
    """
    folder = Path(work_dir)
    if (folder / CHOSEN).is_file():
        return folder / CHOSEN
    best = sorted(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    last = best[-1] if best else find_latest_checkpoint(str(folder))
    if last is not None and not Path(last).is_file():
        last = folder / Path(last).name  # the work dir was moved
    if last is None or not Path(last).is_file():
        raise FileNotFoundError(
            f'{folder} has no checkpoint; expected {CHOSEN}, best_*.pth or last_checkpoint. Train first, or '
            'name a checkpoint.'
        )
    return Path(last)


def read_model_config(checkpoint: str | Path) -> Config:
    """Read the config that a checkpoint contains.

    Args:
        checkpoint (str | Path): A checkpoint of a run, or a plain checkpoint of a phase.

    Returns:
        Config: The config.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The checkpoint has no config.
    """
    text = load_checkpoint_file(checkpoint, map_location='cpu').get('meta', {}).get('cfg')
    if not text:
        raise ValueError(
            f'{checkpoint} contains no config (meta.cfg). Name the config, and this file as its checkpoint.'
        )
    return Config.fromstring(text, '.py')


def load_model(
    source: str | Path, checkpoint: str | Path | None = None, device: str | None = None
) -> BaseSegmentor:
    """Build a model and load its weights, for prediction.

    Args:
        source (str | Path): A checkpoint that contains its config (``.pth``), a work dir, or a config
            (``.py``). For a work dir or a config without ``checkpoint``, :func:`find_checkpoint` chooses the
            checkpoint; the work dir of ``configs/METHOD/NAME.py`` is ``work_dirs/METHOD/NAME``, and that of
            ``chosen.py`` is its folder.
        checkpoint (str | Path, optional): The checkpoint for a config.
        device (str, optional): The device. Default: CUDA if there is one, else the CPU.

    Returns:
        BaseSegmentor: The model in evaluation mode, with its config as ``cfg`` and its classes in
        ``dataset_meta``. ``cfg.load_from`` is the path of the checkpoint.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: The checkpoint has no config, cannot be read, or is of another network; or the device
            does not exist.
    """
    source = Path(source)
    device = _check_device(device)
    if not source.exists():
        raise FileNotFoundError(
            f'{source} does not exist; expected a config, a checkpoint or a work dir of a run'
        )
    use_safe_loading()
    if source.suffix == '.py':
        config = Config.fromfile(source)
        path = Path(checkpoint) if checkpoint else find_checkpoint(work_dir_of(source, config))
    else:
        path = find_checkpoint(source) if source.is_dir() else source
        config = read_model_config(path)
    _drop_pretrained(config.model)
    use_weighted_loss(config.model)
    if 'data_preprocessor' in config:  # as MMEngine's Runner does
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    config.load_from = str(path)
    model = init_model(config, device=device)
    stored = load_checkpoint_file(path, map_location='cpu')
    load_weights(model, stored.get('state_dict', stored), path)
    classes = stored.get('meta', {}).get('dataset_meta')
    model.dataset_meta = classes or dict(find_test_data(config).get('metainfo') or {})
    return model


def read_classes(model: BaseSegmentor) -> tuple[list[str], list]:
    """Return names and colors of the classes of a model.

    Args:
        model (BaseSegmentor): A model of ``load_model``.

    Returns:
        tuple[list[str], list]: K names and K RGB colors, of the test data in the config, otherwise of the
        checkpoint. Names that are missing are numbers; colors that are missing are drawn at random.
    """
    count = max(model.num_classes, 2)
    metas = [dict(find_test_data(model.cfg).get('metainfo') or {}), dict(model.dataset_meta or {})]
    named = next((meta for meta in metas if len(meta.get('classes') or ()) == count), {})
    classes = list(named.get('classes') or map(str, range(count)))
    return classes, class_colors(named.get('palette'), count)


def choose_network(model: BaseSegmentor, name: str | None) -> BaseSegmentor:
    """Choose whether the student or the teacher predicts.

    Args:
        model (BaseSegmentor): A plain segmentor or a semi-supervised method, whose ``predict_on`` is changed.
        name (str, optional): ``'student'``, ``'teacher'``, or None for the ``predict_on`` of the config.

    Returns:
        BaseSegmentor: The plain segmentor that predicts.

    Raises:
        ValueError: The model has no teacher, or it is a plain segmentor and ``name`` is given.
    """
    kind = type(model).__name__
    if not isinstance(model, SemiSegmentor):
        if name is not None:
            raise ValueError(
                f'--{name}: the checkpoint holds one network ({kind}), expected a checkpoint of a '
                f'semi-supervised run, such as iter_*.pth. Leave --{name} out.'
            )
        return model
    if name == 'teacher' and model.teacher is None:
        raise ValueError(f'--teacher: the {kind} of the checkpoint has no teacher. Leave --teacher out.')
    model.predict_on = name or model.predict_on
    return model.predictor


def _check_device(device: str | None) -> str:
    """Return the device, by default the accelerator, and refuse one that this machine does not have."""
    device = device or get_device()
    try:
        torch.empty(1, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(
            f'--device {device} cannot be used ({reason}); expected cpu, or an accelerator of this machine.'
        ) from error
    return device


def load_weights(model: nn.Module, state: dict, path: str | Path) -> None:
    """Load weights, and refuse those of another network. MMEngine only warns, and the rest stays random.

    Args:
        model (nn.Module): The model.
        state (dict): Name -> tensor.
        path (str | Path): The file, for the message.

    Raises:
        ValueError: A weight that predicts is missing or has another shape.
    """
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    try:
        keys = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # weights of other shapes, one per line
        wrong = [line.strip().rstrip('.') for line in str(error).splitlines()[1:]]
    else:
        # auxiliary heads and other parts of the training do not predict
        own = {name for name, _ in model.named_parameters() if _PREDICTS.intersection(name.split('.'))}
        wrong = [f'{name} is missing' for name in keys.missing_keys if name in own]
    if wrong:
        raise ValueError(
            f'{path} is a checkpoint of another network than the config: {join_first(wrong, limit=2)}. Name '
            'the config of its training, or the checkpoint alone, which contains its config.'
        )


def work_dir_of(source: Path, config: Config) -> Path:
    """Return the work dir of a config.

    Args:
        source (Path): The config; ``chosen.py`` lies in its work dir.
        config (Config): Its content.

    Returns:
        Path: The work dir.
    """
    if (source.parent / CHOSEN).is_file():
        return source.parent
    return Path(config.get('work_dir') or default_work_dir(str(source)))


def _drop_pretrained(config: object) -> None:
    """Delete ``init_cfg`` in place, because the checkpoint overwrites the initial weights."""
    for node in dicts_in(config):
        node.pop('init_cfg', None)
