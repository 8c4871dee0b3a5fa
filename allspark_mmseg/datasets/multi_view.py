"""Both ends of the data contract: :class:`MultiView` makes named views, :class:`MultiViewSegDataPreProcessor` batches.

A view is one augmented version of an image. A labeled image has the view ``labeled``; an unlabeled one has
those that the method compares, such as ``weak``, ``strong_1`` and ``strong_2``. Below, image 0 is labeled,
image 1 is not, T stands for a tensor (3, H, W) uint8 in BGR and S for its ``SegDataSample``::

    dataset[0], the last step being MultiView(labeled=[...]):
        dict(inputs=BaseDataElement(labeled=T), data_samples=BaseDataElement(labeled=S))
    dataset[1], the last step being MultiView(weak=[...], strong_1=[...]):
        dict(inputs=BaseDataElement(weak=T, strong_1=T), data_samples=BaseDataElement(weak=S, strong_1=S))

        |  pseudo_collate: lists, because it leaves objects that it does not know alone; a plain dict
        v  it would open, and miss the first item's keys in the second
    dict(inputs=[BaseDataElement(labeled=T), BaseDataElement(weak=T, strong_1=T)],
         data_samples=[BaseDataElement(labeled=S), BaseDataElement(weak=S, strong_1=S)])

        |  MultiViewSegDataPreProcessor: to the device; each view normalized, padded and stacked, in batch order
        v
    dict(inputs=dict(labeled=(1, 3, H, W), strong_1=(1, 3, H, W), weak=(1, 3, H, W)),   float32, RGB
         data_samples=dict(labeled=[S], strong_1=[S], weak=[S]))

Validation, test and ``inference_model`` have no views: their ``inputs`` is a list of tensors and the result
that of MMSegmentation's own preprocessor, ``inputs`` (N, 3, H, W) and ``data_samples`` a list or None.
"""

import copy
from typing import Any

import torch
from mmcv.transforms import BaseTransform, Compose
from mmengine.structures import BaseDataElement
from mmseg.models import SegDataPreProcessor
from mmseg.registry import TRANSFORMS as MMSEG_TRANSFORMS
from mmseg.structures import SegDataSample

from ..registry import MODELS, TRANSFORMS


@TRANSFORMS.register_module()
class MultiView(BaseTransform):
    """The last step of a training pipeline: several views of what the steps before it made.

    Each view runs its own steps on its own copy, so what comes before (loading, resizing, cropping, flipping)
    is common to the views and their pixels correspond; the last view takes the original, which saves a copy.
    Steps are named as in any MMSegmentation config, and are found under those names whatever the default
    scope is::

        dict(type='allspark_mmseg.MultiView', weak=[pack], strong_1=[*color, pack], strong_2=[*color, pack])

    Args:
        **pipelines: The steps of each view under the view's name; the last must be ``PackSegInputs``.

    Raises:
        ValueError: There is no view, or a name is no identifier or is taken by BaseDataElement.
        TypeError: In use, a view's steps return anything but PackSegInputs' ``inputs`` and ``data_samples``.
    """

    def __init__(self, **pipelines: list[dict]) -> None:
        if not pipelines:
            raise ValueError(
                'MultiView: expected at least one view, found none. Write for example MultiView(labeled='
                "[dict(type='PackSegInputs')])."
            )
        for name in pipelines:
            if not name.isidentifier() or name.startswith('_') or hasattr(BaseDataElement, name):
                raise ValueError(
                    f"MultiView: '{name}' cannot name a view: expected a Python identifier without leading "
                    'underscore that is not an attribute of BaseDataElement, such as labeled, weak, strong_1.'
                )
        self.pipelines = {
            name: Compose([_build(step) for step in steps]) for name, steps in pipelines.items()
        }

    def transform(self, results: dict) -> dict:
        """Make the views of one image.

        Args:
            results: What the steps before made: ``img`` (H, W, 3) uint8, maps (H, W), paths. The last view's
                steps may change it.

        Returns:
            dict: ``inputs`` and ``data_samples``, each a BaseDataElement with a field for each view: a tensor
            (3, H, W) uint8, and a SegDataSample.
        """
        last = next(reversed(self.pipelines))
        packed = {
            name: _run(name, steps, results if name == last else copy.deepcopy(results))
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
    """Draw the views of an image twice; those of the second time get a prefix.

    UniMatch's release (arXiv:2208.09910) pastes by CutMix from another crop of the same image, in colors of
    its own: the image is decoded once, and everything random is drawn twice independently::

        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='allspark_mmseg.LoadEmptyAnnotations'),
            dict(type='allspark_mmseg.TwoCrops', prefix='mix_', steps=[
                dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=(321, 321)),
                dict(type='allspark_mmseg.MultiView', weak=[pack], strong_1=[*color, pack])])]

    gives the views ``weak``, ``strong_1``, ``mix_weak`` and ``mix_strong_1``.

    Args:
        steps: What is done twice; the last must be ``MultiView``.
        prefix: Of the second views' names.

    Raises:
        ValueError: The prefix is empty, or not the beginning of an identifier.
        TypeError: In use, the steps return no views.
    """

    def __init__(self, steps: list[dict], prefix: str) -> None:
        if not prefix.isidentifier() or prefix.startswith('_'):
            raise ValueError(
                f"TwoCrops: prefix is '{prefix}', expected the beginning of a Python identifier without leading "
                'underscore, such as mix_.'
            )
        self.steps = Compose([_build(step) for step in steps])
        self.prefix = prefix

    def transform(self, results: dict) -> dict:
        """Make the views of one image.

        Args:
            results: What the steps before made: ``img`` (H, W, 3) uint8, maps (H, W), paths. The second run
                may change it.

        Returns:
            dict: ``inputs`` and ``data_samples`` as of ``MultiView``, with twice as many fields.
        """
        first, second = (self._run(copy.deepcopy(results)), self._run(results))
        for key, views in first.items():
            for name, view in second[key].items():
                views.set_field(view, f'{self.prefix}{name}')
        return first

    def _run(self, results: dict) -> dict:
        viewed = self.steps(results)
        if not isinstance(viewed, dict) or not isinstance(viewed.get('inputs'), BaseDataElement):
            found = f'a dict of {sorted(viewed)}' if isinstance(viewed, dict) else f'{type(viewed).__name__}'
            raise TypeError(
                f'TwoCrops: the steps must return views, found {found}. End them with '
                "dict(type='allspark_mmseg.MultiView', ...)."
            )
        return viewed

    def __repr__(self) -> str:
        return f'{type(self).__name__}(steps={self.steps}, prefix={self.prefix!r})'


def _build(step: dict | Any) -> Any:
    # The scope also serves the steps inside a step (RandomApply), which mmcv builds without one.
    return MMSEG_TRANSFORMS.build({'_scope_': 'mmseg', **step}) if isinstance(step, dict) else step


def _run(name: str, steps: Compose, results: dict) -> dict:
    packed = steps(results)
    if (
        not isinstance(packed, dict)
        or not isinstance(packed.get('inputs'), torch.Tensor)
        or not isinstance(packed.get('data_samples'), SegDataSample)
    ):
        found = f'a dict of {sorted(packed)}' if isinstance(packed, dict) else f'{type(packed).__name__}'
        raise TypeError(
            f"MultiView: the steps of view '{name}' must return PackSegInputs' inputs and data_samples, found "
            f"{found}. End them with dict(type='PackSegInputs')."
        )
    return packed


@MODELS.register_module()
class MultiViewSegDataPreProcessor(SegDataPreProcessor):
    """MMSegmentation's preprocessor, for batches of views as well; takes the same arguments.

    The module's docstring draws what goes in and out. Every view is normalized, padded and stacked on its
    own, so the sizes of two views may differ; ``batch_augments`` would be drawn anew for each view.
    """

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Move a batch to the device, normalize, pad and stack it.

        Args:
            data: ``inputs`` and ``data_samples`` as collated: lists of N BaseDataElement whose fields are the
                views, or without views a list of N tensors (3, H, W) and a list of N SegDataSample or None.
            training: Whether to pad by ``size`` or ``size_divisor``, as in MMSegmentation.

        Returns:
            dict: ``inputs`` as ``{view: (N_view, 3, H, W)}`` float32 and ``data_samples`` as ``{view:
            [SegDataSample]}``, both in the order of the batch; without views what the parent returns.

        Raises:
            TypeError: Some items have views and others have none.
        """
        inputs = data['inputs']
        viewed = [isinstance(item, BaseDataElement) for item in inputs]
        if not any(viewed):
            return super().forward(data, training)
        if not all(viewed):
            raise TypeError(
                f'MultiViewSegDataPreProcessor: {sum(viewed)} of {len(viewed)} items of the batch have views and '
                'the others have none. End the pipelines of all training datasets with allspark_mmseg.MultiView.'
            )
        batches = {
            view: super(MultiViewSegDataPreProcessor, self).forward(batch, training)
            for view, batch in _by_view(inputs, data['data_samples']).items()
        }
        return {
            key: {view: batch[key] for view, batch in batches.items()} for key in ('inputs', 'data_samples')
        }


def _by_view(inputs: list[BaseDataElement], data_samples: list[BaseDataElement]) -> dict[str, dict]:
    """Sort the items of a batch by view: ``{view: dict(inputs=[...], data_samples=[...])}``."""
    batches: dict[str, dict] = {}
    for images, samples in zip(inputs, data_samples, strict=True):
        # keys() comes from a set of strings, whose order differs from one process to the next.
        for view in sorted(images.keys()):
            batch = batches.setdefault(view, {'inputs': [], 'data_samples': []})
            batch['inputs'].append(images.get(view))
            batch['data_samples'].append(samples.get(view))
    return batches
