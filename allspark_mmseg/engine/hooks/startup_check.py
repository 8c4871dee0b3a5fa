"""Checks of the data, the config and the checkpoint against each other, before the first iteration."""

import torch
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from torch.utils.data import DataLoader, Dataset

from ...datasets import DualStreamSampler
from ...datasets.mask_checks import check_masks
from ...methods import SemiSegmentor
from ...pseudo_label import padded_pixels
from ...registry import HOOKS
from ...utils import unwrap_model
from .mean_teacher import MeanTeacherHook


@HOOKS.register_module()
class StartupCheckHook(Hook):
    """Stop the run early when training would fail later or have no effect.

    Before training, the hook checks the number of classes, the batch size against the sampler, the views that
    the method needs, the size of the crop, the teacher's hook, and the format, size and labels of all masks,
    for training and for validation. Before testing, it checks the same of the test data. When a checkpoint is
    loaded, it checks that the checkpoint fills parameters. When a run is resumed, it checks that the checkpoint
    is of the same method, and asks the model (``check_resume``).

    Args:
        masks (bool): Read all masks. Each process reads its share, some milliseconds per mask.

    Raises:
        ValueError: Something does not fit; raised by the hook's methods.
    """

    priority = 'VERY_HIGH'

    def __init__(self, masks: bool = True):
        self.masks = masks

    def before_train(self, runner) -> None:
        """Check the training set-up."""
        model = unwrap_model(runner.model)
        loader = runner.train_loop.dataloader
        dataset = loader.dataset
        _check_heads(model)
        # the class names of unlabeled images are not used
        labeled = getattr(dataset, 'labeled', dataset)
        for leaf in _leaf_datasets(labeled):
            _check_classes('train_dataloader', leaf, model)
        if isinstance(model, SemiSegmentor):
            _check_sampler(loader)
            _check_views(dataset, model)
            _check_teacher(runner, model)
        if self.masks:
            check_masks(
                'train_dataloader', _leaf_datasets(labeled), labeled.metainfo['classes'], all_present=True
            )
        if runner.val_loop is not None:
            self._check_evaluation('val_dataloader', runner.val_loop.dataloader.dataset, model)

    def before_test(self, runner) -> None:
        """Check the data set against the model."""
        self._check_evaluation(
            'test_dataloader', runner.test_loop.dataloader.dataset, unwrap_model(runner.model)
        )

    def _check_evaluation(self, key: str, dataset: Dataset, model: torch.nn.Module) -> None:
        _check_classes(key, dataset, model)
        if self.masks:
            check_masks(key, _leaf_datasets(dataset), dataset.metainfo['classes'])

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Store the name of the method, for a run that is resumed."""
        checkpoint['meta']['method'] = type(unwrap_model(runner.model)).__name__

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check that the checkpoint belongs to the model, before it is loaded."""
        model = unwrap_model(runner.model)
        source = runner._load_from or f'in {runner.work_dir}'
        stored = {
            key.removeprefix('module.'): value
            for key, value in checkpoint.get('state_dict', checkpoint).items()
        }
        adopted = dict(stored)
        if isinstance(model, SemiSegmentor):
            model.adopt_plain_checkpoint(adopted)
        own = model.state_dict()
        if not any(key in own and own[key].shape == value.shape for key, value in adopted.items()):
            raise ValueError(
                f'checkpoint {source} fills no parameter of the {type(model).__name__}: it has keys '
                f'like {list(stored)[:3]}, expected {list(own)[:3]}. Convert it first '
                '(tools/model_converters), or name another file in load_from or on the command line.'
            )
        if runner._resume:
            _check_method(source, checkpoint, model)
            if isinstance(model, SemiSegmentor):
                model.check_resume(source, stored)


def _leaf_datasets(dataset: Dataset) -> list:
    """Return the data sets inside nested ConcatDatasets and RepeatDatasets."""
    inner = getattr(dataset, 'datasets', None) or ([dataset.dataset] if hasattr(dataset, 'dataset') else [])
    return [leaf for one in inner for leaf in _leaf_datasets(one)] or [dataset]


def _check_classes(key: str, dataset: Dataset, model: torch.nn.Module) -> None:
    classes = dataset.metainfo.get('classes')
    if classes is None:
        raise ValueError(
            f'{key}: the data set ({type(dataset).__name__}) names no classes; give it '
            "metainfo=dict(classes=('background', ...), palette=[[0, 0, 0], ...])."
        )
    if len(classes) != model.num_classes:
        raise ValueError(
            f'{key}: the data set ({type(dataset).__name__}) has {len(classes)} classes, the decode head has '
            f'num_classes={model.num_classes}; set num_classes of every head to {len(classes)}.'
        )


def _check_sampler(loader: DataLoader) -> None:
    sampler = loader.sampler
    if not isinstance(sampler, DualStreamSampler):
        raise ValueError(
            f'train_dataloader.sampler is a {type(sampler).__name__}; semi-supervised training needs '
            "dict(type='allspark_mmseg.DualStreamSampler', labeled=..., unlabeled=...)."
        )
    labeled, unlabeled = sampler.counts['labeled'], sampler.counts['unlabeled']
    if loader.batch_size != labeled + unlabeled:
        raise ValueError(
            f'train_dataloader.batch_size is {loader.batch_size}, but its sampler draws {labeled} labeled + '
            f'{unlabeled} unlabeled images a batch; set batch_size={labeled + unlabeled}.'
        )


@torch.no_grad()
def _check_views(dataset: Dataset, model: SemiSegmentor) -> None:
    # one image of each source, because each source has its own pipeline
    examples = [leaf[0] for leaf in _leaf_datasets(dataset)]
    batch = model.data_preprocessor(pseudo_collate(examples), training=True)
    inputs = batch['inputs']
    sizes = {view: tuple(images.shape[2:]) for view, images in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f'the views of a batch differ in size (height, width): {sizes}; crop them alike.')
    model.select_views(inputs, *model.needed_views)
    if model.ignore_padding:
        for view in [view for view in model.needed_views if view.endswith('weak')]:
            padded_pixels(batch['data_samples'][view])
    model.check_input_size(next(iter(inputs.values()))[:1])


def _check_teacher(runner, model: SemiSegmentor) -> None:
    if model.teacher is not None and not any(isinstance(hook, MeanTeacherHook) for hook in runner.hooks):
        raise ValueError(
            f"the {type(model).__name__}'s teacher would never follow its student: there is no MeanTeacherHook; "
            "add default_hooks=dict(mean_teacher=dict(type='allspark_mmseg.MeanTeacherHook'))."
        )


def _check_heads(model: torch.nn.Module) -> None:
    segmentor = model.student if isinstance(model, SemiSegmentor) else model
    heads = getattr(segmentor, 'auxiliary_head', None)
    for head in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
        if head is not None and head.num_classes != model.num_classes:
            raise ValueError(
                f'auxiliary_head ({type(head).__name__}) has num_classes={head.num_classes}, the decode head '
                f'{model.num_classes}; set both to the number of classes.'
            )


def _check_method(source: str, checkpoint: dict, model: torch.nn.Module) -> None:
    method = checkpoint.get('meta', {}).get('method', type(model).__name__)
    if method != type(model).__name__:
        raise ValueError(
            f'{source}: the run to be resumed is one of {method}, the config of {type(model).__name__}. '
            'Give this one another --work-dir, or start it from those weights (load_from).'
        )
