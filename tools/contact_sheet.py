"""Compare trained models on their validation set: a table of IoUs, and a picture with a column per model.

    python tools/contact_sheet.py OUT.png NAME=CONFIG,CHECKPOINT[,MINUTES] [NAME=...] [--pick gain] [--num 7]

The rows of the picture are validation images. Its columns are the image, the ground truth, the prediction of
each model and, for two or more models, the pixels that only the first or only the last model has right. Below
each prediction is the mIoU of the image: the mean IoU over the classes in its ground truth.

The images are evenly spaced: in the list of the validation set (--pick even), or in the ranking by the gain,
which is the mIoU of the image with the last model minus that with the first (--pick gain). The ranking's best
and worst images are always shown.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
from mmengine.device import get_device
from mmseg.datasets import BaseSegDataset
from PIL import Image
from sheet import ONLY_FIRST, ONLY_LAST, contact_sheet, difference_picture
from sheet_models import Result, build_val_dataset, check_same_data, evaluate, label_maps, parse_entry

from allspark_mmseg.engine import use_safe_loading

MIN_ROWS_OF_GAIN = 6


@dataclass
class Selection:
    """Images to show, and the rule by which they were chosen.

    Attributes:
        indices (list[int]): Indices in the data set, one for each row.
        captions (list[str]): Position of each image in the list or in the ranking.
        rule (str): The rule, for the foot of the sheet.
    """

    indices: list[int]
    captions: list[str]
    rule: str


def evenly_spaced(count: int, num: int) -> list[int]:
    """Return ``num`` evenly spaced numbers from 0 to ``count - 1``; all numbers if there are fewer."""
    # linspace repeats numbers if there are fewer than ``num``
    return np.unique(np.linspace(0, count - 1, num).round().astype(int)).tolist()


def pick_even(count: int, num: int) -> Selection:
    """Pick images that are evenly spaced in the list of the validation set.

    Args:
        count (int): Number of validation images.
        num (int): Number of images to pick.

    Returns:
        Selection: The images.
    """
    indices = evenly_spaced(count, num)
    captions = [f'image {index + 1} of {count}' for index in indices]
    return Selection(indices, captions, f'Rows: validation images, evenly spaced in the list of {count}.')


def image_gain(results: Sequence[Result]) -> np.ndarray:
    """Return the mIoU of each image with the last model minus that with the first, in percent ``(N,)``."""
    return results[-1].image_iou - results[0].image_iou


def pick_by_gain(gain: np.ndarray, num: int) -> Selection:
    """Pick images at evenly spaced ranks of the gain, from the best to the worst.

    Args:
        gain (np.ndarray): Gain of each image, ``(N,)``. Images with NaN have no rank.
        num (int): Number of images to pick. If it is odd, the median is among them.

    Returns:
        Selection: The images, best first.

    Raises:
        ValueError: The gain of all images is NaN.
    """
    count = int(np.isfinite(gain).sum())
    if not count:
        raise ValueError(
            'no validation image has a labeled pixel; expected masks that are not ignored everywhere'
        )
    ranking = np.argsort(-gain, kind='stable')  # NaN comes last
    ranks = evenly_spaced(count, num)
    percentiles = ', '.join(f'{100 - 100 * rank / max(count - 1, 1):.0f}' for rank in ranks)
    rule = f'Rows: validation images at the percentiles {percentiles} of the gain in mIoU, best first.'
    return Selection(ranking[ranks].tolist(), [f'rank {rank + 1} of {count}' for rank in ranks], rule)


def describe_gain(results: Sequence[Result]) -> str:
    """Say what the gain is, and in how many images it is positive and negative."""
    gain, first, last = image_gain(results), results[0].entry.name, results[-1].entry.name
    return (
        f'Gain: mIoU of the image with {last} minus mIoU with {first}, over the classes in its ground truth. '
        f'It is positive in {(gain > 0).sum()} and negative in {(gain < 0).sum()} of {len(gain)} images.'
    )


def sheet_rows(
    dataset: BaseSegDataset, shown: Sequence[int], predictions: Sequence[Sequence[np.ndarray]]
) -> list[list[np.ndarray]]:
    """Return the cells of each row.

    Args:
        dataset (BaseSegDataset): The validation set.
        shown (Sequence[int]): Indices of the images.
        predictions (Sequence): Label maps ``(H, W)`` uint8 of each image, for each model.

    Returns:
        list[list[np.ndarray]]: Image ``(H, W, 3)`` uint8 RGB, ground truth and predictions ``(H, W)`` and,
        for two or more models, their difference ``(H, W, 3)``.
    """
    rows = []
    for index, *labels in zip(shown, *predictions, strict=True):
        image = mmcv.imread(dataset.get_data_info(index)['img_path'], channel_order='rgb')
        truth = dataset[index]['data_samples'].gt_sem_seg.data.squeeze(0).numpy().astype(np.uint8)
        row = [image, truth, *labels]
        if len(labels) > 1:
            row.append(difference_picture(image, truth, labels[0], labels[-1]))
        rows.append(row)
    return rows


def sheet_captions(selection: Selection, results: Sequence[Result]) -> list[list[str]]:
    """Return the captions of the cells of `sheet_rows`: position, mIoU of each prediction, and gain."""
    captions = []
    for index, position in zip(selection.indices, selection.captions, strict=True):
        row = [position, '', *(f'mIoU {result.image_iou[index]:.1f} %' for result in results)]
        if len(results) > 1:
            row.append(f'gain {image_gain(results)[index]:+.1f}')
        captions.append(row)
    return captions


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
    parser.add_argument('--num', type=int, default=7, help='images to show (default: %(default)s)')
    parser.add_argument(
        '--pick',
        choices=['even', 'gain'],
        default='even',
        help='show images that are evenly spaced in the list, or in the ranking by the gain of the last '
        'model over the first (default: %(default)s)',
    )
    parser.add_argument(
        '--device', default=get_device(), help='where to run the models (default: %(default)s)'
    )
    args = parser.parse_args(arguments)
    least = MIN_ROWS_OF_GAIN if args.pick == 'gain' else 1
    if args.num < least:
        parser.error(f'--num is {args.num}; expected {least} or more with --pick {args.pick}')
    if args.pick == 'gain' and len(args.models) < 2:
        parser.error(
            '--pick gain compares the first and the last model, but one was given; expected two or more'
        )
    if args.out.suffix.lower() != '.png':
        parser.error(f'OUT is {args.out}; expected a name that ends in .png')
    try:
        args.models = [parse_entry(text) for text in args.models]
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    return args


def draw_results(
    datasets: Sequence[BaseSegDataset], results: Sequence[Result], selection: Selection, device: str
) -> Image.Image:
    """Draw the contact sheet.

    The models run again on the images to show, so that only the predictions of these are in memory.

    Args:
        datasets (Sequence[BaseSegDataset]): Validation set of each model.
        results (Sequence[Result]): Result of each model.
        selection (Selection): The images to show.
        device (str): Where to run the models.

    Returns:
        Image: The sheet.
    """
    predictions = [
        label_maps(result.entry, dataset, selection.indices, device)
        for result, dataset in zip(results, datasets, strict=True)
    ]
    titles, marks, note = ['image', 'truth', *map(column_title, results)], [], selection.rule
    if len(results) > 1:
        first, last = results[0], results[-1]
        titles.append(f'difference\n{last.mean_iou - first.mean_iou:+.1f} mIoU')
        marks = [
            (f'only {first.entry.name} is right', ONLY_FIRST),
            (f'only {last.entry.name} is right', ONLY_LAST),
        ]
        note = f'{note} {describe_gain(results)}'
    return contact_sheet(
        sheet_rows(datasets[0], selection.indices, predictions),
        titles,
        datasets[0].metainfo['classes'],
        datasets[0].metainfo['palette'],
        captions=sheet_captions(selection, results),
        marks=marks,
        note=note,
    )


def main(arguments: list[str] | None = None) -> None:
    """Compare models: print the table and write the picture."""
    args = parse_args(arguments)
    use_safe_loading()
    datasets = [build_val_dataset(entry.config) for entry in args.models]
    check_same_data(args.models, datasets)
    results = [
        evaluate(entry, dataset, args.device) for entry, dataset in zip(args.models, datasets, strict=True)
    ]
    if args.pick == 'gain':
        selection = pick_by_gain(image_gain(results), args.num)
    else:
        selection = pick_even(len(datasets[0]), args.num)
    sheet = draw_results(datasets, results, selection, args.device)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out)
    print(f'{iou_table(results, datasets[0].metainfo["classes"])}\n')
    print(selection.rule)
    if len(results) > 1:
        print(describe_gain(results))
    print(f'picture: {args.out}')


if __name__ == '__main__':
    main()
