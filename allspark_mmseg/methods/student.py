"""Helpers for the student of a semi-supervised method: checks, data preprocessor, checkpoint keys, mode."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmseg.models.decode_heads import DAHead, DDRHead, EncHead, IterativeDecodeHead, PIDHead
from torch import Tensor, nn

# heads whose forward returns more than logits
_UNSUPPORTED_HEADS = (DAHead, DDRHead, EncHead, IterativeDecodeHead, PIDHead)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Keep a module in eval mode, then restore the mode of each submodule (frozen norms stay so)."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def multi_view_preprocessor(
    wrapper: Mapping | nn.Module | None, segmentor: Mapping | None
) -> Mapping | nn.Module:
    """Choose the data preprocessor of a method.

    Args:
        wrapper (dict or nn.Module, optional): ``data_preprocessor`` of the method.
        segmentor (dict, optional): ``data_preprocessor`` of the student.

    Returns:
        dict or nn.Module: ``wrapper``, unless it is None or MMSegmentation's ``SegDataPreProcessor``. In that
        case the config of a ``MultiViewSegDataPreProcessor`` with the arguments of ``segmentor``, or of
        ``wrapper`` when the student has none.
    """
    stock = (None, 'SegDataPreProcessor', 'mmseg.SegDataPreProcessor')
    if wrapper is not None and not (isinstance(wrapper, Mapping) and wrapper.get('type') in stock):
        return wrapper
    return {**(segmentor or wrapper or {}), 'type': 'allspark_mmseg.MultiViewSegDataPreProcessor'}


def check_decode_head(method: str, segmentor: nn.Module) -> None:
    """Check that the student computes its logits as ``decode_head(features)``, one channel per class.

    Args:
        method (str): Name of the method, for the message.
        segmentor (nn.Module): The student.

    Raises:
        ValueError: The decode head needs more than features, returns more than logits, has a number of
            output channels other than the number of classes, or only one.
    """
    head: Any = getattr(segmentor, 'decode_head', None)
    decoder: Any = getattr(head, 'decoder', head)  # the head behind an AllSpark bottleneck
    if (
        not hasattr(head, 'loss_by_feat')
        or isinstance(decoder, _UNSUPPORTED_HEADS)
        or len(_required_arguments(decoder.forward)) != 1
    ):
        raise ValueError(
            f'{method}: segmentor is a {type(segmentor).__name__} whose decode_head is a '
            f'{type(decoder).__name__}; expected an EncoderDecoder with one decode head that makes logits, '
            'and nothing else, from features alone (no cascade, no mask classification).'
        )
    if head.out_channels != head.num_classes:
        # the softmax of a single channel is always 1, so its cross-entropy is always 0
        raise ValueError(
            f'{method}: the decode head has out_channels={head.out_channels} for num_classes='
            f'{head.num_classes}, expected a channel for each class; for two classes remove out_channels '
            'and use_sigmoid.'
        )
    if head.out_channels < 2:
        raise ValueError(
            f'{method}: the decode head has num_classes={head.num_classes}, expected at least 2, because '
            'pseudo-labels compare the classes; make the background a class.'
        )


def check_feature_maps(method: str, features: Sequence[object], head: nn.Module) -> None:
    """Check that features are maps. Channels of other features cannot be dropped.

    Args:
        method (str): Name of the method, for the message.
        features (Sequence): The features that enter the decode head, level by level.
        head (nn.Module): The decode head, for the message.

    Raises:
        ValueError: A level is not a tensor (N, C, h, w).
    """
    unsupported = {
        level: tuple(feature.shape) if isinstance(feature, Tensor) else type(feature).__name__
        for level, feature in enumerate(features)
        if not (isinstance(feature, Tensor) and feature.ndim == 4)
    }
    if unsupported:
        raise ValueError(
            f'{method} drops channels from the features, but the features of the {type(head).__name__} '
            f'are, by level, {unsupported}; expected maps (N, C, h, w). Use a backbone without class tokens '
            '(output_cls_token=False), or FixMatch, which perturbs only images.'
        )


def adopt_plain_state(state_dict: dict, prefix: str, teacher_steps: Tensor | None) -> None:
    """Convert the state dict of a plain segmentor to the state dict of a method, in place.

    Plain keys become keys of the student. If the method has a teacher and the state dict has none, the
    teacher gets the values of the student. Keys of a student or a teacher do not change.

    Args:
        state_dict (dict): Key -> tensor.
        prefix (str): Prefix of the method's keys.
        teacher_steps (Tensor, optional): The teacher's step counter; None for a method without a teacher.
    """
    own = [key for key in state_dict if key.startswith(prefix)]
    student, teacher = f'{prefix}student.', f'{prefix}teacher.'
    if own and not any(key.startswith(student) for key in own):
        for key in own:
            state_dict[student + key[len(prefix) :]] = state_dict.pop(key)
    if own and teacher_steps is not None and not any(key.startswith(teacher) for key in own):
        for key in [key for key in state_dict if key.startswith(student)]:
            state_dict[f'{teacher}module.{key[len(student) :]}'] = state_dict[key]
        state_dict[f'{teacher}steps'] = torch.zeros_like(teacher_steps)


def _required_arguments(function: Callable) -> list[inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return [each for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
