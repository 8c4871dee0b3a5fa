"""Named views of images: transforms that make them and the data preprocessor that batches them.

A view is one augmented version of an image. A labeled image has the view ``labeled``. An unlabeled image has
the views that the method compares, such as ``weak``, ``strong_1`` and ``strong_2``. In the example below,
image 0 is labeled and image 1 is unlabeled. T is a tensor (3, H, W), uint8, BGR, and S is its
``SegDataSample``::

    dataset[0], whose pipeline ends with MultiView(labeled=[...]):
        dict(inputs=BaseDataElement(labeled=T), data_samples=BaseDataElement(labeled=S))
    dataset[1], whose pipeline ends with MultiView(weak=[...], strong_1=[...]):
        dict(inputs=BaseDataElement(weak=T, strong_1=T), data_samples=BaseDataElement(weak=S, strong_1=S))

        |  pseudo_collate makes lists of BaseDataElements. It would merge plain dicts, which fails if
        v  their keys differ.
    dict(inputs=[BaseDataElement(labeled=T), BaseDataElement(weak=T, strong_1=T)],
         data_samples=[BaseDataElement(labeled=S), BaseDataElement(weak=S, strong_1=S)])

        |  MultiViewSegDataPreProcessor moves each view to the device, normalizes, pads and stacks it in the
        v  order of the batch.
    dict(inputs=dict(labeled=(1, 3, H, W), strong_1=(1, 3, H, W), weak=(1, 3, H, W)),   float32, RGB
         data_samples=dict(labeled=[S], strong_1=[S], weak=[S]))

Validation, testing and ``inference_model`` have no views. Their ``inputs`` is a list of tensors, and the
output is that of MMSegmentation's own data preprocessor: ``inputs`` (N, 3, H, W) and ``data_samples``, a list
or None.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmcv.transforms import BaseTransform, Compose
from mmengine.structures import BaseDataElement
from mmseg.models import SegDataPreProcessor
from mmseg.registry import TRANSFORMS as MMSEG_TRANSFORMS
from mmseg.structures import SegDataSample

from ..registry import MODELS, TRANSFORMS
from ..utils import require


@TRANSFORMS.register_module()
class MultiView(BaseTransform):
    """Last transform of a training pipeline: several views of the same image.

    Each view applies its own transforms to its own copy of the result dict. The transforms before
    ``MultiView`` (loading, resizing, cropping, flipping) are common to all views, so their pixels correspond.
    The last view uses the original, which saves a copy. Type names are looked up in MMSegmentation's scope,
    independent of the default scope::

        dict(type='allspark_mmseg.MultiView', weak=[pack], strong_1=[*color, pack], strong_2=[*color, pack])

    Args:
        **pipelines (list[dict]): The transforms of each view, with the name of the view as the key. The last
            transform must be ``PackSegInputs``.

    Raises:
        ValueError: There is no view, or a name is not an identifier or is an attribute of
            ``BaseDataElement``.
    """

    def __init__(self, **pipelines: list[dict]) -> None:
        if not pipelines:
            raise ValueError(
                'MultiView: expected at least one view, found none. Add one, for example MultiView(labeled='
                "[dict(type='PackSegInputs')])."
            )
        for name in pipelines:
            if not name.isidentifier() or name.startswith('_') or hasattr(BaseDataElement, name):
                raise ValueError(
                    f"MultiView: '{name}' cannot be the name of a view. Expected a Python identifier without "
                    'leading underscore that is not an attribute of BaseDataElement, such as labeled, weak '
                    'or strong_1.'
                )
        self.pipelines = {
            name: Compose([_build_transform(step) for step in steps]) for name, steps in pipelines.items()
        }

    def transform(self, results: dict) -> dict:
        """Make the views of one image.

        Args:
            results (dict): Result dict of the pipeline: ``img`` (H, W, C), maps (H, W), paths. The
                transforms of the last view can change it in place.

        Returns:
            dict: ``inputs`` and ``data_samples``. Both are a ``BaseDataElement`` with one field for each
            view. A field of ``inputs`` is a tensor (C, H, W), and a field of ``data_samples`` is a
            ``SegDataSample``.

        Raises:
            TypeError: The transforms of a view do not return the ``inputs`` and ``data_samples`` of
                ``PackSegInputs``.
        """
        last = next(reversed(self.pipelines))
        packed = {
            name: _make_view(name, steps, results if name == last else copy.deepcopy(results))
            for name, steps in self.pipelines.items()
        }
        return {
            key: BaseDataElement(**{name: view[key] for name, view in packed.items()})
            for key in ('inputs', 'data_samples')
        }

    def __repr__(self) -> str:
        views = ', '.join(f'{name}={steps}' for name, steps in self.pipelines.items())
        return f'{type(self).__name__}({views})'


@TRANSFORMS.register_module()
class TwoCrops(BaseTransform):
    """Views of two random crops of the same image. The views of the second crop have a prefix.

    UniMatch's released code (arXiv:2208.09910) uses another crop of the same image, with other color
    augmentation, as the source of CutMix. ``TwoCrops`` decodes the image once and applies ``steps`` twice,
    with independent random numbers::

        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='allspark_mmseg.LoadEmptyAnnotations'),
            dict(type='allspark_mmseg.TwoCrops', prefix='mix_', steps=[
                dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(321, 321)),
                dict(type='allspark_mmseg.MultiView', weak=[pack], strong_1=[*color, pack])])]

    makes the views ``weak``, ``strong_1``, ``mix_weak`` and ``mix_strong_1``.

    Args:
        steps (list[dict]): Transforms that are applied twice. The last must be ``MultiView``.
        prefix (str): Prefix of the view names of the second crop.

    Raises:
        ValueError: ``prefix`` is not the beginning of an identifier.
    """

    def __init__(self, steps: list[dict], prefix: str) -> None:
        require(
            'TwoCrops',
            'prefix',
            prefix,
            prefix.isidentifier() and not prefix.startswith('_'),
            'the beginning of a Python identifier without leading underscore, such as mix_',
        )
        self.steps = Compose([_build_transform(step) for step in steps])
        self.prefix = prefix

    def transform(self, results: dict) -> dict:
        """Make the views of one image.

        Args:
            results (dict): Result dict of the pipeline: ``img`` (H, W, C), maps (H, W), paths. The
                transforms can change it in place.

        Returns:
            dict: ``inputs`` and ``data_samples`` of ``MultiView`` with twice as many fields.

        Raises:
            TypeError: The transforms do not return views.
        """
        first, second = (self._make_views(copy.deepcopy(results)), self._make_views(results))
        for key, views in first.items():
            for name, view in second[key].items():
                views.set_field(view, f'{self.prefix}{name}')
        return first

    def _make_views(self, results: dict) -> dict:
        views = self.steps(results)
        if not isinstance(views, dict) or not isinstance(views.get('inputs'), BaseDataElement):
            raise TypeError(
                f'TwoCrops: the steps return {_describe(views)}, expected views. End them with '
                "dict(type='allspark_mmseg.MultiView', ...)."
            )
        return views

    def __repr__(self) -> str:
        return f'{type(self).__name__}(steps={self.steps}, prefix={self.prefix!r})'


def _build_transform(step: dict | Any) -> Any:
    # the scope also applies to nested transforms (RandomApply), which MMCV builds without one
    return MMSEG_TRANSFORMS.build({'_scope_': 'mmseg', **step}) if isinstance(step, dict) else step


def _describe(output: object) -> str:
    return f'a dict of {sorted(output)}' if isinstance(output, dict) else type(output).__name__


def _make_view(name: str, steps: Compose, results: dict) -> dict:
    packed = steps(results)
    if (
        not isinstance(packed, dict)
        or not isinstance(packed.get('inputs'), torch.Tensor)
        or not isinstance(packed.get('data_samples'), SegDataSample)
    ):
        raise TypeError(
            f"MultiView: the steps of view '{name}' return {_describe(packed)}, expected inputs and "
            "data_samples of PackSegInputs. End them with dict(type='PackSegInputs')."
        )
    return packed


@MODELS.register_module()
class MultiViewSegDataPreProcessor(SegDataPreProcessor):
    """MMSegmentation's ``SegDataPreProcessor`` that also batches named views and images of any number of
    bands.

    It has the same arguments. Inputs and outputs are described at the top of
    :mod:`allspark_mmseg.datasets.multi_view`. Every view is normalized, padded and stacked separately, so the
    sizes of two views can differ. ``batch_augments`` draws new random numbers for each view.

    Args:
        mean (Sequence[float], optional): Mean of each of C bands; MMSegmentation's class allows one or three.
        std (Sequence[float], optional): Standard deviation of each of C bands.
        **kwargs: Other arguments of ``SegDataPreProcessor``.
    """

    def __init__(
        self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, **kwargs: Any
    ) -> None:
        if mean is None or std is None or len(mean) in (1, 3) or len(mean) != len(std):
            super().__init__(mean, std, **kwargs)
            return
        super().__init__(mean[:1], std[:1], **kwargs)
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Move a batch to the device, normalize, pad and stack it.

        Args:
            data (dict): Collated ``inputs`` and ``data_samples``. With views, both are lists of N
                ``BaseDataElement`` with one field for each view. Without views, ``inputs`` is a list of N
                tensors (3, H, W) and ``data_samples`` a list of N ``SegDataSample`` or None.
            training (bool): Whether to pad to ``size`` or ``size_divisor``, as in MMSegmentation.

        Returns:
            dict: With views, ``inputs`` is ``{view: (N_view, 3, H, W)}``, float32, and ``data_samples`` is
            ``{view: list[SegDataSample]}``, both in the order of the batch. Without views, the output of
            MMSegmentation's ``SegDataPreProcessor``.

        Raises:
            TypeError: Some items of the batch have views and others do not.
        """
        inputs = data['inputs']
        has_views = [isinstance(item, BaseDataElement) for item in inputs]
        if not any(has_views):
            return super().forward(data, training)
        if not all(has_views):
            raise TypeError(
                f'MultiViewSegDataPreProcessor: {sum(has_views)} of {len(has_views)} items of the batch have '
                'views and the others do not. End the pipelines of all training data sets with '
                'allspark_mmseg.MultiView.'
            )
        batches = {
            view: super(MultiViewSegDataPreProcessor, self).forward(batch, training)
            for view, batch in _group_by_view(inputs, data['data_samples']).items()
        }
        return {
            key: {view: batch[key] for view, batch in batches.items()} for key in ('inputs', 'data_samples')
        }


def _group_by_view(inputs: list[BaseDataElement], data_samples: list[BaseDataElement]) -> dict[str, dict]:
    """Group the items of a batch by view: ``{view: dict(inputs=[...], data_samples=[...])}``."""
    batches: dict[str, dict] = {}
    for images, samples in zip(inputs, data_samples, strict=True):
        # sorted, because keys() comes from a set of strings, whose order differs between processes
        for view in sorted(images.keys()):
            batch = batches.setdefault(view, {'inputs': [], 'data_samples': []})
            batch['inputs'].append(images.get(view))
            batch['data_samples'].append(samples.get(view))
    return batches
