"""python -m benchmarks: every command runs and writes its results, and wrong options are refused."""

import json
import math

import cv2
import numpy as np
import pytest

from benchmarks import measure
from benchmarks.__main__ import main
from benchmarks.commands import COMMANDS
from benchmarks.options import parse_args

TINY = ['--classes', '3', '--crop', '65', '--repeats', '1']
NARROW = [*TINY, '--channels', '8', '--images', '1', '2']
KEYS = [
    'name', 'ours_s', 'reference_s', 'speedup', 'ours_peak_mb', 'reference_peak_mb', 'memory_ratio'
]  # fmt: skip


@pytest.fixture
def run(tmp_path, capsys):
    """Run a command in this process, check the file it writes, and return results and output."""

    def call(*arguments: str, peak: bool) -> tuple[list[dict], str]:
        out = tmp_path / 'out.json'
        main([*arguments, '--json', str(out)])
        printed = capsys.readouterr().out
        return check_report(out, arguments, printed, peak), printed

    return call


def check_report(out, arguments, printed: str, peak: bool) -> list[dict]:
    report = json.loads(out.read_text())
    assert report['command'][: len(arguments)] == list(arguments)
    assert {'cpu', 'cores', 'threads', 'gpu', 'python', 'torch'} <= set(report['machine'])
    assert any('mmsegmentation' in name for name in report['machine'])
    for result in report['results']:
        assert sorted(result) == sorted(KEYS)
        assert result['name'] in printed
        for key in KEYS[1:]:
            if peak or key in KEYS[1:4]:
                assert math.isfinite(result[key]) and result[key] > 0, key
            else:
                assert result[key] is None, key
        assert result['speedup'] == pytest.approx(result['reference_s'] / result['ours_s'])
    return report['results']


def test_bottleneck_has_three_passes_by_default(run):
    results, printed = run('bottleneck', *NARROW, '--no-peak', peak=False)
    expected = ['dropout 0, fp32', 'dropout 0.1, fp32', 'dropout 0.1, ours bf16, reference fp32']
    assert [result['name'].split('), ')[1] for result in results] == expected
    assert 'Largest difference of the two sides (fp32, dropout 0): output ' in printed


def test_bottleneck_with_given_options_has_one_pass_and_peak_memory(run, monkeypatch):
    real = measure.peak_of_fresh_process  # it takes seconds for each side
    monkeypatch.setattr(
        measure,
        'peak_of_fresh_process',
        lambda case, side, *args: real(case, side, *args) if side == 'ours' else 9.0,
    )
    options = ['--dtype', 'bf16', '--dropout', '0.2', '--threads', '1']
    results, _ = run('bottleneck', *NARROW, *options, peak=True)
    assert [result['name'] for result in results] == ['bottleneck voc (K=3, 1+2 x 65^2), dropout 0.2, bf16']


def test_memory_has_one_case(run):
    results, _ = run('memory', *NARROW, '--no-peak', peak=False)
    assert len(results) == 1


def test_step_has_a_case_for_each_option(run):
    options = ['step', *TINY, '--images', '1', '1', '--no-peak']
    command = parse_args([*options, '--amp', '--checkpointing'], COMMANDS)
    names = [case.name for case in COMMANDS['step'].cases(command)]
    assert [name.split('), ')[1] for name in names] == [
        'fp32',
        'ours bf16, reference fp32',
        'fp32, ours checkpointing',
        'ours bf16, reference fp32, ours checkpointing',
    ]
    assert all('mit-b0' in name for name in names)
    results, _ = run(*options, '--checkpointing', peak=False)
    assert [result['name'] for result in results] == names[::2]


def test_inference_reports_the_overhead(run):
    options = ['--backbone', 'mit-b0', '--no-peak']
    _, printed = run('inference', *TINY, *options, peak=False)
    assert '% to the time of the forward pass' in printed


@pytest.mark.parametrize('own', [False, True], ids=['generated', 'own folder'])
def test_data_measures_both_views_and_leaves_no_files(run, tmp_path, own):
    options = ['--preset', 'camvid', '--crop', '65', '--repeats', '1', '--count', '3']
    if own:
        noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
        for name in ('a.jpg', 'b.PNG'):
            cv2.imwrite(str(tmp_path / name), noise)
        (tmp_path / 'notes.txt').write_text('no image')
        options += ['--images', str(tmp_path)]
    before = set(tmp_path.iterdir())
    results, printed = run('data', *options, peak=False)
    assert len(results) == printed.count('images/s per worker') == 2
    assert set(tmp_path.iterdir()) - before == {tmp_path / 'out.json'}


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['bottleneck', '--dropout', '1'], '--dropout is 1, expected a number in [0, 1).'),
        (['step', '--crop', '32'], '--crop is 32, expected at least 64'),
        (['memory', '--repeats', '0'], "'0' found, expected an integer of at least 1"),
        (['data', '--images', 'nowhere'], '--images is nowhere, expected a folder of images.'),
        (['inference', '--preset', 'kitti'], "invalid choice: 'kitti'"),
        (['bottleneck', '--device', 'cuda'], '--device is cuda, but PyTorch finds no CUDA device'),
    ],
)
def test_wrong_options_are_refused(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r'expected a folder with \.jpg or \.png files, found none'):
        main(['data', '--images', str(tmp_path)])


def test_sides_that_differ_are_not_timed(monkeypatch):
    monkeypatch.setattr('benchmarks.bottleneck.TOLERANCE', -1.0)
    with pytest.raises(SystemExit, match='ours and the reference differ'):
        main(['bottleneck', *NARROW, '--no-peak'])


def test_a_failure_in_the_memory_process_is_reported(monkeypatch):
    monkeypatch.setattr('benchmarks.measure.MODULE', 'benchmarks.nothing')
    with pytest.raises(SystemExit, match='ours failed in the process that measures its memory'):
        main(['memory', *NARROW])


def test_presets_set_sizes_and_backbone(monkeypatch):
    options = parse_args(['step', '--preset', 'coco', '--classes', '5'], COMMANDS)
    assert (options.classes, options.crop, options.images) == (5, 513, (4, 4))
    assert options.backbone == 'mit-b2'
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    assert parse_args(['step', '--preset', 'voc', '--device', 'cuda'], COMMANDS).backbone == 'mit-b5'
    options = parse_args(['memory'], COMMANDS)
    assert (options.classes, options.channels, options.images[1], options.crop) == (81, 512, 4, 513)
