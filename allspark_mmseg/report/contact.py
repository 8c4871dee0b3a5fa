"""The comparison of networks as text and as one picture: a table of IoUs, and a contact sheet."""

from collections.abc import Sequence

import numpy as np
from mmseg.datasets import BaseSegDataset
from PIL import Image

from .evaluate import Evaluation, label_maps
from .networks import read_image, read_truth
from .selection import Selection, describe_gain, image_gain, pick_ranks
from .sheet import ONLY_FIRST, ONLY_LAST, contact_sheet, difference_picture

ROWS = 7


def iou_table(evaluations: Sequence[Evaluation], classes: Sequence[str]) -> str:
    """Format the IoUs in percent, one row per class and one column per network, and the means.

    Args:
        evaluations (Sequence[Evaluation]): The evaluations.
        classes (Sequence[str]): Names of the C classes.

    Returns:
        str: The table.
    """
    first_width = max(len(name) for name in [*classes, 'IoU (%)'])
    names = [each.network.name for each in evaluations]
    widths = [max(8, len(name)) for name in names]

    def line(head: str, values: Sequence[str]) -> str:
        cells = (f'{value:>{width}}' for value, width in zip(values, widths, strict=True))
        return '  '.join([f'{head:<{first_width}}', *cells])

    lines = [line('IoU (%)', names)]
    for index, name in enumerate(classes):
        lines.append(line(name, [f'{each.iou[index]:.2f}' for each in evaluations]))
    return '\n'.join([*lines, line('mIoU', [f'{each.mean_iou:.2f}' for each in evaluations])])


def sheet_rows(
    dataset: BaseSegDataset, shown: Sequence[int], predictions: Sequence[dict[int, np.ndarray]]
) -> list[list[np.ndarray]]:
    """Return the cells of each row.

    Args:
        dataset (BaseSegDataset): The validation set.
        shown (Sequence[int]): Indices of the images.
        predictions (Sequence): For each network, index -> label map ``(H, W)`` uint8.

    Returns:
        list[list[np.ndarray]]: Image ``(H, W, 3)`` uint8 RGB, ground truth and predictions ``(H, W)`` and,
        for two or more networks, their difference ``(H, W, 3)``.
    """
    rows = []
    for index in shown:
        image, truth = read_image(dataset, index), read_truth(dataset, index)
        labels = [maps[index] for maps in predictions]
        row = [image, truth, *labels]
        if len(labels) > 1:
            row.append(difference_picture(image, truth, labels[0], labels[-1]))
        rows.append(row)
    return rows


def sheet_captions(selection: Selection, evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """Return the captions of the cells of `sheet_rows`: position, mIoU of each prediction, and gain."""
    captions = []
    for index, position in zip(selection.indices, selection.captions, strict=True):
        row = [position, '', *(f'mIoU {each.image_iou[index]:.1f} %' for each in evaluations)]
        if len(evaluations) > 1:
            row.append(f'gain {image_gain(evaluations[0], evaluations[-1])[index]:+.1f}')
        captions.append(row)
    return captions


def draw_contact_sheet(
    dataset: BaseSegDataset, evaluations: Sequence[Evaluation], device: str | None = None
) -> Image.Image:
    """Draw validation images at evenly spaced ranks of the gain, or of the mIoU of a single network.

    Args:
        dataset (BaseSegDataset): The validation set.
        evaluations (Sequence[Evaluation]): The networks, one column each.
        device (str, optional): Where to run the models.

    Returns:
        Image: The sheet.
    """
    first, last = evaluations[0], evaluations[-1]
    titles = [f'{each.network.name}\nmIoU {each.mean_iou:.1f} %' for each in evaluations]
    titles, marks = ['image', 'truth', *titles], []
    if len(evaluations) > 1:
        selection = pick_ranks(image_gain(first, last), ROWS, 'gain in mIoU')
        titles.append(f'difference\n{last.mean_iou - first.mean_iou:+.1f} mIoU')
        marks = [
            (f'only {first.network.name} is right', ONLY_FIRST),
            (f'only {last.network.name} is right', ONLY_LAST),
        ]
        note = f'{selection.rule} {describe_gain(first, last)}'
    else:
        selection = pick_ranks(last.image_iou, ROWS, 'mIoU of the image')
        note = selection.rule
    predictions = [label_maps(each.network, dataset, selection.indices, device) for each in evaluations]
    return contact_sheet(
        sheet_rows(dataset, selection.indices, predictions),
        titles,
        dataset.metainfo['classes'],
        dataset.metainfo['palette'],
        captions=sheet_captions(selection, evaluations),
        marks=marks,
        note=note,
    )
