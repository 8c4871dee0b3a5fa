"""new: exports of annotation tools, and data that are annotated in part."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..helpers.folders import classes, mask, photo
from .conftest import lines, new

COLORS = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 142]], np.uint8)


def colored(data: Path, suffix: str = 'png', count: int = 3) -> None:
    """Masks of colors instead of those of 0 and 255."""
    shutil.rmtree(data / 'masks')
    for number in range(6):
        path = data / f'masks/{number:02d}.{suffix}'
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(COLORS[classes(number, count=count)]).save(path)


def coco(data: Path, annotated: int, **category: str) -> None:
    """A file of COCO: the first images have a square of the class crack, the others have nothing."""
    shutil.rmtree(data / 'masks')
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    content = dict(
        images=[dict(id=i, file_name=f'{i:02d}.jpg', width=48, height=40) for i in range(12)],
        annotations=[
            dict(id=i, image_id=i, category_id=1, segmentation=square, area=400) for i in range(annotated)
        ],
        categories=[dict(id=0, name='project', supercategory='none'), dict(id=1, name='crack', **category)],
    )
    (data / 'annotations.json').write_text(json.dumps(content))


def test_images_without_polygons_are_unlabeled_on_request(data, capsys):
    coco(data, annotated=6)
    assert new() == 0
    output = capsys.readouterr().out
    assert '6 images in the files of polygons have no polygon, so they are all background; if' in output
    assert len(lines(data, 'unlabeled')) == 0
    assert new('--empty', 'unlabeled') == 0
    assert '6 images in the files of polygons have no polygon: unlabeled' in capsys.readouterr().out
    assert lines(data, 'unlabeled') == [f'images/{number:02d}.jpg' for number in range(6, 12)]
    assert new() == 0, 'the option is remembered'
    assert len(lines(data, 'unlabeled')) == 6


def test_masks_of_class_0_alone_are_unlabeled_on_request(data, capsys):
    for number in range(6, 9):
        mask(data / f'masks/{number:02d}.png', np.zeros((40, 48), np.uint8))
    assert new() == 0
    assert '3 labeled images have only background; if they are not annotated yet' in capsys.readouterr().out
    assert len(lines(data, 'unlabeled')) == 3
    assert new('--empty', 'unlabeled') == 0
    assert '3 images whose mask has only background are unlabeled' in capsys.readouterr().out
    assert len(lines(data, 'unlabeled')) == 6 and len(lines(data, 'labeled')) == 5


def test_the_project_of_roboflow_is_no_class(data):
    coco(data, annotated=6, supercategory='project')
    assert new() == 0
    assert "classes=('background', 'crack')" in Path('configs/mine/supervised.py').read_text()


def test_another_unused_category_is_a_class(data):
    coco(data, annotated=6, supercategory='damage')
    assert new() == 0
    assert "classes=('background', 'project', 'crack')" in Path('configs/mine/supervised.py').read_text()


def test_class_names_of_roboflow(data):
    shutil.rmtree(data / 'masks')
    for number in range(6):
        mask(data / f'masks/{number:02d}.png', classes(number, count=3))
    (data / '_classes.csv').write_text('Pixel Value, Class\n0, background\n1, fine crack\n2, hole\n')
    assert new() == 0
    assert "('background', 'fine crack', 'hole')" in Path('configs/mine/allspark.py').read_text()


def test_names_instead_of_numbers_are_no_other_classes(data, capsys):
    shutil.rmtree(data / 'masks')
    for number in range(6):
        mask(data / f'masks/{number:02d}.png', classes(number, count=3))
    assert new() == 0
    mask(Path('new_masks/07.png'), classes(7, count=3))
    assert new('--add', 'new_masks') == 0
    capsys.readouterr()
    assert new('--classes', 'road', 'car', 'sky') == 0
    assert 'have changed' not in capsys.readouterr().out
    assert "('road', 'car', 'sky')" in Path('configs/mine/allspark.py').read_text()
    assert len(lines(data, 'unlabeled')) == 5


@pytest.mark.parametrize('suffix', ['jpg', 'JPEG'])
def test_jpeg_masks_need_a_table(data, capsys, suffix):
    colored(data, suffix)
    assert new() == 2
    error = capsys.readouterr().err
    assert '6 masks such as masks/00.' in error and 'are JPEG files, which damage colors' in error
    (data / 'colors.txt').write_text('void 0 0 0\nroad 128 64 128\ncar 0 0 142\n')
    assert new('--colors', 'colors.txt') == 0


def test_colors_that_the_table_lacks_are_named(data, capsys):
    colored(data)
    (data / 'colors.txt').write_text('ground 0 0 0\ncar 0 0 142\n')
    assert new('--colors', 'colors.txt') == 0
    assert 'colors that are not in the table are ignored: (128, 64, 128) 3' in capsys.readouterr().out


def test_a_video_is_no_folder_of_images(data, capsys):
    (data / 'clip.mp4').touch()
    assert new('--unlabeled', 'clip.mp4') == 2
    error = capsys.readouterr().err
    assert '--unlabeled clip.mp4 selects no image' in error and 'ffmpeg' in error


def test_results_of_predict_and_suggest_are_no_data(data):
    assert new() == 0
    before = lines(data, 'unlabeled')
    for folder, name in (('pred', 'predict.json'), ('next/suggest', 'drafts.json')):
        photo(data / folder / 'overlays/07.jpg', 3)
        (data / folder / name).write_text('{}')
    assert new() == 0 and lines(data, 'unlabeled') == before


@pytest.mark.parametrize(
    ('name', 'text', 'tool'),
    [
        ('data.yaml', 'names: [crack]', 'YOLO'),
        ('labels/00.txt', '0 0.1 0.1 0.5 0.5 0.1 0.5', 'YOLO'),
        ('annotations.xml', '<annotations/>', 'CVAT for images'),
        ('ann/00.jpg.json', '{"objects": [], "size": {}}', 'Supervisely'),
        ('project.json', '[{"annotations": [], "data": {}}]', 'Label Studio'),
        ('notes.json', '{"a": 1}', None),
    ],
)
def test_annotations_of_other_tools_are_named(data, capsys, name, text, tool):
    shutil.rmtree(data / 'masks')
    (data / name).parent.mkdir(exist_ok=True)
    (data / name).write_text(text)
    assert new() == 2
    error = capsys.readouterr().err
    assert 'no mask that fits one of them' in error
    assert (
        (f'Annotations of {tool}' in error and 'COCO JSON' in error) if tool else 'are not read' not in error
    )
