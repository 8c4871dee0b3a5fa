"""Hook that checks data, config and checkpoint before a run."""

from pathlib import Path

from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmseg.models import EncoderDecoder
from torch import nn
from torch.utils.data import Dataset
from torch.utils.hooks import RemovableHandle

from ...datasets import SemiDataset
from ...datasets.image_checks import check_images
from ...datasets.image_headers import ImageHeader
from ...datasets.mask_checks import LabelCounts, check_masks
from ...datasets.semi_dataset import leaf_datasets
from ...methods import SemiSegmentor
from ...registry import HOOKS
from ...utils import require, unwrap_model
from ..evaluation_trial import try_evaluation
from ..method_checks import (
    check_bands,
    check_losses,
    check_sampler,
    check_teacher,
    check_unused_parameters,
    check_views,
    warn_of_unread_memory,
)
from ..pretrained import describe_hub_backbones, watch_pretrained
from ..run_warnings import warn_of_batch_size, warn_of_shared_images, warn_of_short_epochs
from ..schedule_length import warn_of_schedule

_CACHE_FOLDER, _CACHE = '.allspark', 'image_headers.json'


@HOOKS.register_module()
class StartupCheckHook(Hook):
    """Stop the run early when training would fail later or have no effect.

    Before training, and before testing as far as it applies, the hook checks:

    * the data: format, bits, bands and completeness of all images; format, size and labels of all masks; the
      number of classes
    * the method: its views, the size of the crop, the streams of a batch, the hook of the teacher
    * the evaluation: it predicts the smallest and the largest validation image, except when a run is resumed
    * the weights: those of ``init_cfg`` must be readable and fill tensors of their module, and the log lists
      what stays random; a checkpoint must contain parameters of the model
    * a resumed run: its checkpoint must be of the same method; see the model's ``check_resume``

    It warns of validation images that are also training images, of a memory that is never read, of short
    epochs, and of a learning rate for another batch size or another length.

    Args:
        masks (bool): Read all masks. Each process reads its share. A mask takes some milliseconds.
        images (bool): Read the headers of all images, and decode some images. Each process reads its share.
            The headers are kept in ``image_headers.json``, in the folder ``.allspark`` of the data if it
            exists, otherwise in the work dir. The next start reads only the headers of changed files.
        max_images (int): Images of a data set of which all headers are read. Of larger data sets, the
            headers of 10 000 evenly spaced images are read.
        evaluation (bool): Predict two validation images.

    Attributes:
        label_counts (LabelCounts, optional): Pixels of each label in the training masks. None before the
            training, and with ``masks=False``.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self, masks: bool = True, images: bool = True, max_images: int = 100_000, evaluation: bool = True
    ) -> None:
        require('StartupCheckHook', 'max_images', max_images, max_images >= 1, '1 or more')
        self.masks = masks
        self.images = images
        self.max_images = max_images
        self.evaluation = evaluation
        self.label_counts: LabelCounts | None = None
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
        dataset = loop.dataloader.dataset
        _check_heads(model)
        check_losses(model)
        # the class names of unlabeled images are not used
        labeled = dataset.labeled if isinstance(dataset, SemiDataset) else dataset
        for leaf in leaf_datasets(labeled):
            _check_classes('train_dataloader', leaf, model)
        datasets = {'train_dataloader': dataset}
        if runner.val_loop is not None:
            datasets['val_dataloader'] = runner.val_loop.dataloader.dataset
            _check_classes('val_dataloader', datasets['val_dataloader'], model)
        headers = self._check_images(runner, datasets)
        check_bands(dataset, model)
        if isinstance(model, SemiSegmentor):
            check_sampler(loop.dataloader)
            check_views(dataset, model)
            check_teacher(runner, model)
            check_unused_parameters(runner, model)
            warn_of_unread_memory(runner, loop)
        self.label_counts = self._check_masks('train_dataloader', labeled, headers)
        warn_of_short_epochs(runner, loop)
        warn_of_batch_size(runner, loop)
        warn_of_schedule(runner, loop)
        if runner.val_loop is not None:
            self._check_masks('val_dataloader', datasets['val_dataloader'], headers)
            warn_of_shared_images(runner, dataset)
            self._try_evaluation(runner, model, headers)

    def before_test(self, runner: Runner) -> None:
        """Check the test data set against the model.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: The data set does not fit the model, or masks are invalid.
        """
        dataset = runner.test_loop.dataloader.dataset
        _check_classes('test_dataloader', dataset, unwrap_model(runner.model))
        headers = self._check_images(runner, {'test_dataloader': dataset})
        self._check_masks('test_dataloader', dataset, headers)

    def _check_images(self, runner: Runner, datasets: dict[str, Dataset]) -> dict[str, ImageHeader]:
        if not self.images:
            return {}
        sources = [
            (stream, leaf)
            for key, dataset in datasets.items()
            for stream, part in _streams(key, dataset)
            for leaf in leaf_datasets(part)
        ]
        folder = Path(getattr(sources[0][1], 'data_root', None) or '.', _CACHE_FOLDER)
        cache = (folder if folder.is_dir() else Path(runner.work_dir)) / _CACHE
        return check_images(sources, limit=self.max_images, cache=cache)

    def _check_masks(
        self, key: str, dataset: BaseDataset, headers: dict[str, ImageHeader]
    ) -> LabelCounts | None:
        if not self.masks:
            return None
        return check_masks(key, leaf_datasets(dataset), dataset.metainfo['classes'], headers)

    def _try_evaluation(self, runner: Runner, model: nn.Module, headers: dict[str, ImageHeader]) -> None:
        if runner._resume:
            runner.logger.info('val_dataloader: no trial of the evaluation, because the run is resumed.')
        elif self.evaluation:
            try_evaluation(runner, model, headers)

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


def _streams(key: str, dataset: Dataset) -> list[tuple[str, Dataset]]:
    """Return the parts of a data set, with the keys of a config that they have."""
    if not isinstance(dataset, SemiDataset):
        return [(key, dataset)]
    unlabeled = [(f'{key}.dataset.unlabeled', part) for part in dataset.unlabeled]
    return [(f'{key}.dataset.labeled', dataset.labeled), *unlabeled]


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


def _check_heads(model: nn.Module) -> None:
    segmentor = model.student if isinstance(model, SemiSegmentor) else model
    heads = getattr(segmentor, 'auxiliary_head', None)
    for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
        if head is not None and head.num_classes != model.num_classes:
            raise ValueError(
                f'auxiliary_head ({type(head).__name__}) has num_classes={head.num_classes}, but the decode '
                f'head has {model.num_classes}. Set both to the number of classes.'
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
