"""Models that contact_sheet.py compares: their IoUs and predictions on the validation set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.apis import init_model
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from sheet import IGNORE_INDEX


@dataclass
class Entry:
    """One model to compare.

    Attributes:
        name (str): Name in the table and the picture.
        config (Path): Config file.
        checkpoint (Path): Checkpoint file.
        minutes (float, optional): Training time.
    """

    name: str
    config: Path
    checkpoint: Path
    minutes: float | None = None


@dataclass
class Result:
    """Result of one model.

    Attributes:
        entry (Entry): The model.
        iou (np.ndarray): IoU of each class in percent, ``(C,)``; NaN for classes that do not occur.
        image_iou (np.ndarray): mIoU of each of the N images in percent, ``(N,)``, see `image_iou`.
    """

    entry: Entry
    iou: np.ndarray
    image_iou: np.ndarray

    @property
    def mean_iou(self) -> float:
        """Mean IoU in percent over the classes that occur."""
        return float(np.nanmean(self.iou))


def parse_entry(text: str) -> Entry:
    """Parse ``NAME=CONFIG,CHECKPOINT[,MINUTES]``. The paths must not contain a comma.

    Args:
        text (str): The argument.

    Returns:
        Entry: The model.

    Raises:
        ValueError: ``text`` does not have this form.
        FileNotFoundError: The config or the checkpoint does not exist.
    """
    name, _, rest = text.partition('=')
    parts = rest.split(',')
    if not name or not all(parts) or len(parts) not in (2, 3):
        raise ValueError(
            f'cannot read {text!r}; expected NAME=CONFIG,CHECKPOINT or NAME=CONFIG,CHECKPOINT,MINUTES'
        )
    for kind, path in zip(('config', 'checkpoint'), parts[:2], strict=True):
        if not Path(path).is_file():
            raise FileNotFoundError(
                f'{name}: no {kind} file {path}; train the model first, or correct the path'
            )
    try:
        minutes = float(parts[2]) if len(parts) == 3 else None
    except ValueError as error:
        raise ValueError(f'{name}: MINUTES is {parts[2]!r}; expected a number') from error
    return Entry(name, Path(parts[0]), Path(parts[1]), minutes)


def build_val_dataset(config_file: Path) -> BaseSegDataset:
    """Build the data set of the config's ``val_dataloader``; its samples contain the ground truth.

    Args:
        config_file (Path): The config.

    Returns:
        BaseSegDataset: The data set.

    Raises:
        KeyError: The config has no ``val_dataloader``.
    """
    config = Config.fromfile(config_file)
    if not config.get('val_dataloader'):
        raise KeyError(f'{config_file} has no val_dataloader; expected one whose data set has masks')
    init_default_scope(config.get('default_scope', 'mmseg'))
    return DATASETS.build(config.val_dataloader.dataset)


def check_labels(sample: SegDataSample, num_classes: int) -> None:
    """Check that ground truth and prediction contain only classes; `IoUMetric` does not count other labels.

    Args:
        sample (SegDataSample): With ``gt_sem_seg`` and ``pred_sem_seg``.
        num_classes (int): Number of classes C.

    Raises:
        ValueError: A label is outside [0, C) and not ignored, or the two shapes differ.
    """
    truth, prediction = sample.gt_sem_seg.data, sample.pred_sem_seg.data
    if truth.shape != prediction.shape:
        raise ValueError(
            f'the ground truth is {tuple(truth.shape)}, the prediction {tuple(prediction.shape)}; expected '
            'equal shapes'
        )
    valid = truth != IGNORE_INDEX
    for kind, labels in (('ground truth', truth[valid]), ('prediction', prediction[valid])):
        if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
            raise ValueError(
                f'the {kind} contains labels from {labels.min()} to {labels.max()}; expected 0 to '
                f'{num_classes - 1} (and {IGNORE_INDEX}, ignored, in the ground truth)'
            )


def class_iou(metric: IoUMetric) -> np.ndarray:
    """Return the IoU of each class in percent ``(C,)`` over all samples that ``metric`` processed."""
    areas = [sum(area) for area in zip(*metric.results, strict=True)]
    return 100 * IoUMetric.total_area_to_metrics(*areas)['IoU']


def image_iou(metric: IoUMetric) -> np.ndarray:
    """Return the mIoU of each image that ``metric`` processed, over the classes in its ground truth.

    Args:
        metric (IoUMetric): It has processed N images, one at a time.

    Returns:
        np.ndarray: ``(N,)``, in percent. NaN where all pixels of the ground truth are ignored.
    """
    means = []
    for intersection, union, _, truth in metric.results:
        occurs = truth > 0
        means.append(100 * (intersection[occurs] / union[occurs]).mean().item())
    return np.array(means)


def predict(
    entry: Entry, dataset: BaseSegDataset, indices: Sequence[int], device: str
) -> Iterator[SegDataSample]:
    """Run one model on images of the data set, as MMSegmentation's validation loop does.

    The samples come from the data set and not from ``inference_model``, so ground truth and predictions are
    the same as in the validation loop.

    Args:
        entry (Entry): The model.
        dataset (BaseSegDataset): The validation set.
        indices (Sequence[int]): Indices of the images.
        device (str): Where to run the model, for example ``'cpu'`` or ``'cuda'``.

    Yields:
        SegDataSample: ``gt_sem_seg`` and ``pred_sem_seg`` of the next image.

    Raises:
        ValueError: Ground truth or prediction contains labels that are not classes of the data set.
    """
    model = init_model(str(entry.config), str(entry.checkpoint), device=device)
    for index in indices:
        with torch.no_grad():
            (sample,) = model.val_step(pseudo_collate([dataset[index]]))
        try:
            check_labels(sample, len(dataset.metainfo['classes']))
        except ValueError as error:
            raise ValueError(f'{entry.name}, image {sample.img_path}: {error}') from error
        yield sample


def evaluate(entry: Entry, dataset: BaseSegDataset, device: str) -> Result:
    """Run one model on the whole data set. No prediction is kept.

    Args:
        entry (Entry): The model.
        dataset (BaseSegDataset): The validation set.
        device (str): Where to run the model.

    Returns:
        Result: IoUs of the classes and of the images.

    Raises:
        ValueError: As in `predict`.
    """
    metric = IoUMetric(ignore_index=IGNORE_INDEX)
    metric.dataset_meta = dataset.metainfo
    for sample in predict(entry, dataset, range(len(dataset)), device):
        metric.process({}, [sample.to_dict()])
    return Result(entry, class_iou(metric), image_iou(metric))


def label_maps(
    entry: Entry, dataset: BaseSegDataset, indices: Sequence[int], device: str
) -> list[np.ndarray]:
    """Return the predictions of one model on some images as label maps ``(H, W)`` uint8.

    Args:
        entry (Entry): The model.
        dataset (BaseSegDataset): The validation set, with at most 255 classes.
        indices (Sequence[int]): Indices of the images.
        device (str): Where to run the model.

    Returns:
        list[np.ndarray]: One label map for each index.

    Raises:
        ValueError: As in `predict`.
    """
    samples = predict(entry, dataset, indices, device)
    return [sample.pred_sem_seg.data.squeeze(0).byte().cpu().numpy() for sample in samples]


def check_same_data(entries: Sequence[Entry], datasets: Sequence[BaseSegDataset]) -> None:
    """Check that all models validate on the same images and classes.

    Args:
        entries (Sequence[Entry]): The models.
        datasets (Sequence[BaseSegDataset]): Their validation sets.

    Raises:
        ValueError: Two validation sets differ.
    """

    def contents(dataset: BaseSegDataset) -> tuple[list[str], list[str]]:
        paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
        return paths, list(dataset.metainfo['classes'])

    for entry, dataset in zip(entries, datasets, strict=True):
        if contents(dataset) != contents(datasets[0]):
            raise ValueError(
                f'{entries[0].config} and {entry.config} validate on different images or classes; '
                'expected configs with the same val_dataloader.dataset'
            )
