"""Convert the label maps of Cityscapes from 34 label ids to the 19 classes.

    python tools/dataset_converters/cityscapes.py [--data-root data/cityscapes]

The 19 evaluated classes become 0 to 18, and all other labels 255, as in the data set's own scripts (package
cityscapesscripts). License plates (id -1) are stored as 255, if at all, and stay 255. Existing label maps of
these scripts are kept.

Reads   gtFine/{train,val}/CITY/*_gtFine_labelIds.png
Writes  gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png

A run can be interrupted; see conversion.py.
"""

import argparse
from pathlib import Path

from conversion import Job, command_line, translate

SPLITS = ('train', 'val')
LABEL_IDS, TRAIN_IDS, POLYGONS = (
    f'_gtFine_{kind}' for kind in ('labelIds.png', 'labelTrainIds.png', 'polygons.json')
)
CLASSES = {  # label id -> name, in the order of the training ids 0 to 18
    7: 'road',
    8: 'sidewalk',
    11: 'building',
    12: 'wall',
    13: 'fence',
    17: 'pole',
    19: 'traffic light',
    20: 'traffic sign',
    21: 'vegetation',
    22: 'terrain',
    23: 'sky',
    24: 'person',
    25: 'rider',
    26: 'car',
    27: 'truck',
    28: 'bus',
    31: 'train',
    32: 'motorcycle',
    33: 'bicycle',
}
IGNORED = 255
# the 34 labels and the license plate
TABLE = dict.fromkeys([*range(34), 255], IGNORED) | {label: index for index, label in enumerate(CLASSES)}


def find_jobs(args: argparse.Namespace) -> list[Job]:
    """List all label maps of both splits.

    Args:
        args (Namespace): ``data_root``.

    Returns:
        list[Job]: The files to write.

    Raises:
        FileNotFoundError: There are no label ids, or they are missing for some polygons.
    """
    jobs = []
    for split in SPLITS:
        folder = args.data_root / 'gtFine' / split
        sources = sorted(folder.glob(f'*/*{LABEL_IDS}'))
        annotated = {str(path).removesuffix(POLYGONS) for path in folder.glob(f'*/*{POLYGONS}')}
        missing = sorted(annotated - {str(path).removesuffix(LABEL_IDS) for path in sources})
        if missing:
            raise FileNotFoundError(
                f'{missing[0]}{LABEL_IDS}: expected a label map beside the polygons, found none. '
                f'{len(missing)} maps are missing below {folder}. Unpack gtFine_trainvaltest.zip again. '
                'Or draw the polygons with csCreateTrainIdLabelImgs of the package cityscapesscripts; this '
                'tool is then not needed.'
            )
        if not sources:
            raise FileNotFoundError(
                f'{folder}: expected CITY/*{LABEL_IDS}, found none; unpack gtFine_trainvaltest.zip from '
                f'https://www.cityscapes-dataset.com in {args.data_root}, or give --data-root'
            )
        print(f'{split}: {len(sources)} label maps')
        jobs += [
            Job(path.with_name(path.name.removesuffix(LABEL_IDS) + TRAIN_IDS), translate, (path, TABLE))
            for path in sources
        ]
    return jobs


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description="Write the label maps of Cityscapes' 19 classes.")
    parser.add_argument(
        '--data-root',
        type=Path,
        default=Path('data/cityscapes'),
        help='folder with gtFine/{train,val}/CITY/*_gtFine_labelIds.png (default: %(default)s)',
    )
    command_line(parser, find_jobs)
