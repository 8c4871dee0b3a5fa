"""Makes the scripts below tools/ importable, and runs make_splits.py."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.configs import ROOT
from tests.helpers.raw_data import save
from tests.helpers.split_lists import image_ids, published_lists

sys.path += [str(ROOT / 'tools'), str(ROOT / 'tools' / 'dataset_converters')]


@pytest.fixture
def make_splits(capsys) -> Callable[..., tuple[int, str]]:
    """Run make_splits.py in this process: arguments -> exit status and output."""
    import make_splits

    def run(*arguments: object) -> tuple[int, str]:
        status = 0
        try:
            make_splits.main([str(argument) for argument in arguments])
        except SystemExit as error:
            print(error.code)
            status = error.code if isinstance(error.code, int) else 1
        return status, ''.join(capsys.readouterr())

    return run


@pytest.fixture(scope='session')
def published() -> dict[str, bytes]:
    """Key of ``LISTS`` -> content, for the published lists on this machine."""
    return published_lists()


@pytest.fixture(scope='session')
def voc(published: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder VOC2012 with lists and augmented masks, all empty files, and no images."""
    root = tmp_path_factory.mktemp('voc') / 'VOC2012'
    lists, masks = root / 'ImageSets/Segmentation', root / 'SegmentationClass'
    lists.mkdir(parents=True)
    masks.mkdir()
    for split, path in (('train', 'voc/1464/labeled.txt'), ('val', 'voc/val.txt')):
        (lists / f'{split}.txt').write_text('\n'.join(image_ids(published[path])))
    for name in image_ids(published['voc/train_aug.txt'] + published['voc/val.txt']):
        (masks / f'{name}.png').touch()
    return root


@pytest.fixture
def camvid(tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """Make CamVid in SegNet's layout: its folder, the folder to write, and the names of the images."""
    rows, columns = np.mgrid[:36, :48]
    image = np.stack([5 * columns, 7 * rows, 255 - 5 * columns], -1)
    lists = ROOT / 'configs/_base_/splits/camvid/1over8'
    names = [
        Path(line.split()[0]).stem
        for name in ('labeled', 'unlabeled')
        for line in (lists / f'{name}.txt').read_text().splitlines()[:2]
    ]
    for split, number in (('train', 4), ('val', 1)):
        for name in names[:number]:
            save(tmp_path / f'CamVid/{split}/{name}.png', image)
            save(tmp_path / f'CamVid/{split}annot/{name}.png', (rows + columns) % 12)
    return tmp_path / 'CamVid', tmp_path / 'data', names
