"""Hook that checks data, config and checkpoint before a run."""

import torch
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmseg.models import EncoderDecoder
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.hooks import RemovableHandle

from ...datasets import DualStreamSampler, SemiDataset
from ...datasets.mask_checks import check_masks
from ...datasets.semi_dataset import image_files
from ...methods import MemoryWarmUpHook, SemiSegmentor
from ...pseudo_label import padded_pixels
from ...registry import HOOKS
from ...utils import format_paths, unwrap_model
from ..pretrained import describe_hub_backbones, watch_pretrained
from .mean_teacher import MeanTeacherHook


@HOOKS.register_module()
class StartupCheckHook(Hook):
    """Stop the run early when training would fail later or have no effect.

    Before training, the hook checks the number of classes, and whether the batch size fits the sampler. It
    checks the views that the method needs, the size of the crop and the hook of the teacher. It also checks
    the format, size and labels of all masks for training and validation. It warns of validation images that
    are also labeled training images, and of a memory that is never read. Before testing, it checks the number
    of classes and the masks of the test data. The weights that ``init_cfg`` names must be readable and fill
    tensors of their module. The log lists what stays random. When a checkpoint is loaded, it checks that the
    checkpoint contains parameters of the model. When a run is resumed, it checks that the checkpoint is of
    the same method and calls the model's ``check_resume``.

    Args:
        masks (bool): Read all masks. Each process reads its share. A mask takes some milliseconds.
    """

    priority = 'VERY_HIGH'

    def __init__(self, masks: bool = True) -> None:
        self.masks = masks
        self._checked_loop: BaseLoop | None = None
        self._watches: list[RemovableHandle] = []

    def before_run(self, runner: Runner) -> None:
        """Check the weights that ``init_cfg`` names. The runner loads them afterwards.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: They cannot be read. While the runner loads them: they fill nothing.
        """
        if isinstance(runner._train_loop, BaseLoop):  # built for training only
            model = unwrap_model(runner.model)
            self._watches = watch_pretrained(model)
            describe_hub_backbones(runner.cfg.get('model'), model)

    def before_train(self, runner: Runner) -> None:
        """Check the training set-up.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: Data, config and model do not fit together.
        """
        for handle in self._watches:
            handle.remove()
        if runner.train_loop is self._checked_loop:
            return
        model = unwrap_model(runner.model)
        loop = runner.train_loop
        if getattr(loop, 'next_loop', None) is not None:
            # the supervised phase has the data of the next one, which needs no second check
            loop = self._checked_loop = loop.next_loop
        loader = loop.dataloader
        dataset = loader.dataset
        _check_heads(model)
        # the class names of unlabeled images are not used
        labeled = dataset.labeled if isinstance(dataset, SemiDataset) else dataset
        for leaf in _leaf_datasets(labeled):
            _check_classes('train_dataloader', leaf, model)
        if isinstance(model, SemiSegmentor):
            _check_sampler(loader)
            _check_views(dataset, model)
            _check_teacher(runner, model)
            _warn_of_unread_memory(runner, loop)
        if self.masks:
            check_masks(
                'train_dataloader', _leaf_datasets(labeled), labeled.metainfo['classes'], all_present=True
            )
        if runner.val_loop is not None:
            self._check_evaluation('val_dataloader', runner.val_loop.dataloader.dataset, model)
            _warn_of_shared_images(runner, labeled)

    def before_test(self, runner: Runner) -> None:
        """Check the test data set against the model.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: The data set does not fit the model, or masks are invalid.
        """
        self._check_evaluation(
            'test_dataloader', runner.test_loop.dataloader.dataset, unwrap_model(runner.model)
        )

    def _check_evaluation(self, key: str, dataset: BaseDataset, model: nn.Module) -> None:
        _check_classes(key, dataset, model)
        if self.masks:
            check_masks(key, _leaf_datasets(dataset), dataset.metainfo['classes'])

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the name of the method in the checkpoint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint. It is changed in place.
        """
        checkpoint['meta']['method'] = _method_name(unwrap_model(runner.model))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check that the checkpoint fits the model, before the model loads it.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint.

        Raises:
            ValueError: No parameter of the model is in the checkpoint, or a run of another method is resumed.
        """
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
                f'checkpoint {source} has no parameter of the {type(model).__name__}. It has keys like '
                f'{list(stored)[:3]}, expected {list(own)[:3]}. Convert it with tools/model_converters, or '
                'set another file in load_from or on the command line.'
            )
        if runner._resume:
            _check_method(source, checkpoint, model)
            if isinstance(model, SemiSegmentor):
                model.check_resume(source, stored)


def _leaf_datasets(dataset: Dataset) -> list:
    """Return the data sets inside nested ConcatDatasets and RepeatDatasets."""
    children = getattr(dataset, 'datasets', None) or (
        [dataset.dataset] if hasattr(dataset, 'dataset') else []
    )
    return [leaf for child in children for leaf in _leaf_datasets(child)] or [dataset]


def _check_classes(key: str, dataset: BaseDataset, model: nn.Module) -> None:
    classes = dataset.metainfo.get('classes')
    if classes is None:
        raise ValueError(
            f'{key}: the data set ({type(dataset).__name__}) has no class names. Set '
            "metainfo=dict(classes=('background', ...), palette=[[0, 0, 0], ...])."
        )
    if len(classes) != model.num_classes:
        raise ValueError(
            f'{key}: the data set ({type(dataset).__name__}) has {len(classes)} classes, but the decode head '
            f'has num_classes={model.num_classes}. Set num_classes of every head to {len(classes)}.'
        )


def _check_sampler(loader: DataLoader) -> None:
    sampler = loader.sampler
    if not isinstance(sampler, DualStreamSampler):
        raise ValueError(
            f'train_dataloader.sampler is a {type(sampler).__name__}. Semi-supervised training needs '
            "dict(type='allspark_mmseg.DualStreamSampler', labeled=..., unlabeled=...)."
        )
    labeled, unlabeled = sampler.counts['labeled'], sampler.counts['unlabeled']
    if loader.batch_size != labeled + unlabeled:
        raise ValueError(
            f'train_dataloader.batch_size is {loader.batch_size}, but its sampler draws {labeled} labeled + '
            f'{unlabeled} unlabeled images per batch; set batch_size={labeled + unlabeled}.'
        )


@torch.no_grad()
def _check_views(dataset: Dataset, model: SemiSegmentor) -> None:
    # one image of each source, because each source has its own pipeline
    examples = [leaf[0] for leaf in _leaf_datasets(dataset)]
    batch = model.data_preprocessor(pseudo_collate(examples), training=True)
    inputs = batch['inputs']
    sizes = {view: tuple(images.shape[2:]) for view, images in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f'train_dataloader: the views of a batch have different sizes (height, width): {sizes}. Use the '
            'same crop size in all pipelines.'
        )
    model.select_views(inputs, *model.needed_views)
    if model.ignore_padding:
        for view in [view for view in model.needed_views if view.endswith('weak')]:
            padded_pixels(batch['data_samples'][view])
    model.check_input_size(next(iter(inputs.values()))[:1])


def _check_teacher(runner: Runner, model: SemiSegmentor) -> None:
    if model.teacher is not None and not any(isinstance(hook, MeanTeacherHook) for hook in runner.hooks):
        raise ValueError(
            f'the teacher of the {type(model).__name__} would never be updated, because there is no '
            'MeanTeacherHook. Add '
            "default_hooks=dict(mean_teacher=dict(type='allspark_mmseg.MeanTeacherHook'))."
        )


def _warn_of_unread_memory(runner: Runner, loop: BaseLoop) -> None:
    for hook in runner.hooks:
        if not isinstance(hook, MemoryWarmUpHook):
            continue
        unit = 'iterations' if hook.epochs is None else 'epochs'
        given = hook.iters if hook.epochs is None else hook.epochs
        length = loop.max_iters if hook.epochs is None else loop.max_epochs
        if given >= length:
            runner.logger.warning(
                f'MemoryWarmUpHook: the warm-up lasts {given} {unit}, and the training {length}. So labeled '
                'images never attend to the memory. Shorten the warm-up, or train longer.'
            )


def _check_heads(model: nn.Module) -> None:
    segmentor = model.student if isinstance(model, SemiSegmentor) else model
    heads = getattr(segmentor, 'auxiliary_head', None)
    for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
        if head is not None and head.num_classes != model.num_classes:
            raise ValueError(
                f'auxiliary_head ({type(head).__name__}) has num_classes={head.num_classes}, but the decode '
                f'head has {model.num_classes}. Set both to the number of classes.'
            )


def _warn_of_shared_images(runner: Runner, labeled: BaseDataset) -> None:
    leaves = [*_leaf_datasets(labeled), *_leaf_datasets(runner.val_loop.dataloader.dataset)]
    if not all('img_path' in leaf.get_data_info(0) for leaf in leaves):
        return  # a data set of another kind, without files
    shared = sorted(image_files([labeled]) & image_files([runner.val_loop.dataloader.dataset]))
    if shared:
        runner.logger.warning(
            f'val_dataloader: {len(shared)} validation images are also labeled training images:\n'
            f'{format_paths(shared)}\nTheir score says nothing about new images, and the best checkpoint is '
            'chosen by it. Remove them from one of the two lists.'
        )


def _method_name(model: nn.Module) -> str:
    # one name for ExtendedEncoderDecoder and its base class: their training and their parameters are the same
    return 'EncoderDecoder' if isinstance(model, EncoderDecoder) else type(model).__name__


def _check_method(source: str, checkpoint: dict, model: nn.Module) -> None:
    own = _method_name(model)
    method = checkpoint.get('meta', {}).get('method', own)
    if method != own:
        raise ValueError(
            f'{source}: the checkpoint is from a run of {method}, but the config is for {own}. Use another '
            '--work-dir, or start from these weights with load_from instead of --resume.'
        )
