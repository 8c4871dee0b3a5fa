"""Hook that measures pseudo-labels."""

from collections.abc import Sequence, Sized
from typing import cast

import numpy as np
import torch
from mmengine.dist import all_reduce, get_dist_info, is_main_process
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.utils.data import DataLoader

from ...methods import SemiSegmentor
from ...methods.student import eval_mode
from ...registry import HOOKS
from ...thresholds import ConfidenceThreshold, check_threshold
from ...utils import require, unwrap_model
from ..label_quality import PseudoLabelQuality, check_mask, pseudo_label_matrix
from ..loops import TeacherStudentValLoop

_STATE = 'pseudo_label_quality'  # key in the message hub


@HOOKS.register_module()
class PseudoLabelQualityHook(Hook):
    """Show how good the pseudo-labels of each class are, after each validation.

    A pixel gets a pseudo-label if the labeler's highest softmax probability is at least the threshold of its
    class. For each class c,

    .. code-block:: text

        precision_c = pixels of class c with pseudo-label c / pixels with pseudo-label c
        coverage_c  = pixels of class c with pseudo-label c / pixels of class c

    Ignored pixels (255) do not count; a value without pixels in its denominator is NaN. ``confident`` is the
    share of all pixels, ignored pixels included, that have a pseudo-label. The log shows a table. The
    visualizer gets ``pseudo_quality/precision.NAME``, ``pseudo_quality/coverage.NAME``, both means and
    ``pseudo_quality/confident``.

    The labeler is the teacher. It is the student if there is no teacher, or if the model's
    ``supervised_only`` is True. By default, the hook uses the predictions of the validation, without another
    forward pass. ``TeacherStudentValLoop`` validates both models, and the hook uses those of the labeler.
    ``ValLoop`` validates only the model of ``predict_on``. The hook measures this model, and the log says so.
    With ``dataloader``, the hook lets the labeler predict other images. Unlike in training, the images are
    not augmented and not cropped.

    Each of the following warnings appears at most once in a run, and not while ``supervised_only`` is True:
    the mean precision falls while the mean coverage is below its highest value; one class gets almost all
    pseudo-labels; at the first validation with pseudo-labels, no pixel of a class gets its pseudo-label. A
    resumed run knows the highest values and the warnings of its checkpoint.

    The hook does nothing for a model that is not a ``SemiSegmentor``, and without validation.

    Args:
        threshold (float, optional): Minimum confidence of a pseudo-label, in [0, 1]. Default: ``threshold``
            of the model, otherwise 0.
        dataloader (dict, optional): Config of a data loader, in the form of ``val_dataloader``, over
            unlabeled images with masks. The training does not use these masks. Default: the validation
            images.
        max_drop (float): Warn if the mean precision is lower than the highest one in this run by more than
            this, in (0, 1].
        sink_share (float): Warn if a class has more than this share of the pseudo-labels, in (0, 1], and its
            share of the pixels is lower by at least 0.02.

    Attributes:
        latest (PseudoLabelQuality, optional): The result of the latest validation. None before the first one,
            and if no image had a mask.

    Raises:
        ValueError: An argument has a wrong value.
    """

    priority = 'BELOW_NORMAL'

    def __init__(
        self,
        threshold: float | None = None,
        dataloader: dict | None = None,
        max_drop: float = 0.1,
        sink_share: float = 0.99,
    ) -> None:
        name = type(self).__name__
        if threshold is not None:
            check_threshold(name, threshold)
        require(name, 'max_drop', max_drop, 0 < max_drop <= 1, 'a difference in (0, 1]')
        require(name, 'sink_share', sink_share, 0 < sink_share <= 1, 'a share in (0, 1]')
        self.threshold = threshold
        self.dataloader = dataloader
        self.max_drop = max_drop
        self.sink_share = sink_share
        self.latest: PseudoLabelQuality | None = None
        self._loader: DataLoader | None = None

    def before_train(self, runner: Runner) -> None:
        """Build and check the data loader.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: There is no validation, or the classes of the data loader are not those of the model.
        """
        if self.dataloader is None or not isinstance(unwrap_model(runner.model), SemiSegmentor):
            return
        if runner.val_loop is None:
            raise ValueError(
                'PseudoLabelQualityHook: dataloader is set, but the hook works after each validation, and '
                'the config has none. Set val_dataloader, val_evaluator and val_cfg, or remove dataloader.'
            )
        self._build_loader(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Reset the counts.

        Args:
            runner (Runner): The runner.
        """
        model = unwrap_model(runner.model)
        if isinstance(model, SemiSegmentor):
            # built here if the runner only validates
            if self.dataloader is not None and self._loader is None:
                self._build_loader(runner)
            self._matrix = torch.zeros(model.num_classes + 1, model.num_classes + 1, dtype=torch.int64)
            self._position = 0

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Count the pixels of a validation batch, unless ``dataloader`` is set.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch.
            data_batch (dict, optional): The collated batch.
            outputs (Sequence[SegDataSample], optional): N predictions with ``seg_logits`` (C, H, W). Those
                without ``gt_sem_seg`` (1, H, W) are skipped.
        """
        model = unwrap_model(runner.model)
        if not isinstance(model, SemiSegmentor) or self._loader is not None:
            return
        both = isinstance(runner.val_loop, TeacherStudentValLoop)
        if not both or model.predictor_name == _labeler(model):
            self._count(outputs or (), runner.val_dataloader, self._thresholds(model))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log precision and coverage, and warn.

        Args:
            runner (Runner): The runner.
            metrics (dict, optional): Results of the validation.

        Raises:
            ValueError: An image of ``dataloader`` has no mask, or a mask that does not fit.
        """
        model = unwrap_model(runner.model)
        if not isinstance(model, SemiSegmentor):
            return
        if self._loader is not None:
            self._predict(runner, model, self._loader)
        all_reduce(self._matrix)
        if not self._matrix.any():
            return
        self.latest = PseudoLabelQuality.from_matrix(self._matrix)
        loader = runner.val_dataloader if self._loader is None else self._loader
        names = _classes(loader) or [str(index) for index in range(model.num_classes)]
        # on all processes: if only a validation runs, this builds the training data, in which all take part
        step = runner.iter
        if is_main_process():
            runner.logger.info(f'{self._title(runner, model)}\n{self.latest.table(names)}')
            runner.visualizer.add_scalars(self.latest.scalars(names), step=step)
        self._warn(runner, self.latest, names, supervised_only=model.supervised_only)

    def _build_loader(self, runner: Runner) -> None:
        # as MMEngine's loops build theirs
        different_seeds = runner._randomness_cfg.get('diff_rank_seed', False)
        loader = runner.build_dataloader(self.dataloader, runner.seed, different_seeds)
        num_classes = unwrap_model(runner.model).num_classes
        found, expected = _classes(loader), _classes(runner.val_dataloader)
        if found is None or len(found) != num_classes or found != (expected or found):
            raise ValueError(
                f'PseudoLabelQualityHook: dataloader has the classes {found}, val_dataloader has {expected}, '
                f'and the decode head has num_classes={num_classes}. Set metainfo of the data set of '
                'dataloader as in val_dataloader.'
            )
        self._loader = loader

    def _thresholds(self, model: SemiSegmentor) -> Tensor:
        """Return the threshold of each class, (C,) float on the CPU."""
        own = getattr(model, 'threshold', None) or 0.0
        if self.threshold is None and isinstance(own, ConfidenceThreshold):
            return own.class_thresholds.cpu()
        number = own if self.threshold is None else self.threshold
        return torch.full((model.num_classes,), float(number))

    def _count(self, samples: Sequence[SegDataSample], loader: DataLoader, thresholds: Tensor) -> None:
        rank, world_size = get_dist_info()
        for sample in samples:
            # the sampler repeats images so that all processes have the same number
            repeated = self._position * world_size + rank >= len(cast(Sized, loader.dataset))
            self._position += 1
            if not repeated and 'gt_sem_seg' in sample and 'seg_logits' in sample:
                logits, truth = sample.seg_logits.data, sample.gt_sem_seg.data[0]
                if logits.shape[1:] == truth.shape:
                    self._matrix += pseudo_label_matrix(logits, truth, thresholds).cpu()

    @torch.no_grad()
    def _predict(self, runner: Runner, model: SemiSegmentor, loader: DataLoader) -> None:
        labeler = model.networks[_labeler(model)]
        with eval_mode(labeler), autocast(enabled=getattr(runner.val_loop, 'fp16', False)):
            for batch in loader:
                data = model.data_preprocessor(batch, False)
                samples = labeler.predict(data['inputs'], data['data_samples'])
                for sample in samples:
                    check_mask(sample, model.num_classes)
                self._count(samples, loader, self._thresholds(model))

    def _title(self, runner: Runner, model: SemiSegmentor) -> str:
        labeler = measured = _labeler(model)
        if self._loader is None and not isinstance(runner.val_loop, TeacherStudentValLoop):
            measured = model.predictor_name
        note = ''
        if measured != labeler and not model.supervised_only:
            note = (
                f'. The {labeler} makes the pseudo-labels of the training, but it is not validated. Set '
                "val_cfg=dict(type='allspark_mmseg.TeacherStudentValLoop') to measure it"
            )
        source = 'the validation images' if self._loader is None else 'the images of dataloader'
        lowest, highest = (f'{value:.4g}' for value in self._thresholds(model).aminmax())
        threshold = lowest if lowest == highest else f'{lowest} to {highest}'
        return f'Pseudo-labels of the {measured} on {source}, threshold {threshold}{note}:'

    def _warn(
        self, runner: Runner, quality: PseudoLabelQuality, names: Sequence[str], *, supervised_only: bool
    ) -> None:
        nan = float('nan')
        state = runner.message_hub.get_info(_STATE) or dict(best=nan, coverage=nan, done=[])
        best = float(np.fmax(state['best'], quality.mean_precision))
        coverage = float(np.fmax(state['coverage'], quality.mean_coverage))
        done = list(state['done'])
        if not supervised_only:
            warnings = dict(sink=quality.find_sink(names, self.sink_share))
            # with more pseudo-labels, a lower precision is normal
            if quality.mean_coverage < coverage:
                warnings['drop'] = quality.find_drop(best, self.max_drop)
            if quality.labeled.any():
                warnings['unlearnable'] = quality.find_unlearnable(names)
            for name, warning in warnings.items():
                if warning and name not in done and is_main_process():
                    runner.logger.warning(warning)
            done += [name for name, warning in warnings.items() if warning or name == 'unlearnable']
        state = dict(best=best, coverage=coverage, done=sorted(set(done)))
        runner.message_hub.update_info(_STATE, state)


def _labeler(model: SemiSegmentor) -> str:
    return 'student' if model.teacher is None or model.supervised_only else 'teacher'


def _classes(loader: DataLoader) -> list[str] | None:
    classes = getattr(loader.dataset, 'metainfo', {}).get('classes')
    return None if classes is None else list(classes)
