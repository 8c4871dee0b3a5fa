"""The files of a ranking: lists, masks to start from, and the contact sheet."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.list_lines import format_list_line
from ..output import complete_file, progress
from ..own_data.drafts import record_drafts
from ..prediction import ImageLoader
from .annotation import Region, coco_json, labelme_json, trace
from .networks import Network
from .prediction import predict_image
from .ranking import Scored, Suggestion
from .scores import PIXEL_SCORES, combine
from .sheet import SheetRow, draw_sheet, make_row, to_display
from .streams import Images

COLUMNS = ('rank', 'image', 'score', *PIXEL_SCORES, 'entropy', 'near_duplicates', 'reason')


def write_lists(
    folder: Path,
    images: Images,
    scored: Scored,
    chosen: Sequence[Suggestion],
    reasons: Sequence[str],
    strategy: str,
) -> None:
    """Write ``suggest.txt``, a list for a data set, and ``scores.tsv``, a table of all images.

    Args:
        folder (Path): Folder of the files.
        images (Images): For the names.
        scored (Scored): All images.
        chosen (Sequence[Suggestion]): The chosen images.
        reasons (Sequence[str]): Why.
        strategy (str): The strategy.
    """
    with complete_file(folder / 'suggest.txt') as path:
        path.write_text(''.join(f'{format_list_line(images.name(each.image))}\n' for each in chosen))
    lines = ['\t'.join(COLUMNS)]
    for place, (each, reason) in enumerate(zip(chosen, reasons, strict=True), start=1):
        count = len(each.choice.duplicates) if each.choice else 0
        lines.append(_table_line(place, images.name(each.image), each.score, each.record, count, reason))
    known = {each.image for each in chosen}
    scores = combine(scored.records, strategy)
    for index in np.argsort(-np.asarray(scores), kind='stable').tolist():
        if scored.images[index] not in known:
            name = images.name(scored.images[index])
            lines.append(_table_line('', name, scores[index], scored.records[index], '', ''))
    with complete_file(folder / 'scores.tsv') as path:
        path.write_text('\n'.join(lines) + '\n')


def _table_line(
    place: int | str, name: str, score: float, record: dict, duplicates: int | str, reason: str
) -> str:
    """Return a line of the table; a score that does not exist is empty."""
    values = [record[key] for key in (*PIXEL_SCORES, 'entropy')]
    texts = ['' if value is None else f'{value:.6f}' for value in values]
    return '\t'.join([str(place), name, f'{score:.4f}', *texts, str(duplicates), reason])


def write_drafts(
    folder: Path,
    images: Images,
    chosen: Sequence[Suggestion],
    reasons: Sequence[str],
    loader: ImageLoader,
    network: Network,
    classes: Sequence[str],
    palette: np.ndarray,
) -> tuple[list[SheetRow], int]:
    """Write the masks of the chosen images as PNG, labelme JSON and COCO JSON.

    Args:
        folder (Path): ``masks/NAME.png``, ``labelme/NAME.json`` with a copy of the image beside it, and
            ``coco.json`` are written here. Masks and labelme files that exist do not change, because they
            may have been corrected. ``drafts.json`` has the digests of the others, for ``new --add``.
        images (Images): For the names.
        chosen (Sequence[Suggestion]): The chosen images.
        reasons (Sequence[str]): Why, for the sheet.
        loader (ImageLoader): Loads the images.
        network (Network): Predicts the masks.
        classes (Sequence[str]): Names of the classes.
        palette (np.ndarray): (K, 3) uint8.

    Returns:
        tuple: Rows of the contact sheet, and the number of files that existed.
    """
    rows: list[SheetRow] = []
    new: list[Path] = []
    drawn: list[tuple[str, tuple[int, int], Sequence[Region]]] = []
    for place, (each, reason) in enumerate(
        progress(list(zip(chosen, reasons, strict=True)), 'drawing masks'), start=1
    ):
        image, name = loader(each.image), images.name(each.image)
        predicted = predict_image(network, image)
        size = (predicted.mask.shape[0], predicted.mask.shape[1])
        target = folder / 'masks' / Path(name).with_suffix('.png')
        copy = folder / 'labelme' / name
        polygons = copy.with_suffix('.json')
        if not target.exists():
            new.append(target)
            with complete_file(target) as path:
                Image.fromarray(predicted.mask + np.uint8(loader.first_class)).save(path)
        regions = trace(predicted.mask)
        drawn.append((name, size, regions))
        if not polygons.exists():
            new.append(polygons)
            with complete_file(copy) as path:
                shutil.copyfile(each.image, path)
            _write_json(polygons, labelme_json(regions, classes, copy.name, size))
        lines = [f'{place}. {name}', f'score {each.score:.3f}', *reason.split('; ')]
        picture = to_display(image.inputs[0].numpy())
        rows.append(make_row(picture, predicted.mask, predicted.entropy, palette, lines))
    _write_json(folder / 'coco.json', coco_json(drawn, classes))
    record_drafts(folder, [*new, folder / 'coco.json'])
    return rows, 2 * len(rows) - len(new)


def write_sheet(
    folder: Path, rows: Sequence[SheetRow], classes: Sequence[str], palette: np.ndarray, note: str
) -> None:
    """Write ``suggest.png``, the contact sheet; see :func:`~allspark_mmseg.suggestion.sheet.draw_sheet`."""
    with complete_file(folder / 'suggest.png') as path:
        draw_sheet(rows, classes, palette, note).save(path)


def _write_json(path: Path, content: dict) -> None:
    """Write a JSON file."""
    with complete_file(path) as temporary:
        temporary.write_text(json.dumps(content))
