"""Compare trained models on their validation set: a table of IoUs, and one picture with a column a model.

Usage: python tools/contact_sheet.py OUT.png NAME=CONFIG,CHECKPOINT[,MINUTES] [NAME=...] [--num 8]

The picture's rows are validation images; its columns are the image, the truth and each model's prediction.
It is drawn by hand because MMSegmentation's SegLocalVisualizer draws one sample of one model at a time, with
the label blended over the image, and has no titles, legend or grid.
"""

import argparse
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
from mmseg.registry import DATASETS
from PIL import Image, ImageDraw, ImageFont

from allspark_mmseg.engine import use_safe_loading

IGNORE_INDEX = 255
IGNORE_COLOR = (200, 200, 200)
CELL_WIDTH = 176
GAP = 8
TEXT_SIZE = 14
LINE_HEIGHT = 18
SWATCH = 14


@dataclass
class Entry:
    """One model to compare: its name, files, and how long it trained (minutes; None: not told)."""

    name: str
    config: Path
    checkpoint: Path
    minutes: float | None = None


@dataclass
class Result:
    """What one model gave: IoU of each class (C,) in percent, and label maps (H, W) of the images to show."""

    entry: Entry
    iou: np.ndarray
    predictions: list[np.ndarray]

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that occur, in percent."""
        return float(np.nanmean(self.iou))


def parse_entry(text: str) -> Entry:
    """Read ``NAME=CONFIG,CHECKPOINT[,MINUTES]``; the paths hold no comma.

    Raises:
        ValueError: ``text`` does not have this form.
        FileNotFoundError: there is no such config or checkpoint file.
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


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Count pixels by true class (rows) and predicted class (columns); truth 255 is left out.

    Args:
        truth: (H, W) class indices, or 255 = ignore.
        prediction: (H, W) class indices.
        num_classes: number of classes C.

    Returns:
        (C, C) int64.

    Raises:
        ValueError: the shapes differ, or a label is not in [0, C).
    """
    if truth.shape != prediction.shape:
        raise ValueError(f'the truth is {truth.shape}, the prediction {prediction.shape}; expected one shape')
    valid = truth != IGNORE_INDEX
    truth, prediction = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for kind, labels in (('truth', truth), ('prediction', prediction)):
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            raise ValueError(
                f'the {kind} holds labels from {labels.min()} to {labels.max()}; expected 0 to '
                f'{num_classes - 1} (and {IGNORE_INDEX} = ignore in the truth)'
            )
    counts = np.bincount(num_classes * truth + prediction, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """IoU of each class in percent, (C,), from a (C, C) confusion matrix; NaN where a class never occurs."""
    intersection = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return 100 * np.divide(intersection, union, out=np.full(len(union), np.nan), where=union > 0)


def build_val_dataset(config_file: Path):
    """Build the dataset of the config's ``val_dataloader``; its samples carry the truth.

    Raises:
        KeyError: the config has no ``val_dataloader``.
    """
    config = Config.fromfile(config_file)
    if not config.get('val_dataloader'):
        raise KeyError(f'{config_file} has no val_dataloader; expected one whose dataset has masks')
    init_default_scope(config.get('default_scope', 'mmseg'))
    return DATASETS.build(config.val_dataloader.dataset)


def evaluate(entry: Entry, dataset, shown: list[int], device: str) -> Result:
    """Run one model over the whole dataset, as MMSegmentation's validation loop does.

    The samples are the dataset's own, not `inference_model`'s, so that truth and prediction are those
    that IoUMetric compares.

    Args:
        entry: the model.
        dataset: what `build_val_dataset` gives.
        shown: indices of the images whose predictions are kept.
        device: where to run the model, such as ``cpu`` or ``cuda``.

    Raises:
        ValueError: an image's truth or prediction holds labels that are no class of the dataset.
    """
    num_classes = len(dataset.metainfo['classes'])
    model = init_model(str(entry.config), str(entry.checkpoint), device=device)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    kept = {}
    for index in range(len(dataset)):
        with torch.no_grad():
            (sample,) = model.val_step(pseudo_collate([dataset[index]]))
        truth, prediction = (
            labels.data.squeeze(0).cpu().numpy() for labels in (sample.gt_sem_seg, sample.pred_sem_seg)
        )
        try:
            confusion += confusion_matrix(truth, prediction, num_classes)
        except ValueError as error:
            raise ValueError(f'{entry.name}, image {sample.img_path}: {error}') from error
        if index in shown:
            kept[index] = prediction
    return Result(entry, class_iou(confusion), [kept[index] for index in shown])


def check_same_data(entries: list[Entry], datasets: list) -> None:
    """Check that all models validate on the same images and classes.

    Raises:
        ValueError: two do not, and so cannot be compared.
    """

    def contents(dataset):
        paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
        return paths, list(dataset.metainfo['classes'])

    for entry, dataset in zip(entries, datasets, strict=True):
        if contents(dataset) != contents(datasets[0]):
            raise ValueError(
                f'{entries[0].config} and {entry.config} validate on different images or classes; '
                'expected configs with the same val_dataloader.dataset'
            )


def sheet_rows(dataset, shown: list[int], results: list[Result]) -> list[list[np.ndarray]]:
    """Rows of the picture: image (H, W, 3) uint8 RGB, truth (H, W), each model's prediction (H, W)."""
    rows = []
    for index, *predictions in zip(shown, *(result.predictions for result in results), strict=True):
        image = mmcv.imread(dataset.get_data_info(index)['img_path'], channel_order='rgb')
        truth = dataset[index]['data_samples'].gt_sem_seg.data.squeeze(0).numpy()
        rows.append([image, truth, *predictions])
    return rows


def iou_table(results: list[Result], classes: list[str]) -> str:
    """Table of IoU in percent, a row a class and a column a model, then the means and the minutes told."""
    first_width = max(len(name) for name in [*classes, 'minutes'])
    widths = [max(8, len(result.entry.name)) for result in results]

    def line(head: str, values) -> str:
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
    """Name, and below it mIoU in percent and, where told, minutes of training."""
    title = f'{result.entry.name}\nmIoU {result.mean_iou:.1f} %'
    return title if result.entry.minutes is None else f'{title}, {result.entry.minutes:.1f} min'


def draw_cell(cell: np.ndarray, colors: np.ndarray) -> Image.Image:
    """Enlarge or shrink an RGB image (H, W, 3) or a label map (H, W) to the width of a column.

    ``colors`` is (256, 3) uint8, a color for every label. Label maps keep hard edges.
    """
    is_labels = cell.ndim == 2
    picture = Image.fromarray(colors[cell] if is_labels else cell)
    height = round(CELL_WIDTH * cell.shape[0] / cell.shape[1])
    how = Image.Resampling.NEAREST if is_labels else Image.Resampling.BICUBIC
    return picture.resize((CELL_WIDTH, height), how)


def legend_places(names: list[str], font, width: int) -> list[tuple[int, int]]:
    """Left and top of each legend entry, relative to the legend, wrapped to ``width`` pixels."""
    places = []
    left = top = 0
    for name in names:
        entry_width = SWATCH + 5 + round(font.getlength(name)) + 2 * GAP
        if left and left + entry_width > width:
            left, top = 0, top + LINE_HEIGHT + 4
        places.append((left, top))
        left += entry_width
    return places


def contact_sheet(
    rows: list[list[np.ndarray]], titles: list[str], classes: list[str], palette
) -> Image.Image:
    """Draw images and label maps in a grid with titles above and, below, a legend of the classes shown.

    Args:
        rows: cells of each row: RGB images (H, W, 3) uint8 or label maps (H, W) of class indices, 255 =
            ignored, drawn light gray.
        titles: a title a column, of one or two lines.
        classes: names of the C classes, C <= 255.
        palette: (C, 3) RGB colors in [0, 255].

    Returns:
        The sheet, RGB; every image is 176 pixels wide, whatever its size.

    Raises:
        ValueError: there are no rows, or a row has another number of cells than there are titles.
    """
    lengths = sorted({len(row) for row in rows})
    if lengths != [len(titles)]:
        raise ValueError(f'the rows have {lengths or "no"} cells; expected {len(titles)}, one a title')
    colors = np.full((256, 3), IGNORE_COLOR, np.uint8)
    colors[: len(classes)] = palette
    shown = sorted(
        {int(label) for row in rows for cell in row if cell.ndim == 2 for label in np.unique(cell)}
    )
    names = ['(ignored)' if label == IGNORE_INDEX else classes[label] for label in shown]
    cells = [[draw_cell(cell, colors) for cell in row] for row in rows]
    font = ImageFont.load_default(TEXT_SIZE)
    lines = [line for title in titles for line in title.split('\n')]
    column_width = max([CELL_WIDTH, *(round(font.getlength(line)) for line in lines)]) + GAP
    width = GAP + len(titles) * column_width
    places = legend_places(names, font, width - 2 * GAP)
    head = 2 * LINE_HEIGHT + 2 * GAP
    foot = 2 * GAP + (places[-1][1] + LINE_HEIGHT if places else 0)
    heights = [max(cell.height for cell in row) + GAP for row in cells]
    sheet = Image.new('RGB', (width, head + sum(heights) + foot), 'white')
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.multiline_text((GAP + column * column_width, GAP), title, 'black', font)
    top = head
    for row, height in zip(cells, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (GAP + column * column_width, top))
        top += height
    for (left, below), label, name in zip(places, shown, names, strict=True):
        x, y = GAP + left, top + GAP + below
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), tuple(colors[label].tolist()), 'black')
        draw.text((x + SWATCH + 5, y - 2), name, 'black', font)
    return sheet


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(
        description='Compare models on their validation set: IoUs and a picture.'
    )
    parser.add_argument('out', type=Path, help='PNG file to write')
    parser.add_argument(
        'models',
        nargs='+',
        metavar='NAME=CONFIG,CHECKPOINT[,MINUTES]',
        help='a model to compare; MINUTES, how long it trained, is only printed',
    )
    parser.add_argument('--num', type=int, default=8, help='validation images to show, evenly chosen')
    parser.add_argument('--device', default=get_device(), help='where to run the models')
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
    """Compare the models of the command line: print the table, write the picture."""
    args = parse_args(arguments)
    use_safe_loading()
    datasets = [build_val_dataset(entry.config) for entry in args.models]
    check_same_data(args.models, datasets)
    first = datasets[0]
    # unique: linspace repeats some when there are fewer images than asked for
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
