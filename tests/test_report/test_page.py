"""The content of a report and its page: tables, pictures, and what is said where something is missing."""

import base64
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from allspark_mmseg.report import figures
from allspark_mmseg.report.classes import class_table, row_percent, top_confusions
from allspark_mmseg.report.collect import collect
from allspark_mmseg.report.contact import draw_contact_sheet
from allspark_mmseg.report.figures import encode, label_colors, make_galleries
from allspark_mmseg.report.page import render_page
from allspark_mmseg.report.runs import read_run

from ..helpers.work_dirs import CLASSES, PALETTE, make_two_phases


@pytest.fixture(scope='module')
def content(seeds, plain):
    """Two seeds of a method, and a supervised run."""
    return collect([read_run(path) for path in (*seeds, plain)], 'cpu')


def test_networks_of_all_runs_are_evaluated(content):
    assert content.problems == []
    names = [(each.network.run.work_dir.name, each.network.name) for each in content.evaluations]
    assert names == [
        ('s0', 'Supervised phase'),
        ('s0', 'AllSpark'),
        ('s1', 'Supervised phase'),
        ('s1', 'AllSpark'),
        ('supervised', 'Supervised'),
    ]
    assert [each.network.name for each in content.shown()] == ['Supervised phase', 'Supervised', 'AllSpark']


def test_the_table_of_classes_has_means_over_the_seeds(content):
    table = class_table(content)
    columns = {column.title: column.values for column in table.columns}
    assert table.names == CLASSES and table.colors[1] == '#c80000'
    before, after = content.before_and_after()
    mean = [np.mean([each.iou for each in phase], axis=0) for phase in (before, after)]
    np.testing.assert_allclose(columns['IoU AllSpark'], mean[1], atol=1e-4)
    np.testing.assert_allclose(columns['gain'], mean[1] - mean[0], atol=1e-4)
    np.testing.assert_allclose(columns['pseudo-label share'], [100 * 40 / 120] * 3, atol=1e-3)
    assert columns['precision'] == [90.0] * 3 and columns['coverage'] == [40.0] * 3
    assert list(columns) == [
        'pixels', 'IoU Supervised phase', 'IoU AllSpark', 'gain', 'IoU Supervised', 'pseudo-label share',
        'precision', 'coverage',
    ]  # fmt: skip


def test_confusions_are_shares_of_the_true_class():
    matrix = np.array([[6, 2, 0], [0, 0, 0], [5, 0, 5]])
    assert row_percent(matrix) == [[75.0, 25.0, 0.0], [None] * 3, [50.0, 0.0, 50.0]]
    assert top_confusions(matrix, CLASSES) == [(50.0, 'tree', 'ground'), (25.0, 'ground', 'road')]


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(',', 1)[1])))


def test_label_maps_keep_their_colors_and_pictures_their_bounds():
    labels = np.repeat(np.arange(3, dtype=np.uint8), 40).reshape(3, 40).repeat(40, axis=0)
    labels[0] = 255
    uri, width, height = encode(labels, label_colors(PALETTE), 60)
    picture = decode(uri)
    assert picture.size == (width, height) == (20, 60)
    colors = {color for _, color in picture.convert('RGB').getcolors()}
    assert colors <= {*map(tuple, PALETTE), (200, 200, 200)} and tuple(PALETTE[2]) in colors
    uri, *size = encode(np.full((10, 20, 3), 90, np.uint8), label_colors(PALETTE), 100)
    assert decode(uri).size == tuple(size) == (20, 10) and uri.startswith('data:image/jpeg')


def test_pictures_shrink_until_they_fit(content, monkeypatch):
    monkeypatch.setattr(figures, '_WIDTHS', (64, 32, 16))
    monkeypatch.setattr(figures, 'MAX_BYTES', 1)
    (row, *_) = make_galleries(content.dataset, content.shown(), 2, 'cpu')[0].rows
    assert [max(decode(picture.uri).size) for picture in row.pictures] == [16] * 6


def test_the_contact_sheet_has_a_row_for_each_image(content):
    sheet = draw_contact_sheet(content.dataset, content.shown(), 'cpu')
    assert sheet.height > 4 * 176 * 64 / 80 and sheet.width > 6 * 176
    single = draw_contact_sheet(content.dataset, content.shown()[:1], 'cpu')
    assert 3 * 176 < single.width < 4 * 220


def test_the_page_loads_nothing_and_escapes_names(content):
    galleries = make_galleries(content.dataset, content.shown(), 4, 'cpu')
    page = render_page(content, galleries)
    links = re.findall(r'\b(?:src|href)="([^"]*)"', page)
    assert links and all(link.startswith(('#', 'data:')) for link in links)
    assert 'url(' not in page and '@import' not in page and 'fetch(' not in page
    assert "default-src 'none'" in page and '<th scope="row"' in page
    assert page.count('<img src="data:image') == 4 * 6
    assert all(
        f'id="{part}"' in page for part in ('runs', 'classes', 'curves', 'confusion', 'images', 'settings')
    )
    content.groups[0].runs[0].log.warnings.append('</script><b>x')
    assert '</script><b>x' not in render_page(content, [])


def test_missing_parts_are_said(seeds, data, tmp_path):
    moved = shutil.copytree(seeds[0], tmp_path / 'moved')
    config = moved / '1/vis_data/config.py'
    config.write_text(config.read_text().replace(str(data), str(tmp_path / 'gone')))
    training = make_two_phases(tmp_path / 'training', data, seed=3, step=30)
    empty = shutil.copytree(seeds[1], tmp_path / 'empty', ignore=shutil.ignore_patterns('*.pth'))
    damaged = shutil.copytree(seeds[1], tmp_path / 'damaged')
    (damaged / 'AllSpark.pth').write_bytes(b'x')
    content = collect([read_run(path) for path in (moved, training, empty, damaged)], 'cpu')
    for text in (
        'gone of the validation images does not exist',
        'empty has no checkpoint',
        'AllSpark.pth was not',
    ):
        assert any(text in problem for problem in content.problems), text
    page = render_page(content, [])
    assert 'Missing in this report' in page and 'training</td>' not in page and 'iteration 30 of 40' in page


def test_logs_suffice(plain):
    run = read_run(plain)
    run.config_text, run.config = '', type(run.config)()
    content = collect([run], logs_only=True)
    page = render_page(content, [])
    assert '(--logs-only)' in page and 'id="confusion"' not in page and 'Supervised reached 41.0 mIoU' in page
