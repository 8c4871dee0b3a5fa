"""Views of a batch: images and samples under the names ``labeled``, ``weak``, ``strong_1``, ..."""

from collections.abc import Mapping, Sequence

from mmseg.structures import SegDataSample
from torch import Tensor

Views = Mapping[str, Tensor]  # view -> (N, 3, H, W)
Samples = Mapping[str, list[SegDataSample]]  # view -> N samples


def select_views(method: str, inputs: Views, names: Sequence[str]) -> list[Tensor]:
    """Take views from a batch.

    Args:
        method (str): Name of the method, for messages.
        inputs (dict): {view: (N, 3, H, W)}, from the data preprocessor.
        names (Sequence[str]): Names of the views.

    Returns:
        list[Tensor]: (N, 3, H, W) for each name.

    Raises:
        ValueError: The batch lacks a view, or its unlabeled views differ in the number of images.
    """
    present = list(inputs) if isinstance(inputs, Mapping) else []
    missing = [name for name in names if name not in present]
    if missing:
        raise ValueError(
            f'{method} trains on the views {list(names)}, but the batch has {present or "no views"}. End the '
            f"training pipelines with dict(type='allspark_mmseg.MultiView', {missing[0]}=[...]) and sample "
            'with allspark_mmseg.DualStreamSampler.'
        )
    counts = {name: len(inputs[name]) for name in names if name != 'labeled'}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f'{method}: a batch has {counts} images of each view, expected equally many; '
            'end the pipelines of all unlabeled data sets with the same views.'
        )
    return [inputs[name] for name in names]
