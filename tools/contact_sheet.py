"""Compare trained models on their validation set: a table of IoUs, and a picture with a column per model.

    python tools/contact_sheet.py OUT.png NAME=CONFIG,CHECKPOINT[,MINUTES] [NAME=...] [--num 8]

The rows of the picture are validation images. Its columns are the image, the ground truth and the prediction
of each model.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmseg.apis import init_model
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from sheet import IGNORE_INDEX, contact_sheet

from allspark_mmseg.engine import use_safe_loading


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
        predictions (list[np.ndarray]): Label maps ``(H, W)`` of the images to show.
    """

    entry: Entry
    iou: np.ndarray
    predictions: list[np.ndarray]

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


def evaluate(entry: Entry, dataset: BaseSegDataset, shown: Sequence[int], device: str) -> Result:
    """Run one model on the whole data set, as MMSegmentation's validation loop does.

    The samples come from the data set and not from ``inference_model``, so ground truth and predictions are
    the same as in the validation loop.

    Args:
        entry (Entry): The model.
        dataset (BaseSegDataset): The validation set.
        shown (Sequence[int]): Indices of the images whose predictions are kept.
        device (str): Where to run the model, for example ``'cpu'`` or ``'cuda'``.

    Returns:
        Result: IoUs and predictions.

    Raises:
        ValueError: Ground truth or prediction contains labels that are not classes of the data set.
    """
    model = init_model(str(entry.config), str(entry.checkpoint), device=device)
    metric = IoUMetric(ignore_index=IGNORE_INDEX)
    metric.dataset_meta = dataset.metainfo
    kept = {}
    for index in range(len(dataset)):
        with torch.no_grad():
            (sample,) = model.val_step(pseudo_collate([dataset[index]]))
        try:
            check_labels(sample, len(dataset.metainfo['classes']))
        except ValueError as error:
            raise ValueError(f'{entry.name}, image {sample.img_path}: {error}') from error
        metric.process({}, [sample.to_dict()])
        if index in shown:
            kept[index] = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
    return Result(entry, class_iou(metric), [kept[index] for index in shown])


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


def sheet_rows(
    dataset: BaseSegDataset, shown: Sequence[int], results: Sequence[Result]
) -> list[list[np.ndarray]]:
    """Return the cells: image ``(H, W, 3)`` uint8 RGB, ground truth and predictions ``(H, W)``."""
    rows = []
    for index, *predictions in zip(shown, *(result.predictions for result in results), strict=True):
        image = mmcv.imread(dataset.get_data_info(index)['img_path'], channel_order='rgb')
        truth = dataset[index]['data_samples'].gt_sem_seg.data.squeeze(0).numpy()
        rows.append([image, truth, *predictions])
    return rows


def iou_table(results: Sequence[Result], classes: Sequence[str]) -> str:
    """Format the IoUs in percent, one row per class and one column per model, then means and minutes."""
    first_width = max(len(name) for name in [*classes, 'minutes'])
    widths = [max(8, len(result.entry.name)) for result in results]

    def line(head: str, values: Sequence[str]) -> str:
        cells = (f'{value:>{width}}' for value, width in zip(values, widths, strict=True))
        return '  '.join([f'{head:<{first_width}}', *cells])

    lines = [line('IoU (%)', [result.entry.name for result in results])]
    for index, name in enumerate(classes):
        lines.append(line(name, [f'{result.iou[index]:.2f}' for result in results]))
    lines.append(line('mIoU', [f'{result.mean_iou:.2f}' for result in results]))
    minutes = [result.entry.minutes for result in results]
    if any(value is not None for value in minutes):
        lines.append(line('minutes', ['-' if value is None else f'{value:.1f}' for value in minutes]))
    return '\n'.join(lines)


def column_title(result: Result) -> str:
    """Return the name of a model and, in a second line, its mIoU in percent and its minutes of training."""
    title = f'{result.entry.name}\nmIoU {result.mean_iou:.1f} %'
    return title if result.entry.minutes is None else f'{title}, {result.entry.minutes:.1f} min'


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, help='PNG file to write')
    parser.add_argument(
        'models',
        nargs='+',
        metavar='NAME=CONFIG,CHECKPOINT[,MINUTES]',
        help='model to compare; MINUTES (training time) is only printed',
    )
    parser.add_argument(
        '--num', type=int, default=8, help='validation images to show, evenly spaced (default: %(default)s)'
    )
    parser.add_argument(
        '--device', default=get_device(), help='where to run the models (default: %(default)s)'
    )
    args = parser.parse_args(arguments)
    if args.num < 1:
        parser.error(f'--num is {args.num}; expected 1 or more')
    if args.out.suffix.lower() != '.png':
        parser.error(f'OUT is {args.out}; expected a name that ends in .png')
    try:
        args.models = [parse_entry(text) for text in args.models]
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    return args


def main(arguments: list[str] | None = None) -> None:
    """Compare models: print the table and write the picture."""
    args = parse_args(arguments)
    use_safe_loading()
    datasets = [build_val_dataset(entry.config) for entry in args.models]
    check_same_data(args.models, datasets)
    first = datasets[0]
    # linspace repeats indices if there are fewer images than --num
    shown = np.unique(np.linspace(0, len(first) - 1, args.num).round().astype(int)).tolist()
    results = [
        evaluate(entry, dataset, shown, args.device)
        for entry, dataset in zip(args.models, datasets, strict=True)
    ]
    classes, palette = first.metainfo['classes'], first.metainfo['palette']
    titles = ['image', 'truth', *map(column_title, results)]
    sheet = contact_sheet(sheet_rows(first, shown, results), titles, classes, palette)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out)
    print(f'{iou_table(results, classes)}\n\npictures: {args.out}')


if __name__ == '__main__':
    main()
