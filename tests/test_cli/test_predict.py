"""The command ``predict`` on small folders of images."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest

from allspark_mmseg.cli.predict import main

from ..helpers.checkpoints import META, model_config, write_checkpoint, write_image
from ..helpers.tiny_models import tiny_segmentor


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp('model') / 'chosen.pth')


@pytest.fixture
def images(tmp_path):
    """Images of two sizes in sub-folders; two have one stem."""
    root = tmp_path / 'images'
    for seed, name in enumerate(('a.jpg', 'a.png', 'x/b.png', 'x/y/c.bmp', 'x/y/d.tif')):
        write_image(root / name, (40, 48 + 8 * (seed % 2)), seed)
    return root


@pytest.fixture
def predict(checkpoint, images, tmp_path):
    """Run the command and return its exit code."""

    def run(*options, source=images, model=checkpoint, out='out'):
        arguments = [model, source, '--out', tmp_path / out, '--device', 'cpu', *options]
        return main([str(argument) for argument in arguments])

    return run


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_each_image_gets_a_mask_an_overlay_and_its_confidence(predict, images, tmp_path, capsys):
    assert predict() == 0
    names = ['a.jpg', 'a.png', 'x/b', 'x/y/c', 'x/y/d']
    assert written(tmp_path / 'out') == sorted(
        [
            *(f'{part}/{name}.png' for part in ('masks', 'confidence') for name in names),
            *(f'overlays/{name}.jpg' for name in names),
            'predict.json',
        ]
    )
    mask, confidence = (read(tmp_path / 'out' / part / 'x/b.png') for part in ('masks', 'confidence'))
    assert mask.shape == confidence.shape == (40, 48) and mask.dtype == confidence.dtype == np.uint8
    assert mask.max() < len(META['classes']) and confidence.min() >= 255 // len(META['classes'])
    colors = np.array(META['palette'])[mask][..., ::-1]
    expected = colors / 2 + read(images / 'x/b.png') / 2
    assert np.abs(read(tmp_path / 'out/overlays/x/b.jpg') - expected).mean() < 12
    output = capsys.readouterr().out
    assert output.count('Predicted 5 images in ') == 1 and ' images/s): ' in output
    assert output.count(' %') == len(
        np.unique(np.concatenate([read(path).ravel() for path in (tmp_path / 'out/masks').rglob('*.png')]))
    )


@pytest.mark.parametrize('options', [('--batch-size', '3'), ('--window', '64', '--batch-size', '2')])
def test_batches_and_windows_change_only_rounding(predict, tmp_path, options):
    predict('--no-overlays')
    predict(*options, '--no-overlays', out='other')
    for path in (tmp_path / 'out').rglob('*.png'):
        first, second = read(path), read(tmp_path / 'other' / path.relative_to(tmp_path / 'out'))
        if 'masks' in path.parts:
            assert (first != second).mean() < 0.01
        else:
            assert np.abs(first.astype(int) - second).max() <= 1


def test_what_is_done_is_skipped(predict, images, tmp_path, capsys):
    assert predict('--no-overlays', '--no-confidence') == 0
    masks = tmp_path / 'out' / 'masks'
    (masks / 'x/b.png').unlink()
    os.utime(masks / 'a.jpg.png', (1, 1))  # older than its image
    before = {path: path.stat().st_mtime_ns for path in masks.rglob('*.png')}
    capsys.readouterr()
    assert predict('--no-overlays', '--no-confidence') == 0
    output = capsys.readouterr().out
    assert 'Predicted 2 images' in output and '3 images were done before' in output
    changed = [path for path in masks.rglob('*.png') if before.get(path) != path.stat().st_mtime_ns]
    assert sorted(path.name for path in changed) == ['a.jpg.png', 'b.png']
    assert predict('--no-overlays', '--no-confidence', '--again') == 0
    assert 'Predicted 5 images' in capsys.readouterr().out


def test_results_of_two_models_are_not_mixed(predict, checkpoint, tmp_path, capsys):
    predict('--no-overlays')
    other = write_checkpoint(tmp_path / 'other.pth', seed=1)
    assert predict('--no-overlays', model=other) == 2
    error = capsys.readouterr().err
    assert 'holds predictions with checkpoint' in error and '--again' in error
    assert predict('--no-overlays', '--tta') == 2
    assert 'now tta is True' in capsys.readouterr().err
    assert predict('--no-overlays', '--again', model=other) == 0
    assert json.loads((tmp_path / 'out/predict.json').read_text())['checkpoint'] == str(other)


def test_an_interrupted_prediction_again_is_no_mixture(predict, images, checkpoint, tmp_path, capsys):
    """The results of the first network are not those of the second one."""
    (images / 'a.png').unlink()  # another image has its stem
    assert predict('--no-overlays') == 0
    other = write_checkpoint(tmp_path / 'other.pth', seed=1)
    assert predict('--no-overlays', '--again', source=images / 'a.jpg', model=other) == 0
    capsys.readouterr()
    assert predict('--no-overlays', model=other) == 0
    output = capsys.readouterr().out
    assert 'Predicted 3 images' in output and '1 images were done before' in output


def test_images_of_two_folders_are_not_mixed(predict, images, tmp_path, capsys):
    assert predict('--no-overlays') == 0
    other = tmp_path / 'other'
    shutil.copytree(images, other)
    assert predict('--no-overlays', source=other) == 2
    assert f"holds predictions with images '{images}', but now" in capsys.readouterr().err


@pytest.mark.parametrize('option', ['--no-overlays', '--again'])
def test_files_of_something_else_stay(predict, tmp_path, option, capsys):
    truth = write_image(tmp_path / 'data/masks/a.png', (40, 48))
    before = truth.read_bytes()
    assert predict(option, out='data') == 2
    assert 'data/masks has files of something else' in capsys.readouterr().err
    assert truth.read_bytes() == before


def test_damaged_images_are_named_and_the_others_predicted(predict, images, tmp_path, capsys):
    (images / 'page.jpg').write_text('<html>')
    whole = write_image(images / 'cut.jpg', (200, 200)).read_bytes()
    (images / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    write_image(images / 'tiny.png', (3, 2))
    assert predict() == 1
    captured = capsys.readouterr()
    assert 'Predicted 5 images' in captured.out
    for name in ('page.jpg', 'cut.jpg', 'tiny.png'):
        assert f'{images / name} has no result: ' in captured.err
    assert '3 images failed' in captured.err
    assert not list((tmp_path / 'out').rglob('*page*'))


def test_an_interruption_leaves_only_complete_files(predict, tmp_path, monkeypatch):
    calls = []

    def interrupted(self, images):
        calls.append(images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, images)

    from allspark_mmseg.prediction import Predictor

    original = Predictor.predict
    monkeypatch.setattr(Predictor, 'predict', interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict('--no-overlays', '--no-confidence')
    assert len(list((tmp_path / 'out/masks').rglob('*.png'))) == 2
    assert all(read(path) is not None for path in (tmp_path / 'out').rglob('*.png'))
    monkeypatch.setattr(Predictor, 'predict', original)
    assert predict('--no-overlays', '--no-confidence') == 0
    assert len(list((tmp_path / 'out/masks').rglob('*.png'))) == 5


def test_reduced_labels_are_those_of_the_masks(predict, checkpoint, images, tmp_path):
    shifted = tmp_path / 'shifted.pth'
    write_checkpoint(shifted, model_config(reduce_zero_label=True))
    one = images / 'x' / 'b.png'
    predict(source=one)
    predict(source=one, model=shifted, out='shifted')
    plain, masks = (read(tmp_path / out / 'masks/b.png') for out in ('out', 'shifted'))
    assert np.array_equal(masks, plain + 1)


def test_teacher_and_student(predict, tmp_path, images):
    model = dict(type='allspark_mmseg.FixMatch', segmentor=tiny_segmentor(), teacher=dict(momentum=0.1))
    path = write_checkpoint(tmp_path / 'iter_1.pth', model_config(model))
    one = images / 'x' / 'b.png'
    confidence = {}
    for network in ('student', 'teacher'):
        assert predict(f'--{network}', source=one, model=path, out=network) == 0
        confidence[network] = read(tmp_path / network / 'confidence/b.png')
    assert not np.array_equal(confidence['student'], confidence['teacher'])


def test_mistakes_are_one_sentence(predict, checkpoint, images, tmp_path, capsys):
    shutil.rmtree(images / 'x')
    mistakes = {
        'absent does not exist; expected an image or a folder': dict(source=tmp_path / 'absent'),
        'work does not exist; expected a config, a checkpoint': dict(model=tmp_path / 'work'),
        'leave nothing to write': dict(
            options=[f'--no-{part}' for part in ('masks', 'overlays', 'confidence')]
        ),
        '--teacher: the checkpoint holds one network': dict(options=['--teacher']),
        '--stride is 65': dict(options=['--window', '64', '--stride', '65']),
    }
    for message, arguments in mistakes.items():
        assert predict(*arguments.pop('options', ()), **arguments) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert message in error[-1] and 'Traceback' not in ''.join(error)
    assert not (tmp_path / 'out').exists()
