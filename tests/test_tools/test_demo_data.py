"""make_demo_data.py: contents, reproducibility, and what it refuses to overwrite."""

from pathlib import Path

import cv2
import demo_scenes
import make_demo_data as demo
import numpy as np
import pytest

SMALL = ['--labeled', '10', '--unlabeled', '4', '--val', '3', '--size', '64']


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('demo') / 'data'
    demo.main([str(root), *SMALL])
    return root


def test_lists_name_all_training_images_and_only_labeled_ones_have_masks(made):
    labeled = [line.split() for line in (made / 'labeled.txt').read_text().splitlines()]
    unlabeled = (made / 'unlabeled.txt').read_text().splitlines()
    assert (len(labeled), len(unlabeled)) == (10, 4)
    listed = {image for image, _ in labeled} | set(unlabeled)
    assert listed == {str(path.relative_to(made)) for path in (made / 'images/train').iterdir()}
    masks = {str(path.relative_to(made)) for path in (made / 'annotations/train').iterdir()}
    assert masks == {mask for _, mask in labeled}


def test_masks_fit_their_images_and_the_labeled_part_holds_every_class(made):
    masks = {}
    for path in made.glob('annotations/*/*.png'):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        image = cv2.imread(str(made / 'images' / path.parent.name / f'{path.stem}.jpg'))
        assert mask.dtype == np.uint8 and mask.shape == image.shape[:2] == (64, 64)
        masks.setdefault(path.parent.name, []).append(mask)
    assert len(masks['val']) == 3
    assert set(np.unique(masks['train'])) == set(range(11))


def test_same_arguments_give_the_same_bytes_and_another_seed_others(made, tmp_path):
    demo.main([str(tmp_path / 'again'), *SMALL])
    demo.main([str(tmp_path / 'other'), *SMALL, '--seed', '1'])
    assert contents(tmp_path / 'again') == contents(made)
    name = Path('images/val/val_0000.jpg')
    assert contents(tmp_path / 'other')[name] != contents(made)[name]


def test_train_and_val_share_no_handwritten_digit():
    sources = demo_scenes.load_sources()
    train, val = (
        {digit.tobytes() for of_class in sources[split] for digit in of_class} for split in demo_scenes.SPLITS
    )
    assert len(train) + len(val) == 1797
    assert not train & val


def test_the_top_digit_is_not_covered():
    sources = demo_scenes.load_sources()['train']
    for seed in range(5):
        _, label = demo_scenes.make_scene(np.random.default_rng(seed), sources, 97, 4)
        assert (label == 5).sum() > 30


def test_a_second_run_does_nothing(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.rglob('*')}
    demo.main([str(made), *SMALL])
    assert 'nothing to do' in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in made.rglob('*')} == before


def test_other_arguments_need_overwrite(tmp_path):
    out = tmp_path / 'data'
    few = [str(out), '--labeled', '1', '--unlabeled', '0', '--size', '32']
    demo.main([*few, '--val', '2'])
    with pytest.raises(SystemExit, match=r'val = 2, expected 1\).*--overwrite'):
        demo.main([*few, '--val', '1'])
    demo.main([*few, '--val', '1', '--overwrite'])
    assert len(list((out / 'images/val').iterdir())) == 1
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize('params', [None, '[]', '{'])
def test_a_foreign_folder_is_never_overwritten(tmp_path, params):
    (tmp_path / 'thesis.tex').write_text('years of work')
    if params:
        (tmp_path / 'params.json').write_text(params)
    before = contents(tmp_path)
    with pytest.raises(SystemExit, match='is not demo data'):
        demo.main([str(tmp_path), *SMALL, '--overwrite'])
    assert contents(tmp_path) == before


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_scenes, 'photograph', interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo.main([str(tmp_path / 'data'), *SMALL])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('option', [['--labeled', '0'], ['--size', '8'], ['--seed', '-1']])
def test_impossible_numbers_are_refused(tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        demo.main([str(tmp_path / 'data'), *option])
    assert f'{option[0]} is {option[1]}; expected' in capsys.readouterr().err


def test_a_missing_class_is_reported(tmp_path, capsys):
    demo.main([str(tmp_path / 'data'), '--labeled', '1', '--unlabeled', '0', '--val', '1', '--size', '32'])
    assert 'warning: the labeled part lacks' in capsys.readouterr().out
