"""The command line of the report, and its page in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from allspark_mmseg.cli.report import main, read_runs

from ..helpers.work_dirs import make_data, make_plain, make_two_phases

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of a method and a supervised run."""
    root = tmp_path_factory.mktemp('report')
    data = make_data(root / 'data')
    seeds = [make_two_phases(root / f's{seed}', data, seed, (40.0 + seed, 46.0 + seed)) for seed in range(2)]
    return [*seeds, make_plain(root / 'supervised', data)]


@pytest.fixture(scope='module')
def page_file(runs: list[Path]) -> Path:
    options = ['--num-images', '3', '--device', 'cpu', '--sheet', str(runs[0] / 'sheet.png')]
    assert main([*map(str, runs), *options]) == 0
    return runs[0] / 'report.html'


def test_page_sheet_and_table_are_written(page_file, runs, capsys):
    """The second report runs no network: it prints the same from the scores in the work dirs."""
    assert 'The unlabeled images paid' in page_file.read_text() and page_file.stat().st_size < 1_000_000
    assert Image.open(runs[0] / 'sheet.png').width > 6 * 176
    for network in runs[0].glob('*.pth'):
        assert (runs[0] / '.report' / network.stem / 'scores.npz').is_file()
    assert main([str(runs[0]), '--out', str(runs[1] / 'new' / 'one.html'), '--num-images', '0']) == 0
    printed = capsys.readouterr()
    assert 'AllSpark reached 46.0 mIoU, 6.0 above supervised training (40.0)' in printed.out
    assert 'mIoU' in printed.out and 'one.html (0.' in printed.out and 'evaluat' not in printed.err
    assert '<img src="data:' not in (runs[1] / 'new' / 'one.html').read_text()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere'], 'nowhere is not a folder; expected the work dir of a training'),
        (['x=nowhere'], 'nowhere is not a folder'),
        (['.', '--num-images', '-1'], '--num-images is -1; expected 0 or more'),
        (['.', '--out', 'x.pdf'], '--out is x.pdf; expected a name that ends in .html'),
        (['.', '--sheet', 'x.jpg'], '--sheet is x.jpg; expected a name that ends in .png'),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code
    printed = capsys.readouterr().err
    assert status == 2 and message in printed and 'Traceback' not in printed


def test_a_page_is_not_replaced_by_one_without_images(tmp_path, capsys):
    data = make_data(tmp_path / 'data')
    run = make_plain(tmp_path / 'run', data)
    assert main([str(run), '--num-images', '0']) == 0
    page = (run / 'report.html').read_bytes()
    shutil.rmtree(run / '.report')
    data.rename(tmp_path / 'elsewhere')
    assert main([str(run), '--num-images', '0']) == 2
    assert 'report.html stays as it is' in capsys.readouterr().err
    assert (run / 'report.html').read_bytes() == page
    assert main([str(run), '--logs-only']) == 0 and (run / 'report.html').read_bytes() != page


def test_work_dirs_can_have_names(runs, tmp_path):
    named = shutil.copytree(runs[2], tmp_path / 'a=b')
    found = read_runs([f'mine={runs[0]}', str(named), str(runs[0])])
    assert [(run.label, run.work_dir) for run in found] == [('mine', runs[0]), ('', named)]


@pytest.fixture(scope='module')
def browser() -> Iterator:
    """A headless browser: Chromium of the system, or the one that Playwright downloads."""
    playwright = pytest.importorskip('playwright.sync_api', reason='needs a browser: pip install playwright')
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    with playwright.sync_playwright() as manager:
        if executable is None and not Path(manager.chromium.executable_path).is_file():
            pytest.skip('no browser: install chromium, or run "playwright install chromium"')
        started = manager.chromium.launch(executable_path=executable, args=['--no-sandbox'])
        yield started
        started.close()


@pytest.fixture
def page(browser, page_file) -> Iterator:
    """The report in a window of 1280 pixels. It must not log an error or ask for another file."""
    opened, problems = browser.new_page(viewport={'width': 1280, 'height': 900}), []
    opened.on('console', lambda message: problems.append(message.text))
    opened.on('pageerror', lambda error: problems.append(str(error)))
    opened.on('request', lambda request: problems.append(request.url))
    opened.goto(page_file.as_uri())
    yield opened
    opened.close()
    assert [text for text in problems if not text.startswith('data:')] == [page_file.as_uri()]


def test_the_table_sorts(page):
    def column(number: int) -> list[str]:
        return page.locator(f'#classes tbody tr > :nth-child({number})').all_inner_texts()

    heading = page.locator('#classes thead button', has_text='IoU AllSpark')
    before = [float(text) for text in column(4)]
    heading.click()
    assert [float(text) for text in column(4)] == sorted(before, reverse=True)
    heading.click()
    assert [float(text) for text in column(4)] == sorted(before)
    assert page.locator('#classes th[aria-sort=ascending]').inner_text() == 'IoU AllSpark'
    page.locator('#classes thead button', has_text='class').click()
    assert [text.strip() for text in column(1)] == ['ground', 'road', 'tree']


def test_a_curve_hides_shows_its_values_and_zooms(page):
    chart = page.locator('#run-charts .chart').first
    curves = chart.locator('path.curve')
    curves.last.wait_for(state='attached')  # a chart is drawn after its place has a size
    assert curves.count() == 3
    button = chart.locator('.legend button', has_text='unsup.loss_ce')
    button.click()
    assert curves.count() == 2 and button.get_attribute('aria-pressed') == 'false'
    button.dblclick()
    assert curves.count() == 1 and button.get_attribute('aria-pressed') == 'true'
    svg = chart.locator('svg').first
    box = svg.bounding_box()
    y = box['y'] + 100
    page.mouse.move(box['x'] + box['width'] - 15, y)
    assert 'iteration 40' in chart.locator('.tip').inner_text()
    tip = chart.locator('.tip').bounding_box()
    assert box['y'] <= tip['y'] <= y and box['x'] <= tip['x'] < box['x'] + box['width']
    page.mouse.move(box['x'] + 60, y)
    page.mouse.down()
    page.mouse.move(box['x'] + 200, y, steps=3)
    page.mouse.up()
    assert chart.locator('.reset').is_visible()
    chart.locator('.reset').click()
    assert chart.locator('.reset').is_hidden()


def test_another_run_and_another_matrix_can_be_chosen(page):
    page.select_option('#run-select', '2')
    assert page.locator('#run-charts .chart').count() == 1
    page.select_option('#comparison', label='loss')
    assert page.locator('#comparison-chart h3').inner_text() == 'loss'
    band = page.locator('#comparison-chart .band')
    band.wait_for(state='attached')
    assert band.count() == 1
    page.locator('#matrix-buttons button', has_text='Supervised phase').click()
    assert 'Supervised phase' in page.locator('#matrix caption').inner_text()
    assert page.locator('#matrix td').count() == 9


def test_a_click_enlarges_an_image_and_keys_lead_to_the_next(page):
    viewer = page.locator('#viewer')
    assert not viewer.is_visible()
    page.locator('.zoom').nth(1).click()
    thumbnail, large = page.locator('.zoom img').nth(1).bounding_box(), viewer.locator('img').bounding_box()
    assert large['width'] > 3 * thumbnail['width'] and 'truth' in viewer.locator('p').inner_text()
    page.keyboard.press('ArrowLeft')
    assert viewer.locator('p').inner_text().endswith('image')
    page.keyboard.press('Escape')
    assert not viewer.is_visible()


def test_every_image_and_chart_has_a_text(page):
    assert all(page.eval_on_selector_all('main img', 'images => images.map((each) => each.alt)'))
    charts = page.eval_on_selector_all('svg[role=img]', 'nodes => nodes.map((each) => each.ariaLabel)')
    assert charts and all('Last values:' in text for text in charts)
    headers = page.eval_on_selector_all('main th', 'nodes => nodes.map((each) => each.scope)')
    assert set(headers) == {'col', 'row'}


@pytest.mark.parametrize('width', [390, 1280])
def test_the_page_is_not_wider_than_the_window(page, width):
    page.set_viewport_size({'width': width, 'height': 800})
    page.wait_for_timeout(100)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
