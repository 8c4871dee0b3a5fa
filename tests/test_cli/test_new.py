"""new: from a folder to lists and configs, again, with errors, and with masks that are added later."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from allspark_mmseg.cli.new import main
from allspark_mmseg.own_data.choices import Machine, choose
from allspark_mmseg.own_data.state import changed_classes
from allspark_mmseg.own_data.write import DataSet, base_of, main_config
from allspark_mmseg.utils import dicts_in

from ..helpers.configs import CONFIGS, views_of
from ..helpers.folders import classes, mask, photo
from .conftest import lines, new

METHODS = {
    'allspark': 'allspark_mmseg.AllSpark',
    'fixmatch': 'allspark_mmseg.FixMatch',
    'mean_teacher': 'allspark_mmseg.MeanTeacher',
    'unimatch': 'allspark_mmseg.UniMatch',
    'unimatch_v2': 'allspark_mmseg.UniMatchV2',
    'css': 'allspark_mmseg.CSSMix',
    'supervised': 'EncoderDecoder',
}
GIB = 1 << 30


def files(folder: Path) -> dict[str, bytes]:
    skipped = ('cache.json',)
    return {str(p): p.read_bytes() for p in folder.rglob('*') if p.is_file() and p.name not in skipped}


def test_lists_masks_and_configs(data, capsys):
    before = files(data)
    assert new() == 0
    output = capsys.readouterr().out
    assert (
        'images in images, masks in masks' in output
        and 'values 0 and 255, 255 is class 1 (6 masks)' in output
    )
    assert 'Next: python -m allspark_mmseg train configs/mine/allspark.py' in output
    counts = {name: len(lines(data, name)) for name in ('labeled', 'unlabeled', 'val', 'problems')}
    assert counts == dict(labeled=5, unlabeled=6, val=1, problems=0)
    image, converted = lines(data, 'labeled')[0].split()
    truth = classes(int(Path(image).stem), count=2)
    np.testing.assert_array_equal(np.asarray(Image.open(data / converted)), truth)
    assert {path: content for path, content in files(data).items() if path in before} == before


def test_the_configs_have_few_lines_and_fit_together(data, monkeypatch):
    monkeypatch.setattr(Machine, 'here', lambda: Machine('cpu', 16 * GIB))
    assert new() == 0
    configs = {path.stem: path for path in Path('configs/mine').glob('*.py')}
    assert set(configs) == set(METHODS)
    main_lines = configs['allspark'].read_text().splitlines()
    assert len(main_lines) <= 15
    assert all(
        len(path.read_text().splitlines()) <= 15 for name, path in configs.items() if name != 'allspark'
    )
    for name, path in configs.items():
        cfg = Config.fromfile(path)
        assert cfg.model.type == METHODS[name]
        nodes = [*dicts_in(cfg.model), *dicts_in(cfg.train_dataloader)]
        sizes = [node[key] for node in nodes for key in ('crop_size', 'size') if key in node]
        assert {tuple(size) for size in sizes} == {tuple(cfg.crop_size)}
        assert {node['num_classes'] for node in dicts_in(cfg.model) if 'num_classes' in node} == {2}
        assert ('memory_warm_up' in cfg.default_hooks) == (name == 'allspark')
        assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size
        assert cfg.param_scheduler[0].end == cfg.train_cfg.max_iters
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        assert {stream: len(part) for stream, part in dataset.streams.items()} == (
            dict(labeled=5) if name == 'supervised' else dict(labeled=5, unlabeled=6)
        )
        for node in dicts_in(cfg.model):
            node.pop('init_cfg', None)
        model = MODELS.build(cfg.model)
        if name != 'supervised':
            streams = (cfg.train_dataloader.dataset[stream] for stream in ('labeled', 'unlabeled'))
            assert set(model.needed_views) == {v for stream in streams for v in views_of(stream.pipeline[-1])}


@pytest.mark.parametrize('background', [False, True])
def test_where_one_class_covers_almost_everything_only_confident_pixels_count(background, tmp_path):
    from allspark_mmseg.own_data.write import method_configs

    counts = np.array([95, 5] if background else [60, 40])
    choices = choose(Machine('cuda', 80 * GIB), [(900, 800)] * 9, {'a': counts}, ['a', 'b'], 4, 4)
    data = DataSet('data', ['a', 'b'], [(0, 0, 0), (1, 1, 1)], 4, 4, 1)
    (tmp_path / 'allspark.py').write_text(main_config('new', tmp_path, data, choices))
    (tmp_path / 'fixmatch.py').write_text(method_configs(choices)['fixmatch'])
    expected = 0.95 if background else dict(type='ClassBalanced')
    for name in ('allspark', 'fixmatch'):
        model = Config.fromfile(tmp_path / f'{name}.py').model
        assert model.threshold == expected
    assert model.get('strong_weight') == (None if background else 1.0)


@pytest.mark.parametrize('name', sorted(set(METHODS) - {'allspark'}))
def test_a_method_has_the_settings_of_its_recipe(name, tmp_path):
    """With MiT-B2, the config of a method is its recipe with the data and choices of allspark.py."""
    from allspark_mmseg.own_data.write import method_configs

    choices = choose(Machine('cuda', 80 * GIB), [(900, 800)] * 9, {'a': np.ones(256)}, ['a', 'b'], 4, 4)
    data = DataSet('data', ['a', 'b'], [(0, 0, 0), (1, 1, 1)], 4, 4, 1)
    (tmp_path / 'allspark.py').write_text(main_config('new', tmp_path, data, choices))
    (tmp_path / 'method.py').write_text(method_configs(choices)[name])
    cfg, recipe = (
        Config.fromfile(path) for path in (tmp_path / 'method.py', CONFIGS / f'_base_/recipes/{name}.py')
    )
    segmentor = recipe.model.get('segmentor', recipe.model)
    segmentor.decode_head.num_classes = 2
    assert cfg.model == recipe.model
    for key in (
        'train_cfg',
        'param_scheduler',
        'optim_wrapper',
        'custom_hooks',
        'default_hooks',
        'auto_scale_lr',
    ):
        assert cfg[key] == recipe[key], key
    for stream in ('labeled', 'unlabeled'):
        ours, theirs = (c.train_dataloader.dataset.get(stream) for c in (cfg, recipe))
        assert (ours and ours.pipeline) == (theirs and theirs.pipeline)


def test_a_second_run_changes_nothing_and_keeps_an_edited_config(data, capsys):
    assert new('--threshold', '100') == 0
    before = files(Path.cwd())
    assert new() == 0
    assert files(Path.cwd()) == before, 'the threshold is remembered, and the held-out image stays'
    config = Path('configs/mine/allspark.py')
    config.write_text(config.read_text() + '# mine\n')
    photo(data / 'images/99.jpg', 99)
    assert new() == 0
    assert config.read_text().endswith('# mine\n')
    assert '7 unlabeled' in Path('configs/mine/allspark.new.py').read_text()
    assert 'is not as the last run wrote it and is kept' in capsys.readouterr().out


def test_masks_are_converted_once(data):
    assert new() == 0
    target = data / '.allspark/masks/images/00.jpg.png'
    first, other = target.stat().st_mtime_ns, data / '.allspark/masks/images/01.jpg.png'
    other.unlink()
    mask(data / 'masks/02.png', 255 * classes(1, count=2))
    assert new() == 0
    assert target.stat().st_mtime_ns == first and other.is_file()
    np.testing.assert_array_equal(
        np.asarray(Image.open(data / '.allspark/masks/images/02.jpg.png')), classes(1, count=2)
    )


def test_problems_are_listed_and_left_out(data, capsys):
    (data / 'images/06.jpg').write_text('<html>')
    content = (data / 'images/07.jpg').read_bytes()
    (data / 'images/07.jpg').write_bytes(content[: len(content) // 2])
    Image.fromarray(np.full((40, 48), 4000, np.uint16)).save(data / 'images/16.png')
    (data / 'images/copy.jpg').write_bytes((data / 'images/00.jpg').read_bytes())
    mask(data / 'masks/05.png', 255 * classes(size=(24, 20), count=2))
    assert new() == 0
    output, problems = capsys.readouterr().out, '\n'.join(lines(data, 'problems'))
    assert '5 files are left out' in output
    for text in (
        '06.jpg is a web page (HTML), not an image',
        '07.jpg is damaged',
        '16.png has 16 bits per channel',
        'copy.jpg is a copy of images/00.jpg',
        '05.png has 24 x 20 pixels, its image 48 x 40',
    ):
        assert text in problems and text in output, text
    used = [line.split()[0] for name in ('labeled', 'unlabeled', 'val') for line in lines(data, name)]
    assert not {'images/05.jpg', 'images/06.jpg', 'images/07.jpg', 'images/16.png'} & set(used)


def test_named_validation_images_and_a_folder_for_tests(data, capsys):
    photo(data / 'test/99.jpg', 99)
    assert new('--val', 'images/0[01].jpg', 'images/11.jpg') == 0
    output = capsys.readouterr().out
    assert [line.split()[0] for line in lines(data, 'val')] == ['images/00.jpg', 'images/01.jpg']
    assert (len(lines(data, 'labeled')), len(lines(data, 'unlabeled'))) == (4, 5)
    assert '1 images for testing are not used (such as test/99.jpg)' in output
    assert '1 validation images without a mask are not used (such as images/11.jpg)' in output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['missing'], 'missing is not a folder'),
        (['my data', '--masks', 'labels'], "'labels' selects no file"),
        (['my data', '--classes', 'a'], "there are 1 names: ['a']"),
        (['my data', '--colors', 'none.txt'], 'none.txt does not exist'),
        (['my data', '--threshold', '300'], 'expected a gray value from 1 to 255'),
        (['my data', '--images', 'masks'], 'no mask that fits'),
        (['empty'], 'empty has no images'),
    ],
)
def test_errors_are_one_sentence(arguments, message, data, capsys):
    Path('empty').mkdir()
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('new: ') and message in error


def test_choices_follow_the_data_and_the_machine():
    counts = {'a': np.array([999, 1, *[0] * 254])}
    cpu = choose(Machine('cpu', 16 * GIB), [(120, 90)] * 5, counts, ['a', 'b'], 4, 90)
    assert (cpu.network, cpu.crop, cpu.labeled, cpu.unlabeled, cpu.window) == ('small', 97, 4, 8, 0)
    assert cpu.rare == 'b covers 0.1 % of the pixels' and cpu.background == 'a covers 99.9 % of the pixels'
    assert 'there are 4 labeled images' in cpu.step_reason
    large = choose(Machine('cuda', 24 * GIB), [(5000, 4000)] * 5, counts, ['a', 'b'], 90, 90)
    assert (large.network, large.crop, large.labeled) == ('mit-b2', 513, 4) and large.window
    assert choose(Machine('cuda', 6 * GIB), [(99, 99)], counts, ['a'], 9, 9).network == 'mit-b0'


def test_a_config_in_a_checkout_names_its_base_by_a_relative_path(tmp_path):
    assert base_of(CONFIGS / 'mine', 'allspark') == "'../_base_/recipes/allspark.py'"
    expression = base_of(tmp_path, 'allspark')
    assert Path(eval(expression)).is_file()


def test_configs_of_other_data_are_not_overwritten(data, capsys):
    assert new() == 0
    config = Path('configs/mine/allspark.py').read_bytes()
    shutil.copytree('my data', 'other data')
    assert main(['other data', '--out', 'configs/mine']) == 2
    error = capsys.readouterr().err
    assert (
        'configs/mine/allspark.py is a config for my data, and not for other data' in error
        and '--out' in error
    )
    assert Path('configs/mine/allspark.py').read_bytes() == config
    shutil.rmtree('my data')  # a folder that was renamed
    assert main(['other data', '--out', 'configs/mine']) == 0


def test_classes_with_other_numbers_are_told():
    assert changed_classes([], ['a']) is None
    assert changed_classes(['a', 'b'], ['a', 'b']) is None
    text = changed_classes(['a', 'tree', 'x'], ['a', 'sky', 'tree'])
    assert 'since the last run: tree 1 -> 2, x 2 -> -, sky - -> 1. Networks' in text
