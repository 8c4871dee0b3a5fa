"""leaderboard.py runs cells with a stand-in for the training, records their rows and renders the tables."""

import json
import re
import subprocess
import sys
from pathlib import Path

import leaderboard
import leaderboard_rows
import pytest
from mmengine.config import Config
from mmseg.registry import MODELS

import allspark_mmseg

from ..helpers.configs import ROOT

# The first line of a config of the stand-in is JSON: mIoU of seed 0, class name, exit code, MiB to allocate.
TRAIN = """
import argparse, json, sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument('config', type=Path)
parser.add_argument('--work-dir', type=Path)
parser.add_argument('--cfg-options', nargs='+')
args = parser.parse_args()
options = dict(option.split('=') for option in args.cfg_options)
log = args.work_dir / 'now' / 'vis_data' / 'scalars.json'
log.parent.mkdir(parents=True, exist_ok=True)
log.write_text(json.dumps({'mIoU': 40.0, 'step': 500}) + '\\n' + json.dumps({'mIoU': 39.0, 'step': 1000}))
config = json.loads(args.config.read_text().splitlines()[0])
print('trains with', sorted(options.items()))
memory = b'x' * (config.get('memory', 0) << 20)
if config.get('exit'):
    sys.exit(config['exit'])
summary = {'supervised': {'mIoU': 40.0, 'iteration': 1000, 'minutes': 2.1}}
if 'name' in config:
    best = config['mIoU'] + float(options['randomness.seed']) + float(options['train_cfg.max_iters']) / 1000
    summary[config['name']] = {'mIoU': best, 'iteration': 1900, 'minutes': 5.0, 'network': 'teacher'}
    summary.update(chosen=config['name'], gain=best - 40)
if 'silent' not in config:
    (args.work_dir / 'summary.json').write_text(json.dumps(summary))
    (args.work_dir / 'supervised.pth').touch()
"""
CONFIGS = {
    'fixmatch': {'name': 'FixMatch', 'mIoU': 44.0},
    'css': {'name': 'CSSMix', 'mIoU': 39.0},
    'supervised': {},
    'broken': {'exit': 3},
    'silent': {'silent': True},
}
DATE = '2026-01-02'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the stand-in, its configs, no rows, and a page with markers."""
    paths = {'TRAIN': 'train.py', 'CONFIGS': 'configs', 'ROWS': 'rows.jsonl', 'PAGE': 'page.md'}
    for name, path in paths.items():
        monkeypatch.setattr(leaderboard, name, tmp_path / path)
    (tmp_path / 'train.py').write_text(TRAIN)
    for method, config in CONFIGS.items():
        add_config(tmp_path, method, config)
    (tmp_path / 'configs' / '_base_' / 'datasets').mkdir(parents=True)
    (tmp_path / 'configs' / '_base_' / 'datasets' / 'toy.py').write_text('')
    (tmp_path / 'page.md').write_text('before\n<!-- leaderboard -->\nold\n<!-- /leaderboard -->\nafter\n')
    return tmp_path


def add_config(place: Path, method: str, config: dict) -> None:
    path = place / 'configs' / method / 'demo.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))


def run(place: Path, *methods: str, budget: int = 1000, options: tuple[str, ...] = ()) -> None:
    cells = [word for method in methods for word in ('--cell', method, 'toy', str(budget))]
    leaderboard.main([*cells, '--work-dir', str(place / 'work'), *options])


def rows_of(place: Path) -> list[dict]:
    return [json.loads(line) for line in (place / 'rows.jsonl').read_text().splitlines()]


def test_a_cell_becomes_a_row(place, capsys):
    run(place, 'fixmatch', options=('--seed', '2'))
    (row,) = rows_of(place)
    assert list(row) == list(leaderboard_rows.KEYS)
    cell = {'method': 'fixmatch', 'data': 'toy', 'budget': 1000, 'seed': 2}
    result = {'mIoU': 47.0, 'last': None, 'supervised': 40.0, 'gain': 7.0}
    assert row.items() >= (cell | result).items()
    assert row['version'] == allspark_mmseg.__version__ and re.match(r'\d{4}-\d\d-\d\d$', row['date'])
    assert re.match(r'\d+\.\d+', row['torch']) and row['cpus'] >= 1
    assert 0 <= row['minutes'] < 1 and row['memory'] > 1
    pattern = r'fixmatch toy 1000, seed 2: mIoU 47\.00 \(\+7\.00\), 0\.\d min, \d+ MiB\n'
    assert re.fullmatch(pattern, capsys.readouterr().out)
    start = place / 'work' / 'toy' / 'start_plain_seed2'
    options = {
        'custom_hooks.0.max_iters': '1000',
        'custom_hooks.0.ramp_up': '0',
        'custom_hooks.0.val_interval': '250',
        'param_scheduler.0.end': '1',
        'randomness.seed': '2',
        'train_cfg.max_iters': '1',
        'train_cfg.val_interval': '1',
    }
    assert f'trains with {sorted(options.items())}' in (start / 'train.log').read_text()
    options = {
        'load_from': str(start / 'supervised.pth'),
        'param_scheduler.0.end': '1000',
        'randomness.seed': '2',
        'train_cfg.max_iters': '1000',
        'train_cfg.val_interval': '250',
    }
    log = place / 'work' / 'toy' / 'fixmatch_1000_seed2' / 'train.log'
    assert f'trains with {sorted(options.items())}' in log.read_text()


def test_cells_with_one_network_and_seed_share_the_supervised_weights(place):
    add_config(place, 'allspark', CONFIGS['fixmatch'])
    run(place, 'fixmatch', 'css', 'allspark', 'allspark_released', options=('--seed', '0', '1'))
    starts = {path.parent.name: path.stat().st_mtime_ns for path in (place / 'work').rglob('supervised.pth')}
    starts = {name: time for name, time in starts.items() if name.startswith('start')}
    assert set(starts) == {f'start_{network}_seed{s}' for network in ('plain', 'allspark') for s in (0, 1)}
    loaded = {
        path.parent.name: re.findall(r"'load_from', '\S+?(start_\w+)/", path.read_text())
        for path in (place / 'work').rglob('train.log')
    }
    assert loaded['css_1000_seed1'] == loaded['fixmatch_1000_seed1'] == ['start_plain_seed1']
    assert loaded['allspark_released_1000_seed0'] == ['start_allspark_seed0']
    run(place, 'fixmatch', options=('--again',))
    again = place / 'work' / 'toy' / 'start_plain_seed0' / 'supervised.pth'
    assert again.stat().st_mtime_ns == starts['start_plain_seed0'], 'a finished start is not trained again'
    assert rows_of(place)[0]['start_commit'] == json.loads((again.parent / 'code.json').read_text())['commit']
    (again.parent / 'code.json').write_text(json.dumps({'version': '0.0.1', 'commit': 'abc'}))
    run(place, 'fixmatch', options=('--again',))
    other = again.stat().st_mtime_ns
    assert other > starts['start_plain_seed0'], 'that of another version is'
    (again.parent / 'summary.json').unlink()
    run(place, 'fixmatch', options=('--again',))
    assert again.stat().st_mtime_ns > other, 'an interrupted one is'


@pytest.mark.parametrize('method', ['allspark', 'fixmatch', 'mean_teacher', 'unimatch', 'supervised'])
def test_the_configs_have_what_the_options_of_a_cell_set(method):
    def merge(start: Path | None) -> Config:
        cfg = Config.fromfile(ROOT / 'configs' / method / 'demo.py')
        cfg.merge_from_dict(dict(option.split('=') for option in leaderboard.make_options(cell, start)))
        return cfg

    cell = leaderboard.Cell(method, 'demo', 5000, 0)
    cfg = merge(Path('start.pth'))
    iterations = '6000' if method == 'supervised' else '5000'
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[0].end == iterations
    if method != 'supervised':
        assert cfg.load_from == 'start.pth'
        hook = merge(None).custom_hooks[0]
        assert (hook.type, hook.max_iters) == ('allspark_mmseg.WarmStartHook', '1000')
        assert hook.val_interval == '250'


@pytest.mark.parametrize('method', leaderboard.VARIANTS)
def test_a_variant_is_a_model(tmp_path, method):
    path = tmp_path / 'variant.py'
    path.write_text(leaderboard.make_config(method, 'camvid_1over30'))
    cfg = Config.fromfile(path)
    base = Config.fromfile(ROOT / 'configs' / leaderboard.VARIANTS[method][0] / 'demo.py')
    assert cfg.model != base.model and len(cfg.val_dataloader.dataset.metainfo.classes) == 11
    cfg.model.segmentor.decode_head.pop('loss_decode', None)
    MODELS.build(cfg.model)


def test_the_commit_says_whether_code_differs_from_it(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        command = ['git', '-c', 'user.name=x', '-c', 'user.email=x', *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    monkeypatch.setattr(leaderboard, 'ROOT', tmp_path)
    assert leaderboard.code_commit() is None
    for folder in ('allspark_mmseg', 'docs'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'file').write_text('a')
    git('init', '--quiet')
    git('add', '.')
    git('commit', '--quiet', '-m', 'x')
    (tmp_path / 'docs' / 'file').write_text('rows and tables change with each cell')
    clean = leaderboard.code_commit()
    assert clean and len(clean) >= 7 and git('rev-parse', 'HEAD').startswith(clean)
    (tmp_path / 'allspark_mmseg' / 'file').write_text('b')
    assert leaderboard.code_commit() == f'{clean}-dirty'


def test_the_supervised_cell_has_no_gain(place, capsys):
    run(place, 'supervised')
    (row,) = rows_of(place)
    assert (row['mIoU'], row['supervised'], row['gain']) == (40.0, 40.0, None)
    assert 'mIoU 40.00, ' in capsys.readouterr().out


def test_a_known_cell_is_skipped_unless_again_or_another_version(place, capsys):
    run(place, 'fixmatch', options=('--seed', '0', '1'))
    before = rows_of(place)
    add_config(place, 'fixmatch', {'name': 'FixMatch', 'mIoU': 50.0})
    run(place, 'fixmatch')
    assert rows_of(place) == before
    assert f'seed 0: skipped; {before[0]["date"]}, version' in capsys.readouterr().out
    run(place, 'fixmatch', options=('--again',))
    assert [row['mIoU'] for row in rows_of(place)] == [51.0, before[1]['mIoU']], 'replaced, not appended'
    leaderboard_rows.write_row(place / 'rows.jsonl', {**before[1], 'version': '0.0.1'})
    run(place, 'fixmatch', options=('--seed', '1'))
    assert [row['mIoU'] for row in rows_of(place)] == [51.0, 52.0]


@pytest.mark.parametrize(
    ('method', 'message'),
    [('broken', 'the training ended with exit code 3'), ('silent', 'the training wrote no ')],
)
def test_after_a_failed_training_the_other_cells_run(place, capsys, method, message):
    start, work_dir = (
        place / 'work' / 'toy' / name for name in ('start_plain_seed0', f'{method}_1000_seed0')
    )
    start.mkdir(parents=True)
    work_dir.mkdir()
    for name in ('supervised.pth', 'summary.json'):
        (start / name).touch()
    label = {'version': allspark_mmseg.__version__, 'commit': None}
    (start / 'code.json').write_text(json.dumps(label))
    (work_dir / 'summary.json').write_text(json.dumps({'supervised': {'mIoU': 1}, 'Old': {'mIoU': 2}}))
    with pytest.raises(SystemExit) as caught:
        run(place, method, 'fixmatch', options=('--table',))
    assert caught.value.code == 1
    assert [row['method'] for row in rows_of(place)] == ['fixmatch']
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f'{method} toy 1000, seed 0: FAILED: {message}')
    assert lines[0].endswith(f'; see train.log in {work_dir.parent}')
    assert 'trains with' in (work_dir / 'train.log').read_text()
    assert '| fixmatch | **45.00** (1 seed)' in (place / 'page.md').read_text()


def test_a_failed_supervised_phase_fails_the_cell_and_is_trained_again(place, capsys):
    with pytest.raises(SystemExit):
        run(place, 'silent', 'broken', 'fixmatch')
    lines = capsys.readouterr().out.splitlines()
    start = place / 'work' / 'toy' / 'start_plain_seed0'
    assert f'FAILED: the training wrote no {start / "summary.json"}; see train.log in' in lines[0]
    assert 'FAILED: the training ended with exit code 3; see train.log in' in lines[1]
    assert lines[2].startswith('fixmatch toy 1000, seed 0: mIoU 45.00')


def test_memory_is_that_of_the_cell_alone(place):
    """Not the maximum over all cells so far. A process inherits its parent's peak, so the parent is small."""
    add_config(place, 'large', {'name': 'Large', 'mIoU': 1.0, 'memory': 300})
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / 'tools')!r})
import leaderboard
place = Path({str(place)!r})
leaderboard.TRAIN, leaderboard.CONFIGS = place / 'train.py', place / 'configs'
leaderboard.ROWS = place / 'rows.jsonl'
leaderboard.main(sys.argv[1:])
"""
    cells = ['--cell', 'large', 'toy', '10', '--cell', 'fixmatch', 'toy', '10', '--work-dir', str(place)]
    subprocess.run([sys.executable, '-c', code, *cells], check=True, capture_output=True)
    large, small = (row['memory'] for row in rows_of(place))
    assert 300 < large < 500 and 1 < small < 150


def make_row(method: str, budget: int, seed: int, miou: float, gain: float | None, **other: object) -> dict:
    row = dict(method=method, data='toy', budget=budget, seed=seed, mIoU=miou, last=miou, supervised=40.0)
    row |= dict(gain=gain, minutes=2.0 + seed, memory=800 + seed, date=DATE, version='0.1.0', commit=None)
    return row | dict(torch='2.13.0', cpus=2, start_commit=None) | other


def test_the_table_has_mean_and_range_of_the_seeds():
    rows = [
        make_row('fixmatch', 500, 0, 44.0, 4.0),
        make_row('fixmatch', 500, 1, 47.0, 7.0, date='2026-01-05'),
        make_row('fixmatch', 500, 2, 45.5, 5.5),
        make_row('css', 500, 0, 39.0, -1.0),
        make_row('css', 2000, 0, 48.0, 8.0),
        make_row('supervised', 500, 0, 40.0, None),
        make_row('css', 500, 0, 30.0, 1.0, data='other', torch='2.12.0'),
        make_row('css', 500, 1, 30.0, 1.0, data='other'),
        make_row('fixmatch', 500, 1, 30.0, 2.0, data='other'),
    ]
    expected = """### other

| method | 500 iterations |
|---|---|
| css | **30.00** [30.00, 30.00] (2 seeds)<br>gain +1.00<br>2.5 min, 801 MiB |
| fixmatch | **30.00** (1 seed)<br>gain +2.00<br>3.0 min, 801 MiB |

Measured 2026-01-02 with version 0.1.0, PyTorch 2.12.0, 2.13.0 and 2 CPU cores.

### toy

| method | 500 iterations | 2000 iterations |
|---|---|---|
| css | 39.00 (1 seed)<br>gain -1.00<br>2.0 min, 800 MiB | **48.00** (1 seed)<br>gain +8.00<br>2.0 min, 800 MiB |
| fixmatch | **45.50** [44.00, 47.00] (3 seeds)<br>gain +5.50<br>3.0 min, 802 MiB | - |
| supervised | 40.00 (1 seed)<br>gain -<br>2.0 min, 800 MiB | - |

Measured 2026-01-02 to 2026-01-05 with version 0.1.0, PyTorch 2.13.0 and 2 CPU cores."""  # noqa: E501
    assert leaderboard_rows.render_tables(rows) == expected
    assert leaderboard_rows.render_tables(rows[::-1]) == expected


def test_the_tables_replace_those_on_the_page(place, capsys):
    run(place, 'fixmatch', options=('--table',))
    run(place, 'css', options=('--table',))
    before, table, after = re.split(r'<!-- /?leaderboard -->', (place / 'page.md').read_text())
    assert (before, after) == ('before\n', '\nafter\n')
    assert table.strip() == leaderboard_rows.render_tables(rows_of(place))
    assert table.index('| fixmatch |') < table.index('| css |') and 'old' not in table
    assert table.strip() in capsys.readouterr().out


def test_the_page_of_the_project_has_the_tables_of_its_rows(tmp_path):
    page = tmp_path / 'results.md'
    page.write_text((ROOT / 'docs' / 'results.md').read_text())
    rows = leaderboard_rows.read_rows(ROOT / 'docs' / 'leaderboard.jsonl')
    leaderboard_rows.replace_tables(page, leaderboard_rows.render_tables(rows))
    assert page.read_text() == (ROOT / 'docs' / 'results.md').read_text()


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('no markers', 'found 0 x'),
        ('<!-- leaderboard -->', 'found 1 x <!-- leaderboard --> and 0 x'),
        ('<!-- /leaderboard --><!-- leaderboard -->', 'in this order'),
        ('<!-- leaderboard --><!-- /leaderboard --><!-- leaderboard -->', 'found 2 x'),
        ('<!-- leaderboard --><!-- /leaderboard --><!-- /leaderboard -->', 'and 2 x'),
    ],
)
def test_a_page_without_one_pair_of_markers_stays_as_it_is(place, text, found):
    (place / 'page.md').write_text(text)
    with pytest.raises(SystemExit, match=found):
        leaderboard.main(['--table'])
    assert (place / 'page.md').read_text() == text


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('{"method": ', 'rows.jsonl:1: expected a JSON object'),
        ('{}', 'lacks method, data'),
        ('7', 'JSON object'),
    ],
)
def test_a_wrong_line_is_an_error_before_the_first_training(place, line, message):
    (place / 'rows.jsonl').write_text(line)
    with pytest.raises(SystemExit, match=message):
        run(place, 'fixmatch')
    assert not (place / 'work').exists()


@pytest.mark.parametrize(
    ('summary', 'message'),
    [
        ({'FixMatch': {'mIoU': 1}}, 'has the mIoU of FixMatch; expected supervised and one method'),
        ({'supervised': {'mIoU': 1}}, 'has the mIoU of supervised; expected supervised and one method'),
        ({'supervised': {'mIoU': 1}, 'A': {'mIoU': 1}, 'B': {'mIoU': 1}}, 'mIoU of supervised, A, B;'),
        ({'chosen': 'FixMatch'}, 'has the mIoU of nothing'),
    ],
)
def test_a_summary_without_the_two_phases_is_refused(tmp_path, summary, message):
    path = tmp_path / 'summary.json'
    path.write_text(json.dumps(summary))
    with pytest.raises(ValueError, match=message):
        leaderboard_rows.read_results('fixmatch', tmp_path)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('', 'nothing to do'),
        ('--cell fixmatch toy 0', 'expected a number of iterations, 1 or more'),
        ('--cell fixmatch toy many', 'expected a number of iterations, 1 or more'),
        ('--cell fixmatch moon 10', '_base_/datasets/moon.py'),
        ('--cell moon toy 10', 'configs/moon/demo.py'),
        ('--cell fixmatch toy', 'expected 3 arguments'),
    ],
)
def test_wrong_arguments_are_refused_before_the_first_training(place, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        leaderboard.main(['--cell', 'css', 'toy', '10', *arguments.split()] if arguments else [])
    assert caught.value.code == 2 and message in capsys.readouterr().err
    assert not (place / 'rows.jsonl').exists()
