"""camvid.py converts the copy of CamVid of SegNet."""

import numpy as np
from PIL import Image

from tests.helpers.configs import ROOT
from tests.helpers.raw_data import (
    contents,
    pixels,
    run,
    save,
)


def test_camvid_fits_the_lists_and_ignores_void(camvid):
    source, root, names = camvid
    printed = run('camvid', source, '--data-root', root)
    assert 'train: 4 images' in printed and '10 files written, 0 were complete already' in printed
    for path in (ROOT / 'configs/_base_/splits/camvid/1over8').iterdir():
        for line in path.read_text().splitlines()[:2]:
            for name in line.split():
                assert (root / name).is_file()
    assert {path.relative_to(root).parts[:2] for path in contents(root)} == {
        (kind, split) for kind in ('images', 'annotations') for split in ('train', 'val')
    }
    old = pixels(source / f'valannot/{names[0]}.png')
    new = pixels(root / f'annotations/val/{names[0]}.png')
    assert new.dtype == np.uint8 and set(old.ravel()) == set(range(12))
    assert (new == np.where(old == 11, 255, old)).all()
    image = Image.open(root / f'images/val/{names[0]}.jpg')
    assert image.format == 'JPEG'
    assert np.abs(np.asarray(image) - pixels(source / f'val/{names[0]}.png').astype(int)).mean() < 2


def test_camvid_reports_wrong_files(camvid):
    source, root, names = camvid
    faults = [source / f'train/{names[0]}.png', source / f'trainannot/{names[1]}.png']
    faults.append(source / f'trainannot/{names[2]}.png')
    faults[0].write_bytes(faults[0].read_bytes()[:-300])
    save(faults[1], [[12] * 48] * 36)
    save(faults[2], [[0] * 36] * 48)
    printed = run('camvid', source, '--data-root', root, status=1)
    assert f'{faults[0]}: expected an image' in printed
    assert f'{faults[1]}: expected labels among' in printed and 'found also [12]' in printed
    assert f'{faults[2]}: expected the size of its image, (48, 36), found (36, 48)' in printed
    gone = source / f'trainannot/{names[3]}.png'
    gone.unlink()
    printed = run('camvid', source, '--data-root', root, status=1)
    assert f'{gone}: expected the label map' in printed
    assert 'expected PNG images' in run('camvid', source / 'nowhere', '--data-root', root, status=1)
