"""Hook that computes class weights from the labeled masks."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

from ...datasets import SemiDataset
from ...datasets.mask_checks import LabelCounts, count_labels
from ...datasets.semi_dataset import leaf_datasets
from ...losses import CrossEntropyLoss, balanced_weights
from ...losses.cross_entropy import BALANCED
from ...registry import HOOKS
from ...utils import dicts_in, unwrap_model
from .startup_check import StartupCheckHook

_META = 'class_weight'  # key in the meta data of a checkpoint


@HOOKS.register_module()
class ClassWeightHook(Hook):
    """Compute the weights of losses with ``class_weight='balanced'`` or ``'sqrt_balanced'``.

    The weights come from the labeled masks of the training; see :func:`balanced_weights`. They are computed
    before the first iteration, from the pixels that ``StartupCheckHook`` has counted if there are some. The
    weights are logged. They replace the name in the config of the run, which every checkpoint contains, and
    they are in the meta data of the checkpoint: a resumed run takes them from there, also if the list of
    labeled images has changed. Without such a loss, the hook does nothing.
    """

    # after StartupCheckHook, and before checkpoints of the best network are written
    priority = 'HIGH'

    def __init__(self) -> None:
        self.weights: dict[str, list[float]] = {}  # 'balanced' or 'sqrt_balanced' -> K weights

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take the weights of a resumed run.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint.
        """
        if runner._resume:
            self.weights = checkpoint.get('meta', {}).get(_META, {})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the weights in the checkpoint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint. It is changed in place.
        """
        if self.weights:
            checkpoint['meta'][_META] = self.weights

    def before_train(self, runner: Runner) -> None:
        """Compute the weights, or use those of the resumed checkpoint.

        Args:
            runner (Runner): The runner.
        """
        losses = [
            part
            for part in unwrap_model(runner.model).modules()
            if isinstance(part, CrossEntropyLoss) and isinstance(part.class_weight, str)
        ]
        if not losses:
            return
        dataset = runner.train_dataloader.dataset
        labeled = dataset.labeled if isinstance(dataset, SemiDataset) else dataset
        classes = labeled.metainfo['classes']
        source = 'of the resumed checkpoint'
        names = {loss.class_weight for loss in losses}
        self.weights = {name: weights for name, weights in self.weights.items() if name in names}
        if missing := names - self.weights.keys():
            counts = self._count(runner, labeled)
            pixels, around = counts.pixels[: len(classes)], counts.around[: len(classes)]
            self.weights |= {name: balanced_weights(pixels, around, BALANCED[name]) for name in missing}
            source = 'by median frequency balancing of the labeled masks'
        for loss in losses:
            loss.class_weight = self.weights[loss.class_weight]
        _replace_in_config(runner.cfg.model, self.weights)
        for name, weights in self.weights.items():
            numbers = ', '.join(f'{each} {weight:g}' for each, weight in zip(classes, weights, strict=True))
            runner.logger.info(f"class_weight='{name}' {source}: {numbers}")

    def _count(self, runner: Runner, labeled: Dataset) -> LabelCounts:
        counted = [hook.label_counts for hook in runner.hooks if isinstance(hook, StartupCheckHook)]
        found = [counts for counts in counted if counts is not None]
        return found[0] if found else count_labels(leaf_datasets(labeled))


def _replace_in_config(config: object, weights: dict[str, list[float]]) -> None:
    """Replace the names of weights in the config of the model, in place."""
    for node in dicts_in(config):
        name = node.get('class_weight')
        if isinstance(name, str) and name in weights:
            node['class_weight'] = weights[name]
