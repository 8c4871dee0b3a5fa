"""python -m benchmarks.suggest: the protocol, its table, and that it goes on after an interruption."""

import json

import pytest
from mmengine.config import Config

from benchmarks import suggest
from tests.helpers.configs import ROOT

POOL = [f'images/{index:02}.jpg' for index in range(40)]


@pytest.fixture
def trainings(monkeypatch):
    """Replace trainings and the command by stand-ins; return the trainings."""
    done = []

    def train(folder, data, names, seed, options):
        if len(done) == options.fail_at:
            raise KeyboardInterrupt
        done.append((folder.name, list(names)))
        return 10.0 * len(done)

    def choose(folder, root, pool, options):
        assert folder.name == 'start'
        return list(pool)[-options.step :]

    monkeypatch.setattr(suggest, 'read_pool', lambda data: (ROOT, POOL))
    monkeypatch.setattr(suggest, 'count_classes', lambda root, names: len(names))
    monkeypatch.setattr(suggest, 'train', train)
    monkeypatch.setattr(suggest, 'suggest', choose)
    return done


def options_of(out, fail_at=None):
    options = suggest.parse_args(['--data', 'x', '--seeds', '1', '2', '--out', str(out)])
    options.fail_at = fail_at
    return options


def test_the_arms_share_the_first_images(trainings, tmp_path):
    suggest.run_seed('x', 1, options_of(tmp_path))
    (_, start), (_, random), (_, suggested) = trainings
    assert [name for name, _ in trainings] == ['start', 'random', 'suggest']
    assert len(start) == 10 and random[:10] == suggested[:10] == start
    assert len(set(random)) == len(set(suggested)) == 20 and set(random) != set(suggested)
    suggest.run_seed('x', 2, options_of(tmp_path))
    assert trainings[3][1] != start


def test_an_interrupted_run_goes_on(trainings, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        suggest.run_seed('x', 1, options_of(tmp_path, fail_at=1))
    assert [row['arm'] for row in suggest.read_rows(tmp_path)] == ['start']
    suggest.run_seed('x', 1, options_of(tmp_path))
    suggest.run_seed('x', 1, options_of(tmp_path))
    assert [name for name, _ in trainings] == ['start', 'random', 'suggest']
    rows = json.loads((tmp_path / 'results.json').read_text())
    assert [(row['arm'], row['mIoU'], row['classes']) for row in rows] == [
        ('start', 10, 10), ('random', 20, 20), ('suggest', 30, 20)
    ]  # fmt: skip


def test_the_table_has_the_difference_and_its_mean():
    rows = [
        dict(data='x', seed=seed, arm=arm, mIoU=value, classes=classes)
        for seed, values in ((0, (10, 20, 26)), (1, (12, 30, 32)), (2, (14, 30)))
        for arm, value, classes in zip(suggest.ARMS, values, (3, 4, 6), strict=False)
    ]
    lines = suggest.format_table(rows).splitlines()[2:]
    assert lines[0] == '| x | 0 | 10.00 | 20.00 | 26.00 | +6.00 | 4 / 6 |'
    assert lines[2] == '| x | 2 | 14.00 | 30.00 | - | - | - |'
    assert lines[3].startswith('| x | mean of 2 | 11.00 | 25.00 | 29.00 | +4.00 |')


@pytest.mark.parametrize('data', ['camvid_1over30', 'magnetic_tile_36'])
def test_the_config_has_the_data_set_and_the_crop(data, tmp_path):
    path = tmp_path / 'supervised.py'
    path.write_text(suggest.make_config(data, 81, tmp_path))
    config = Config.fromfile(path)
    labeled = config.train_dataloader.dataset.labeled
    assert config.model.data_preprocessor['size'] == (81, 81)
    assert [step['crop_size'] for step in labeled.pipeline if 'crop_size' in step] == [(81, 81)]
    assert config.model.decode_head.num_classes == len(config.metainfo.classes)
    assert config.train_dataloader.dataset.unlabeled is None


def test_the_pool_is_the_whole_training_set():
    root, names = suggest.read_pool('magnetic_tile_36')
    assert root == ROOT / 'data' / 'magnetic_tile' and len(names) == 670
    assert suggest.mask_of('images/train/a_1.jpg') == 'annotations/train/a_1.png'


def test_an_unknown_data_set_is_named(tmp_path):
    with pytest.raises(SystemExit, match='--data nothing: there is no'):
        suggest.make_config('nothing', 97, tmp_path)
