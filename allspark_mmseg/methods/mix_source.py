"""The source of the images that CutMix pastes in FixMatch, UniMatch and UniMatch V2."""

from collections.abc import Sequence
from contextlib import nullcontext

from ..mixing import MixSource
from ..thresholds import ConfidenceThreshold
from ..utils import require
from .semi_segmentor import SemiSegmentor
from .student import eval_mode
from .views import Samples, Views

MIX_SOURCES = ('batch', 'same_image')


def check_mix_source(owner: str, mix_source: str) -> None:
    """Check the argument ``mix_source``.

    Args:
        owner (str): Name of the method, for the message.
        mix_source (str): The argument.

    Raises:
        ValueError: It is not one of ``MIX_SOURCES``.
    """
    require(owner, 'mix_source', mix_source, mix_source in MIX_SOURCES, f'one of {MIX_SOURCES}')


def views_for(mix_source: str, strong_views: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the views that a method needs.

    Args:
        mix_source (str): One of ``MIX_SOURCES``.
        strong_views (Sequence[str]): Names of the strong views.

    Returns:
        tuple[str, ...]: ``labeled``, ``weak`` and the strong views; for ``'same_image'`` also a ``mix_*``
        view for each unlabeled one.
    """
    unlabeled = ('weak', *strong_views)
    mixed = tuple(f'mix_{view}' for view in unlabeled) if mix_source == 'same_image' else ()
    return ('labeled', *unlabeled, *mixed)


def label_mix_source(
    model: SemiSegmentor,
    inputs: Views,
    data_samples: Samples,
    strong_views: Sequence[str],
    threshold: float | ConfidenceThreshold,
) -> MixSource:
    """Label the ``mix_weak`` view, for ``mix_source='same_image'``.

    Call it before the training pass, which moves the student's running statistics.

    Args:
        model (SemiSegmentor): The method; its student, in eval mode, or its teacher labels the view.
        inputs (dict): {view: (N, 3, H, W)}, with the ``mix_*`` views.
        data_samples (dict): {view: N samples}.
        strong_views (Sequence[str]): Names of the strong views.
        threshold (float or ConfidenceThreshold): As in ``PseudoLabel.from_logits``. These images do not
            update an adaptive threshold; the ``weak`` view does, once for each step.

    Returns:
        MixSource: The ``mix_*`` view of each strong view, and the pseudo-labels of ``mix_weak``.
    """
    padding = model.padding_mask(data_samples, 'mix_weak')
    with eval_mode(threshold) if isinstance(threshold, ConfidenceThreshold) else nullcontext():
        pseudo = model.make_pseudo_labels(inputs['mix_weak'], threshold, padding)
    return MixSource([inputs[f'mix_{view}'] for view in strong_views], pseudo)
