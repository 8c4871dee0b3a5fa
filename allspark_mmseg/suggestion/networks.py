"""The networks that judge the images: the teacher and the student, or the networks of two phases."""

import filecmp
import json
from dataclasses import dataclass
from pathlib import Path

from mmseg.models import BaseSegmentor
from torch import nn

from ..engine.scoreboard import SUMMARY, SUPERVISED
from ..methods import SemiSegmentor
from ..trained_model import load_model


@dataclass(frozen=True)
class Network:
    """A segmentor that predicts.

    Attributes:
        name (str): ``'teacher'``, ``'student'`` or the name of the file.
        file (Path): Its checkpoint.
        segmentor (BaseSegmentor): An ``EncoderDecoder``.
        preprocessor (nn.Module): Its data preprocessor.
    """

    name: str
    file: Path
    segmentor: BaseSegmentor
    preprocessor: nn.Module


def find_networks(model: BaseSegmentor, checkpoint: Path) -> list[Network]:
    """Return the network that labels the images, and a second one for the disagreement if there is one.

    Args:
        model (BaseSegmentor): What :func:`allspark_mmseg.trained_model.load_model` returned.
        checkpoint (Path): Its checkpoint.

    Returns:
        list[Network]: Teacher and student, if the checkpoint has both and the teacher has been trained. Else
        the network of the checkpoint, and the network of the other phase of its run, if its folder has one.
    """
    if isinstance(model, SemiSegmentor):
        # the teacher of a supervised phase has not been updated
        if model.teacher is not None and int(model.teacher.steps):
            pair = {'teacher': model.teacher.module, 'student': model.student}
            return [Network(name, checkpoint, part, model.data_preprocessor) for name, part in pair.items()]
        return [Network('student', checkpoint, model.student, model.data_preprocessor)]
    first = Network(checkpoint.name, checkpoint, model, model.data_preprocessor)
    other = _other_phase(checkpoint)
    if other is None:
        return [first]
    device = str(next(model.parameters()).device)
    second = load_model(other, device=device)
    return [first, Network(other.name, other, second, second.data_preprocessor)]


def _other_phase(checkpoint: Path) -> Path | None:
    """Return the plain checkpoint of the other phase of a run, whose content differs."""
    summary = checkpoint.parent / SUMMARY
    if not summary.is_file():
        return None
    scores = json.loads(summary.read_text()).get('scores', [])
    phases = dict.fromkeys([SUPERVISED, *(score['phase'] for score in scores)])
    files = [checkpoint.parent / f'{phase}.pth' for phase in phases]
    if checkpoint.resolve().name not in {'chosen.pth', *(file.name for file in files)}:
        return None
    for file in files:
        if file.is_file() and not filecmp.cmp(file, checkpoint, shallow=False):
            return file
    return None


def describe(networks: list[Network]) -> str:
    """Return one sentence that says which networks are used for what.

    Args:
        networks (list[Network]): Result of :func:`find_networks`.
    """
    first, *rest = networks
    source = '' if first.name == first.file.name else f' of {first.file.name}'
    if not rest:
        return (
            f'Uncertainty and masks: {first.name}{source}. There is no second network, so disagreement is '
            'not used.'
        )
    return (
        f'Uncertainty and masks: {first.name}{source}. Disagreement: between {first.name} and '
        f'{rest[0].name}{source}.'
    )
