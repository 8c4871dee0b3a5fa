"""The command export: from a checkpoint to a file, its check, and its messages."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from allspark_mmseg.cli import export
from allspark_mmseg.deployment import open_file

from ..helpers.tiny_models import CLASSES, build_model, tiny_resnet, tiny_segmentor

META = dict(classes=('sky', 'road', 'tree', 'car'), palette=[[60 * i, 0, 0] for i in range(CLASSES)])


def save(folder: Path, model: dict, name: str = 'chosen.pth') -> Path:
    """A checkpoint that contains its config, as WarmStartHook writes it."""
    text = f'default_scope = "mmseg"\nmodel = {model!r}\n'
    (folder / 'chosen.py').write_text(text)
    state = build_model(model).state_dict()
    torch.save({'meta': {'cfg': text, 'dataset_meta': META}, 'state_dict': state}, folder / name)
    return folder / name


@pytest.fixture
def checkpoint(tmp_path):
    return save(tmp_path, tiny_segmentor())


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    for name, size in (('a.png', (90, 75)), ('more/b.jpg', (70, 110)), ('c.jpg', (70, 110))):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def refused(capsys, *arguments: object) -> str:
    assert export.main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def test_a_work_dir_becomes_a_checked_onnx_file(checkpoint, photos, capsys):
    assert export.main([str(checkpoint.parent), '--check', str(photos), '--size', '96', '112']) == 0
    output = capsys.readouterr().out
    assert 'batch, height and width are free' in output and 'opset 17' in output
    assert 'passed: 3 images in 4 sizes' in output and 'onnxruntime' in output
    proto = onnx.load(str(checkpoint.with_suffix('.onnx')))
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(entries['classes']) == list(META['classes'])
    assert json.loads(entries['palette']) == META['palette']
    assert entries['network'] == 'segmentor' and 'RGB' in entries['input'] and entries['size'] == 'any'


def test_the_teacher_of_a_method_becomes_torchscript(tmp_path):
    method = dict(type='allspark_mmseg.MeanTeacher', segmentor=tiny_segmentor())
    path = save(tmp_path, method, 'iter_8.pth')
    model = build_model(method)
    state = torch.load(path, weights_only=True)
    for key, value in state['state_dict'].items():
        if key.startswith('teacher.module.decode_head.conv_seg.bias'):
            value.fill_(100.0)
    torch.save(state, path)
    model.load_state_dict(state['state_dict'])
    files = []
    for network in ('student', 'teacher'):
        files.append(tmp_path / f'{network}.pt')
        assert export.main([str(path), f'--{network}', '--out', str(files[-1])]) == 0
    image = np.full((1, 3, 70, 80), 9, np.float32)
    student, teacher = (open_file(file)(image)[0] for file in files)
    assert abs(student).max() < 50 and abs(teacher - 100).max() < 50


def test_the_check_fails_if_the_numbers_differ(checkpoint, photos, monkeypatch, capsys):
    def shifted(path, threads=0):
        run = open_file(path, threads)
        return lambda image: (run(image)[0] + 0.01, run(image)[1])

    monkeypatch.setattr('allspark_mmseg.deployment.checks.open_file', shifted)
    arguments = [str(checkpoint), '--format', 'torchscript', '--check', str(photos), '--images', '1']
    assert export.main(arguments) == 1
    assert 'FAILED: 1 image in 2 sizes' in capsys.readouterr().out


def test_the_check_fails_if_a_later_image_gives_no_number(checkpoint, photos, monkeypatch, capsys):
    def without_numbers(path, threads=0):
        run = open_file(path, threads)
        # (70, 110) is the size of two images
        return lambda image: (run(image)[0] * (np.nan if image.shape[3] == 110 else 1), run(image)[1])

    monkeypatch.setattr('allspark_mmseg.deployment.checks.open_file', without_numbers)
    assert export.main([str(checkpoint), '--format', 'torchscript', '--check', str(photos)]) == 1
    assert 'FAILED: 3 images' in capsys.readouterr().out


def test_complexity_counts_multiply_adds_and_writes_no_file(tmp_path, capsys):
    head = dict(type='FCNHead', in_channels=64, in_index=3, channels=8, num_classes=CLASSES)
    checkpoint = save(tmp_path, tiny_resnet(decode_head=head))
    model = build_model(tiny_resnet(decode_head=head)).eval()
    operations = []
    for part in model.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(
                lambda layer, _, out: operations.append(out[0, 0].numel() * layer.weight.numel())
            )
    model(torch.zeros(1, 3, 640, 960))
    assert export.main([str(checkpoint.parent), '--complexity', '--size', '640', '960']) == 0
    parameters = sum(value.numel() for value in model.parameters())
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith(f'{parameters / 1e6:.2f} M parameters, {sum(operations) / 1e9:.2f} G multiply-adds')
    )
    assert sum(operations) > 1e8 and not list(tmp_path.glob('*.onnx'))


@pytest.mark.parametrize('config', ['supervised', 'allspark'])
def test_complexity_needs_no_checkpoint(config, capsys, tmp_path):
    path = tmp_path / 'config.py'
    model = (
        tiny_segmentor()
        if config == 'supervised'
        else dict(type='allspark_mmseg.FixMatch', segmentor=tiny_segmentor())
    )
    Config(dict(model=model)).dump(path)
    assert export.main([str(path), '--complexity']) == 0
    assert 'G multiply-adds for an image of 65 x 65' in capsys.readouterr().out


class TestMessages:
    def test_the_checkpoint_is_not_replaced(self, checkpoint, capsys):
        renamed = checkpoint.rename(checkpoint.with_suffix('.pt'))
        before = renamed.read_bytes()
        message = refused(capsys, renamed, '--format', 'torchscript')
        assert 'is the checkpoint, and the file would replace it' in message
        assert renamed.read_bytes() == before

    def test_no_such_file(self, capsys, tmp_path):
        assert 'nothing.pth does not exist' in refused(capsys, tmp_path / 'nothing.pth')

    def test_a_wrong_suffix(self, checkpoint, capsys):
        assert "'.txt', expected .onnx or .pt" in refused(capsys, checkpoint, '--out', 'x.txt')
        message = refused(capsys, checkpoint, '--out', 'x.pt', '--format', 'onnx')
        assert "'.pt', expected .onnx" in message

    def test_a_plain_network_has_no_teacher(self, checkpoint, capsys):
        assert 'Leave --teacher out' in refused(capsys, checkpoint, '--teacher')

    def test_a_folder_without_images(self, checkpoint, capsys, tmp_path):
        (tmp_path / 'empty').mkdir()
        assert 'contains no image' in refused(capsys, checkpoint, '--check', tmp_path / 'empty')

    def test_a_size_of_zero(self, checkpoint, capsys):
        with pytest.raises(SystemExit, match='2'):
            export.main([str(checkpoint), '--size', '0', '5'])
        assert 'expected numbers of at least 1' in capsys.readouterr().err

    def test_a_failed_export_leaves_no_file(self, checkpoint, capsys):
        message = refused(capsys, checkpoint, '--size', 8, 8)  # smaller than a window of the network
        assert 'cannot be exported at 8 x 8 pixels' in message
        assert not list(checkpoint.parent.glob('*.onnx'))
