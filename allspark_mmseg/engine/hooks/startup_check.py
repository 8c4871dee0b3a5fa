"""Checks of data, config and checkpoint against each other, before the first iteration."""

import torch
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook

from ...datasets import DualStreamSampler
from ...methods import SemiSegmentor
from ...pseudo_label import padded_pixels
from ...registry import HOOKS
from .masks import check_masks
from .teacher import TeacherHook
from .unwrapping import unwrapped


@HOOKS.register_module()
class StartupCheckHook(Hook):
    """Stop with one clear sentence where training would fail late, or succeed at nothing.

    Before training: number of classes of data sets and heads; batch size against the sampler; the views
    that the method needs, and their sizes; the crop against what the method demands of it; a teacher without
    its hook; format, size and labels of every mask, for validation too. Before testing: the same of the data.
    On loading: the checkpoint must fill parameters; a resumed run must be of the same method, and find a
    memory of its own shape.

    Args:
        masks: read all masks (each process its share); costs some milliseconds a mask.

    Raises:
        ValueError: from the hook's methods, when something does not fit.
    """

    priority = 'VERY_HIGH'

    def __init__(self, masks: bool = True):
        self.masks = masks

    def before_train(self, runner) -> None:
        """Check the training set-up."""
        model = unwrapped(runner.model)
        loader = runner.train_loop.dataloader
        _check_heads(model)
        for part in _parts(loader.dataset):
            _check_classes('train_dataloader', part, model)
        labeled = loader.dataset
        if isinstance(model, SemiSegmentor):
            _check_sampler(loader)
            _check_views(loader.dataset, model)
            _check_teacher(runner, model)
            labeled = loader.dataset.datasets[0]
        if self.masks:
            check_masks('train_dataloader', _parts(labeled), labeled.metainfo['classes'], all_present=True)
        if runner.val_loop is not None:
            self._check_evaluation('val_dataloader', runner.val_loop.dataloader.dataset, model)

    def before_test(self, runner) -> None:
        """Check the data set against the model."""
        self._check_evaluation(
            'test_dataloader', runner.test_loop.dataloader.dataset, unwrapped(runner.model)
        )

    def _check_evaluation(self, key: str, dataset, model) -> None:
        _check_classes(key, dataset, model)
        if self.masks:
            check_masks(key, _parts(dataset), dataset.metainfo['classes'])

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Note the method, for a run that is resumed."""
        checkpoint['meta']['method'] = type(unwrapped(runner.model)).__name__

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check that the checkpoint belongs to the model, before it is loaded."""
        model = unwrapped(runner.model)
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
            _check_memory(source, stored, own)


def _parts(dataset) -> list:
    """The data sets inside nested ConcatDatasets and RepeatDatasets."""
    inner = getattr(dataset, 'datasets', None) or ([dataset.dataset] if hasattr(dataset, 'dataset') else [])
    return [part for one in inner for part in _parts(one)] or [dataset]


def _check_classes(key: str, dataset, model) -> None:
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


def _check_sampler(loader) -> None:
    sampler = loader.sampler
    if not isinstance(sampler, DualStreamSampler):
        raise ValueError(
            f'train_dataloader.sampler is a {type(sampler).__name__}; semi-supervised training needs '
            "dict(type='allspark_mmseg.DualStreamSampler', labeled=..., unlabeled=...)."
        )
    labeled, unlabeled = sampler.shares
    if loader.batch_size != labeled + unlabeled:
        raise ValueError(
            f'train_dataloader.batch_size is {loader.batch_size}, but its sampler draws {labeled} labelled + '
            f'{unlabeled} unlabelled images a batch; set batch_size={labeled + unlabeled}.'
        )


@torch.no_grad()
def _check_views(dataset, model) -> None:
    # of every part: one may lack what the others have
    examples = [part[0] for part in _parts(dataset)]
    batch = model.data_preprocessor(pseudo_collate(examples), training=True)
    inputs = batch['inputs']
    sizes = {view: tuple(images.shape[2:]) for view, images in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f'the views of a batch differ in size (height, width): {sizes}; crop them alike.')
    model.views(inputs, *model.needed_views)
    if model.ignore_padding:
        for view in [view for view in model.needed_views if view.endswith('weak')]:
            padded_pixels(batch['data_samples'][view])
    model.check_crop(next(iter(inputs.values()))[:1])


def _check_teacher(runner, model) -> None:
    if model.teacher is not None and not any(isinstance(hook, TeacherHook) for hook in runner.hooks):
        raise ValueError(
            f"the {type(model).__name__}'s teacher would never follow its student: there is no TeacherHook; "
            "add default_hooks=dict(teacher=dict(type='allspark_mmseg.TeacherHook'))."
        )


def _check_heads(model) -> None:
    segmentor = model.student if isinstance(model, SemiSegmentor) else model
    heads = getattr(segmentor, 'auxiliary_head', None)
    for head in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
        if head is not None and head.num_classes != model.num_classes:
            raise ValueError(
                f'auxiliary_head ({type(head).__name__}) has num_classes={head.num_classes}, the decode head '
                f'{model.num_classes}; set both to the number of classes.'
            )


def _check_method(source: str, checkpoint: dict, model) -> None:
    method = checkpoint.get('meta', {}).get('method', type(model).__name__)
    if method != type(model).__name__:
        raise ValueError(
            f'{source}: the run to be resumed is one of {method}, the config of {type(model).__name__}. '
            'Give this one another --work-dir, or start it from those weights (load_from).'
        )


def _check_memory(source: str, stored: dict, own: dict) -> None:
    for key, value in own.items():
        if key.endswith('memory.rows') and key in stored and stored[key].shape != value.shape:
            raise ValueError(
                f'{source}: its memory (classes, channels, positions) is {tuple(stored[key].shape)}, the '
                f'config makes {tuple(value.shape)}. Resume with the crop and classes the run was started '
                'with, or start a new run from its weights (load_from).'
            )
